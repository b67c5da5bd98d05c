"""``process: {port: 4002}``: watch the process of a service."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from exporter.fields import Pattern
from exporter.kinds import ProbeBase


class ProcessProbe(ProbeBase):
    """Watch the process of a service: found by listening port, pid file or command line."""

    kind: ClassVar[str] = "process"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    pid_file: str | None = None
    match: Pattern | None = None  # regular expression found in the joined command line

    @model_validator(mode="after")
    def _one_way_to_find_it(self) -> Self:
        given = [key for key in ("port", "pid_file", "match") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError("say in exactly one way how to find the process: port, pid_file or match")
        return self
