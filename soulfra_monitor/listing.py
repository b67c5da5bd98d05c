"""``--list-swallowed``: handlers that swallow errors, without running anything."""

import os
import sys
from collections.abc import Iterator

from soulfra_monitor.hooks import program, shapes

_LEFT_OUT = {"__pycache__", "node_modules", "site-packages", "dist-packages"}


def show(paths: list[str]) -> int:
    """Print a line for each finding; return 1 if there are any, 2 if something cannot be read."""
    found = failed = 0
    for path in paths:
        if not os.path.exists(path):
            sys.stderr.write(f"soulfra_monitor: {path}: there is no such file or folder\n")
            failed += 1
        for file in files(path):
            try:
                findings = read(file)
            except (OSError, SyntaxError, ValueError) as error:
                sys.stderr.write(f"soulfra_monitor: {file}: {error}\n")
                failed += 1
                continue
            for one in findings:
                sys.stdout.write(f"{file}:{one.line}: catches {one.catches}: {one.why}\n")
            found += len(findings)
    return 2 if failed else min(found, 1)


def files(path: str) -> Iterator[str]:
    """Give *path* if it is a file, else the Python files below it, without installed packages."""
    if not os.path.isdir(path):
        if os.path.exists(path):
            yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _LEFT_OUT)
        yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(".py"))


def read(file: str) -> list[shapes.Finding]:
    """Return what swallows in *file*. Raises OSError, SyntaxError and ValueError."""
    with open(file, "rb") as opened:
        tree = program.parse(opened.read(), file)
    return sorted(shapes.findings(tree), key=lambda finding: finding.line)
