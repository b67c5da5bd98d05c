"""A reporter that keeps what it is told: what the hooks' and the watched objects' tests look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from soulfra_monitor.events import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One thing a reporter was told."""

    kind: Kind
    message: str
    error: BaseException | None = None
    type: str = ""
    service: str | None = None
    handled: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    stack: tuple[str, ...] = ()  # functions of the frame that was handed over, the innermost first

    @property
    def function(self) -> str:
        """The innermost function of the frame that was handed over."""
        return self.stack[0] if self.stack else ""


class Recorder:
    """Keeps what it is told, in its order."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.broken: list[tuple[str, BaseException]] = []

    def raised(
        self,
        kind: Kind,
        error: BaseException,
        *,
        service: str | None = None,
        message: str | None = None,
        handled: bool = True,
        facts: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        self.keep(
            Told(
                kind=kind,
                message=message or str(error),
                error=error,
                type=type(error).__name__,
                service=service,
                handled=handled,
                facts=dict(facts or {}),
                context=dict(context or {}),
            )
        )

    def noted(
        self,
        kind: Kind,
        message: str,
        *,
        service: str | None = None,
        frame: FrameType | None = None,
        facts: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        stack = []
        while frame is not None:
            stack.append(frame.f_code.co_name)
            frame = frame.f_back
        self.keep(
            Told(
                kind=kind,
                message=message,
                service=service,
                facts=dict(facts or {}),
                context=dict(context or {}),
                stack=tuple(stack),
            )
        )

    def keep(self, told: Told) -> None:
        self.told.append(told)

    def broke(self, place: str, error: BaseException) -> None:
        self.broken.append((place, error))

    def of(self, kind: Kind) -> list[Told]:
        return [one for one in self.told if one.kind is kind]

    @property
    def kinds(self) -> list[Kind]:
        return [one.kind for one in self.told]
