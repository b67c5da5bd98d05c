"""``{file: PATH, max_age: 1h}``: look at a file, a folder or a socket file."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, model_validator

from exporter.fields import AbsolutePath, Account, ByteSize, Duration, Strict
from exporter.kinds import ProbeBase

_MODE = re.compile(r"^0?[0-7]{3,4}$")
_WILD = re.compile(r"[*?\[]")
_EXPECTATIONS = ("max_age", "min_age", "min_size", "max_size", "owner", "group", "mode", "type", "newest")


def _read_mode(value: object) -> object:
    if isinstance(value, str) and _MODE.match(value):
        return int(value, 8)
    raise ValueError('a mode is written in quotes and octal, for example "0640"')


Mode = Annotated[int, BeforeValidator(_read_mode)]


class AtMost(Strict):
    """The bits that a mode may have."""

    at_most: Mode


def _mode_or_limit(value: object) -> object:
    return AtMost.model_validate(value) if isinstance(value, dict) else _read_mode(value)


class FileProbe(ProbeBase):
    """Look at a file: whether it is there, its age, size, owner, group, mode and type."""

    kind: ClassVar[str] = "file"
    file: AbsolutePath  # with newest: a pattern such as /backups/*.tar.gz
    newest: bool = False
    exists: bool = True
    max_age: Duration | None = None
    min_age: Duration | None = None
    min_size: ByteSize | None = None
    max_size: ByteSize | None = None
    owner: Account | None = None
    group: Account | None = None
    mode: Annotated[AtMost | int, BeforeValidator(_mode_or_limit)] | None = None
    type: Literal["file", "directory", "socket"] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        asked = [key for key in _EXPECTATIONS if key in self.model_fields_set]
        if not self.exists and asked:
            raise ValueError(f"exists: false goes with nothing else, so not with {asked[0]}")
        if self.newest and not _WILD.search(self.file):
            raise ValueError("newest: true needs a pattern, for example /var/backups/*.tar.gz")
        if self.min_age and self.max_age and self.min_age >= self.max_age:
            raise ValueError("min_age must be less than max_age")
        if self.min_size is not None and self.max_size is not None and self.min_size > self.max_size:
            raise ValueError("min_size must not be greater than max_size")
        return self
