"""``python -m soulfra_monitor``: run a program and watch it, or list handlers that swallow errors."""

import sys

TYPE_CHECKING = False  # typing's is true for type checkers as well, and costs most of a megabyte
if TYPE_CHECKING:
    from typing import TextIO

USAGE = """\
usage: python -m soulfra_monitor [--service NAME] [--url URL] PROGRAM.py [ARGUMENT ...]
       python -m soulfra_monitor [--service NAME] [--url URL] -m MODULE [ARGUMENT ...]
       python -m soulfra_monitor [--service NAME] [--url URL] -c CODE [ARGUMENT ...]
       python -m soulfra_monitor [--service NAME] [--url URL] - [ARGUMENT ...]
       python -m soulfra_monitor --list-swallowed PATH [PATH ...]

Runs a Python program unchanged and tells a Soulfra remediator of every error that it keeps to itself.
Signals, exit status, input and output are the program's own. Options of Python go before -m soulfra_monitor.

  --service NAME          what the program is called (SOULFRA_SERVICE; default: its file's name)
  --url URL               where the remediator is (SOULFRA_URL; default: http://127.0.0.1:3001)
  --list-swallowed PATH   run nothing; list handlers that swallow errors, and exit with 1 if there are any
"""

_VARIABLES = {"--service": "SOULFRA_SERVICE", "--url": "SOULFRA_URL"}


def main(arguments: list[str]) -> int:
    """Do what the command line says; return the exit status where the program's own does not take over."""
    if arguments[:1] in (["-h"], ["--help"]):
        _say(sys.stdout, USAGE)
        return 0
    if arguments[:1] == ["--list-swallowed"]:
        return _list(arguments[1:])
    variables: dict[str, str] = {}
    while arguments and (name := arguments[0].partition("=")[0]) in _VARIABLES:
        _, given, value = arguments[0].partition("=")
        value, arguments = (value, arguments[1:]) if given else ("".join(arguments[1:2]), arguments[2:])
        if not value:
            return _refuse(f"{name} needs a value")
        variables[_VARIABLES[name]] = value
    return _watch(arguments, variables)


def _watch(arguments: list[str], variables: dict[str, str]) -> int:
    kind = {"-m": "module", "-c": "code"}.get("".join(arguments[:1]), "script")
    if kind != "script":
        arguments = arguments[1:]
    if not arguments:
        return _refuse("there is no program to run")
    if kind == "script" and arguments[0].startswith("-") and arguments[0] != "-":
        return _refuse(f"{arguments[0]} is no option")
    from soulfra_monitor import parent  # noqa: PLC0415 - what is not needed is not loaded

    return parent.run(kind, arguments, variables)


def _list(paths: list[str]) -> int:
    if not paths:
        return _refuse("--list-swallowed needs files or folders")
    from soulfra_monitor import listing  # noqa: PLC0415 - as above

    return listing.show(paths)


def _refuse(why: str) -> int:
    _say(sys.stderr, f"{USAGE.partition(chr(10) * 2)[0]}\nsoulfra_monitor: {why}\n")
    return 2


def _say(stream: "TextIO | None", text: str) -> None:
    """Write, unless the stream was closed before Python began."""
    if stream is not None:
        stream.write(text)


if __name__ == "__main__":
    if not sys.flags.safe_path:
        sys.path.pop(0)  # the working folder: modules in it are the program's, and not for this process
    sys.exit(main(sys.argv[1:]))
