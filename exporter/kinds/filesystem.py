"""``{filesystem: PATH, min_free: 10%}``: look at the space and the state of a filesystem."""

from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, TypeAdapter

from exporter.fields import AbsolutePath, ByteSize, Percent
from exporter.kinds import ProbeBase

_PERCENT: TypeAdapter[float] = TypeAdapter(Percent)
_SIZE: TypeAdapter[int] = TypeAdapter(ByteSize)


def _share_or_bytes(value: object) -> object:
    is_share = isinstance(value, str) and value.rstrip().endswith("%")
    return (_PERCENT if is_share else _SIZE).validate_python(value)


def _share_or_number(value: object) -> object:
    return (
        value if isinstance(value, int) and not isinstance(value, bool) else _PERCENT.validate_python(value)
    )


class FilesystemProbe(ProbeBase):
    """Look at the filesystem that holds a path. In the limits a float is a share, an int an amount."""

    kind: ClassVar[str] = "filesystem"
    filesystem: AbsolutePath
    min_free: Annotated[int | float, BeforeValidator(_share_or_bytes)] | None = None
    min_free_inodes: Annotated[int | float, BeforeValidator(_share_or_number), Field(ge=0)] | None = None
    mounted: bool = False  # the path must be a mount point
    read_write: bool = False  # a filesystem that became read-only fails
