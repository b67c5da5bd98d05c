"""What is said over a connection, line by line: ``exchange: [{expect: RE2, send: "..."}]``."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from exporter.fields import Strict
from exporter.kinds.patterns import Re2


class Step(Strict):
    """Wait for a line, then send one, then begin TLS: each if given, in this order."""

    expect: Re2 | None = None  # lines are read until it is found in one
    send: str | None = None  # without its newline; ${1} and ${name} stand for what expect captured
    starttls: bool = False

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.expect is None and self.send is None and not self.starttls:
            raise ValueError("a step needs expect, send or starttls")
        return self


def check_one_start(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return *steps* when TLS begins at most once. Raises ValueError otherwise."""
    if sum(step.starttls for step in steps) > 1:
        raise ValueError("starttls can stand in one step only: a connection begins TLS once")
    return steps


def begins_tls(steps: tuple[Step, ...]) -> bool:
    """Whether one of *steps* begins TLS."""
    return any(step.starttls for step in steps)


Steps = Annotated[tuple[Step, ...], Field(max_length=100)]
