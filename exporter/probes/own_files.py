"""Small files of the operator that a probe sends: a body, a password. Read for every run: they rotate."""

from pathlib import Path

SIZE_LIMIT = 1024 * 1024


class OwnFileError(Exception):
    """A file that the configuration names cannot be used; no fault of whom the probe asks."""


def read_own(path: str, key: str) -> bytes:
    """Return what is in the file that *key* of the configuration names. Raises OwnFileError."""
    file = Path(path)
    try:
        if not file.is_file():  # a pipe could hold the exporter for ever
            raise OwnFileError(f"{key} is not a file")
        with file.open("rb") as opened:
            content = opened.read(SIZE_LIMIT + 1)
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
