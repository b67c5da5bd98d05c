"""The last lines of a file, without reading the whole of it, redacted."""

import os
import stat
from pathlib import Path

from soulfra_monitor.redaction import redact

WINDOW = 64 * 1024
LINE_LIMIT = 500


def tail(path: Path, lines: int, start: int = 0) -> list[str]:
    """Return the last lines of a regular file, none from before byte *start*. Raises OSError."""
    # Without O_NONBLOCK the opening of a pipe would wait for its writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "is not a regular file")
        begin = start if start <= status.st_size else 0  # the file was cut or replaced meanwhile
        offset = max(begin, status.st_size - WINDOW)
        data = os.pread(handle, WINDOW, offset)
    finally:
        os.close(handle)
    return last_lines(data, lines, cut=offset > begin)


def last_lines(data: bytes, lines: int, *, cut: bool) -> list[str]:
    """Return the last lines of *data*; *cut* says that its first line may lack its beginning."""
    if cut:
        # Half a line could hold a secret without the key that gives it away.
        data = data.partition(b"\n")[2]
    text = redact(data.decode(errors="replace"))
    return [line[:LINE_LIMIT] for line in text.splitlines()[-lines:]]
