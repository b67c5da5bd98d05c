"""``process: {port: 4002}``: watch the processes of a service."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from exporter.fields import Account, Strict
from exporter.kinds import ProbeBase
from exporter.kinds.patterns import Re2


class Count(Strict):
    """How many processes a service must have."""

    at_least: Annotated[int, Field(ge=1)] | None = None
    at_most: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("say at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError("at_least must not be greater than at_most")
        return self


class ProcessProbe(ProbeBase):
    """Watch the processes of a service: found by listening port, pid file or command line."""

    kind: ClassVar[str] = "process"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    pid_file: str | None = None
    match: Re2 | None = None  # regular expression found in the joined command line
    user: Account | None = None  # processes of others are not the service's
    count: Count | None = None

    @model_validator(mode="after")
    def _one_way_to_find_it(self) -> Self:
        given = [key for key in ("port", "pid_file", "match") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError("say in exactly one way how to find the process: port, pid_file or match")
        return self
