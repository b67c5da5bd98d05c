"""The process of a watched program: switches the hooks on, and becomes what ``python PROGRAM`` would be.

Started by ``parent`` as ``python [OPTIONS] .../child.py PIPE KIND TARGET ARGUMENTS``. What differs from the
plain program: the lowest three frames of the main thread's stack are ours, so that ``traceback.print_stack``
shows them and a recursion has that much less room (an uncaught error's traceback comes without them); and the
process list shows how it was started.
"""

import builtins
import os
import sys
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep


def main(pipe: int, kind: str, target: str, arguments: list[str]) -> None:
    """Run the program as ``__main__``. Ends as it does. Tells by *pipe* where the record of this life is."""
    _take_place(kind, target, arguments)
    record = _watch(kind, target)
    if record is not None:
        _send(pipe, record.path)
    os.close(pipe)
    try:
        _RUN[kind](target)
    except SystemExit as leave:
        if record is not None:
            record.note(f"exit {_where(leave.__traceback__)}")
        raise
    except BaseException as error:  # noqa: BLE001 - whatever ends a program
        uncaught = error
    else:
        return
    _end(uncaught, record)  # outside of the handler: what a hook raises there has no context of ours


def _send(pipe: int, path: str) -> None:
    try:
        os.write(pipe, os.fsencode(path))
    except BrokenPipeError:  # the parent is gone, and so shall we
        return
    except OSError as error:
        _complain(f"soulfra_monitor: the parent is not told of this life's record: {error.strerror}\n")


def _complain(text: str) -> None:
    """Write to standard error, if there is one."""
    if sys.stderr is not None:
        sys.stderr.write(text)


def _take_place(kind: str, target: str, arguments: list[str]) -> None:
    """Have ``sys`` say what it would say under plain Python."""
    own = sys.orig_argv.index(sys.argv[0]) if sys.argv[0] in sys.orig_argv else 1
    flag = {"module": ["-m"], "code": ["-c"]}.get(kind, [])
    sys.orig_argv[own:] = [*flag, target, *arguments]
    sys.argv[:] = [{"module": "-m", "code": "-c"}.get(kind, target), *arguments]
    if sys.flags.safe_path:
        return
    sys.path.pop(0)  # the folder of this file
    if kind == "module":
        sys.path.insert(0, os.getcwd())
    elif kind == "script" and target != "-":
        sys.path.insert(0, os.path.dirname(os.path.realpath(target)))
    else:
        sys.path.insert(0, "")


def name_of(kind: str, target: str) -> str:
    """Return the file name by which a program without a name of its own is called."""
    return {"module": f"{target.replace('.', '-')}.py", "code": "python"}.get(kind, target)


def _watch(kind: str, target: str) -> Any:
    """Switch the library on; return the record of this life. Whatever fails, the program runs."""
    sys.path.append(ROOT)  # last, so that it hides nothing
    name, sys.argv[0] = sys.argv[0], name_of(kind, target)
    try:
        from soulfra_monitor.loading import pythons_own  # noqa: PLC0415 - not before the path is right

        with pythons_own():
            from soulfra_monitor import crashes  # noqa: PLC0415 - as above
            from soulfra_monitor.monitor import ErrorMonitor  # noqa: PLC0415 - as above
        monitor = ErrorMonitor().start().share()
        crashes.install(monitor)
        record = crashes.current()
        if record is not None:
            record.kept = True
            monitor.when_left(record.leave_errors)
    except Exception as error:  # noqa: BLE001 - told, and the program runs unwatched
        _complain(f"soulfra_monitor: the program runs unwatched: {type(error).__name__}: {error}\n")
        return None
    else:
        return record
    finally:
        if sys.path[-1:] == [ROOT]:
            sys.path.pop()
        sys.argv[0] = name


def _fresh_main(**says: Any) -> dict[str, Any]:
    """Put a new ``__main__`` in place and return its names: those that Python gives one, and *says*."""
    ours = vars(sys.modules["__main__"])
    fresh = ModuleType("__main__")
    names = vars(fresh)
    given = ("__doc__", "__package__", "__loader__", "__spec__", "__annotations__")
    names.update({name: ours[name] for name in given if name in ours})
    names["__doc__"] = None
    if "__annotations__" in names:
        names["__annotations__"] = {}
    names["__builtins__"] = builtins
    names.update(says)
    sys.modules["__main__"] = fresh
    return names


def _run_script(target: str) -> None:
    if target == "-":
        _run_stdin()
        return
    from importlib.machinery import SourceFileLoader, SourcelessFileLoader  # noqa: PLC0415 - not for -c and -m

    path = os.path.join(os.getcwd(), target)
    if _is_importable(target):
        _run_container(path)
        return
    loader: Any = SourcelessFileLoader if target.endswith(".pyc") else SourceFileLoader
    names = _fresh_main(__loader__=loader("__main__", path), __file__=path)
    if "__cached__" in vars(_OURS):
        names["__cached__"] = None
    if loader is SourcelessFileLoader:
        code = names["__loader__"].get_code("__main__")
    else:
        code = _compiled(_source(path), path)
    exec(code, names)  # noqa: S102 - the program


