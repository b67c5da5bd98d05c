"""Turns a module of a ``blackbox.yml`` and a target into a probe of ours."""

from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import Field, PlainValidator, ValidationError

from exporter.fields import Strict
from exporter.kinds import ProbeBase
from exporter.modules import Module

_ANY_TARGET = "192.0.2.1:9"
"""Stands for the target while a module is checked; nothing is sent there."""


class TargetError(ValueError):
    """A target that no probe of this prober can be sent to."""


def read_module(value: object) -> Module:
    """Read one module. Raises ValueError when it has mistakes or cannot be honoured."""
    module = value if isinstance(value, Module) else Module.model_validate(value)
    try:
        probe_of(module, _ANY_TARGET)
    except ValidationError as error:
        # The places inside are those of our probe, which stands in nobody's file.
        raise ValueError("; ".join(_message(item["msg"]) for item in error.errors())) from error
    return module


class ModulesFile(Strict):
    """A whole ``blackbox.yml``."""

    modules: Mapping[str, Annotated[Module, PlainValidator(read_module)]] = Field(default={})


def probe_of(module: Module, target: str, hostname: str = "") -> ProbeBase:
    """Return the probe that asks *target* as *module* says; *hostname* is what the peer is told it is called.

    Raises TargetError when the prober cannot be sent there.
    """
    return TRANSLATE[module.prober](module, target, hostname)


def _message(text: str) -> str:
    return text.removeprefix("Value error, ")


TRANSLATE: dict[str, Callable[[Module, str, str], ProbeBase]] = {}
