"""Small files of the operator that a probe sends: a body, a password. Read for every run: they rotate."""

import asyncio
import os
import stat
from collections.abc import Callable
from typing import TypeVar

from exporter.probes.context import OWN_SHARE, Context
from exporter.probes.patience import in_thread

T = TypeVar("T")

SIZE_LIMIT = 1024 * 1024


class OwnFileError(Exception):
    """A file that the configuration names cannot be used; no fault of whom the probe asks."""


async def from_files(work: Callable[[], T], context: Context) -> T:
    """Return what *work*, which reads files, returns. Raises what it raises, OwnFileError if they hang."""
    try:
        async with asyncio.timeout(OWN_SHARE * context.timeout):
            return await in_thread(work, context.recall)
    except TimeoutError as error:
        raise OwnFileError("a file of the probe could not be read in time") from error


def read_own(path: str, key: str) -> bytes:
    """Return what is in the file that *key* of the configuration names. Raises OwnFileError."""
    try:
        # Not waiting for the other end, should it be a pipe.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as opened:  # noqa: PTH123 - a handle has no path
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OwnFileError(f"{key} is not a file")
            content = opened.read(SIZE_LIMIT + 1)
    except IsADirectoryError as error:
        raise OwnFileError(f"{key} is not a file") from error
    except OSError as error:
        raise OwnFileError(f"{key} cannot be read: {error.strerror}") from error
    if len(content) > SIZE_LIMIT:
        raise OwnFileError(f"{key} has more than {SIZE_LIMIT} bytes")
    return content


def read_secret(path: str, key: str) -> str:
    """Return the one line of a file with a secret. Raises OwnFileError."""
    try:
        text = read_own(path, key).decode().strip()
    except UnicodeDecodeError as error:
        raise OwnFileError(f"{key} is not UTF-8 text") from error
    if not text or any(character < " " or character == "\x7f" for character in text):
        raise OwnFileError(f"{key} does not have one line of text")
    return text