def _source(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        program = sys.executable
        _complain(f"{program}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}\n")
        sys.exit(2)


def _is_importable(target: str) -> bool:
    """Tell whether *target* is a folder or an archive with a ``__main__`` in it."""
    if os.path.isdir(target):
        return True
    import zipimport  # noqa: PLC0415 - loaded by Python already

    try:
        zipimport.zipimporter(target)
    except zipimport.ZipImportError:
        return False
    return True


def _run_container(path: str) -> None:
    import runpy  # noqa: PLC0415 - only here and for modules

    if not sys.flags.safe_path:
        sys.path.pop(0)
    sys.path.insert(0, path)
    _fresh_main()
    runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined] # noqa: SLF001


def _run_module(target: str) -> None:
    import runpy  # noqa: PLC0415 - as above

    _fresh_main()
    runpy._run_module_as_main(target)  # type: ignore[attr-defined] # noqa: SLF001 - what python -m calls


def _run_code(target: str) -> None:
    from importlib.machinery import BuiltinImporter  # noqa: PLC0415 - as above

    names = _fresh_main(__loader__=BuiltinImporter)
    if sys.version_info >= (3, 13):  # from then on tracebacks show lines of -c
        import linecache  # noqa: PLC0415 - as above

        linecache.cache["<string>"] = (len(target), None, target.splitlines(keepends=True), "<string>")
    exec(compile(target + "\n", "<string>", "exec", dont_inherit=True), names)  # noqa: S102 - the program


def _run_stdin() -> None:
    from importlib.machinery import BuiltinImporter  # noqa: PLC0415 - as above

    names = _fresh_main(__loader__=BuiltinImporter, __file__="<stdin>")
    if "__cached__" in vars(_OURS):
        names["__cached__"] = None
    source = sys.stdin.buffer.read() if sys.stdin is not None else b""
    exec(compile(source, "<stdin>", "exec", dont_inherit=True), names)  # noqa: S102


_RUN = {"script": _run_script, "module": _run_module, "code": _run_code}


def _compiled(source: bytes, path: str) -> CodeType:
    """Compile the program, with calls in the handlers that swallow where that is the means."""
    code: CodeType = compile(source, path, "exec", dont_inherit=True)
    swallowed_ast = sys.modules.get("soulfra_monitor.hooks.swallowed_ast")
    return code if swallowed_ast is None else swallowed_ast.rewritten_main(code, source, path)


def _where(traceback: TracebackType | None) -> str:
    """Return the file and line at which the program left."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return "" if traceback is None else f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"


def _end(error: BaseException, record: Any) -> NoReturn:
    """End as Python does of an uncaught error, with the traceback that it would have."""
    traceback = error.__traceback__ = _without_ours(error.__traceback__)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, traceback
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    try:
        sys.excepthook(type(error), error, traceback)
    except SystemExit:
        raise
    except BaseException as another:  # noqa: BLE001 - as Python does
        _say_both(another, error)
    finally:
        if record is not None and not isinstance(error, KeyboardInterrupt):
            _see_told(error, record)
    if isinstance(error, KeyboardInterrupt):
        sys.excepthook = _silent  # Python ends itself with SIGINT, and would print it once more
        raise error
    sys.exit(1)


def _see_told(error: BaseException, record: Any) -> None:
    """Tell what ended the program if nobody has: its own hook may call no other. Else the parent tells."""
    from soulfra_monitor.events import Kind  # noqa: PLC0415 - loaded by ``_watch``
    from soulfra_monitor.monitor import active  # noqa: PLC0415 - as above

    monitor = active()
    if monitor is None:  # the program has stopped it
        return
    if not monitor.has_told_end(error) and "uncaught" not in monitor.settings.without:
        monitor.raised(Kind.UNCAUGHT, error, handled=False)
    if monitor.has_told_end(error):
        record.note("told")


def _without_ours(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the first frame on that is the program's."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(_OWN):
        traceback = traceback.tb_next
    return traceback


def _say_both(another: BaseException, error: BaseException) -> None:
    another.__traceback__ = _without_ours(another.__traceback__)
    _complain("Error in sys.excepthook:\n")
    sys.__excepthook__(type(another), another, another.__traceback__)
    _complain("\nOriginal exception was:\n")
    sys.__excepthook__(type(error), error, error.__traceback__)


def _silent(*_: object) -> None:
    """Print nothing: it has been printed."""


if __name__ == "__main__":
    _OURS = sys.modules["__main__"]
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
