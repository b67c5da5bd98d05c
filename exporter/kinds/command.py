"""``{command: [PROGRAM, ...]}``: run a program and judge by how it ends."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from exporter.fields import AbsolutePath, Account, Strict, as_list
from exporter.kinds import ProbeBase
from exporter.kinds.patterns import Re2

ExitCode = Annotated[int, Field(ge=0, le=255)]


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _variable(value: str) -> str:
    if not value or "=" in value:
        raise ValueError("the name of an environment variable is not empty and has no '='")
    return _no_nul(value)


Word = Annotated[str, AfterValidator(_no_nul)]


class CommandExpect(Strict):
    """What makes a command's end healthy."""

    exit: Annotated[tuple[ExitCode, ...], BeforeValidator(as_list), Field(min_length=1)] = (0,)
    output: Re2 | None = None  # regular expression found in what it wrote to standard output


class CommandProbe(ProbeBase):
    """Run a program, without a shell, and look at its exit code and output."""

    kind: ClassVar[str] = "command"
    command: Annotated[tuple[Word, ...], Field(min_length=1)]
    cwd: AbsolutePath = "/"
    env: Mapping[Annotated[str, AfterValidator(_variable)], Word] = {}
    user: Account | None = None
    expect: CommandExpect = CommandExpect()
    nagios: bool = False  # exit codes as check plugins give them
    metrics: bool = False  # its output is metrics in the text format of Prometheus

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.command[0]:
            raise ValueError("the first word of command is the program; it must not be empty")
        if self.nagios and "exit" in self.expect.model_fields_set:
            raise ValueError("nagios: true says what exit codes mean; leave expect.exit out")
        return self
