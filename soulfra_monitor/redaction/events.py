"""Masks secrets in every text of an event, within one budget, and cuts the texts afterwards."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from soulfra_monitor.events import MESSAGE_LIMIT, TEXT_LIMIT, Event, Frame, Raised
from soulfra_monitor.redaction.personal import Personal
from soulfra_monitor.redaction.texts import CUT, cut, redact
from soulfra_monitor.redaction.values import Budget, Values

EVENT_LENGTH_LIMIT = 128 << 10
"""Characters looked at of one event in all, however many texts it has."""

LOOKED_AT = 4
"""Times the length that is kept, of a text of an event, are looked at."""

EVENT_PERSONAL = frozenset({Personal.EMAIL})
"""What is masked in events beside secrets unless told otherwise."""


def redact_event(event: Event, *, also: frozenset[Personal] = EVENT_PERSONAL) -> Event:
    """Return *event* with every text of it redacted, then cut to what is kept of it. Never raises.

    At most ``EVENT_LENGTH_LIMIT`` characters are looked at in all; what is beyond is cut off unlooked at.
    """
    texts = _Texts(also, Budget(EVENT_LENGTH_LIMIT))
    return replace(
        event,
        service=texts.name(event.service),
        message=texts.text(event.message, MESSAGE_LIMIT),
        release=texts.name(event.release),
        severity=texts.name(event.severity),
        problem=texts.name(event.problem),
        fingerprint=texts.name(event.fingerprint),
        raised=tuple([_redact_raised(raised, texts) for raised in event.raised]),
        facts={texts.name(key): texts.values.item(key, value, 1) for key, value in event.facts.items()},
        context=texts.object(event.context),
        system=texts.object(event.system),
    )


class _Texts:
    """The texts of one event, within one budget."""

    def __init__(self, also: frozenset[Personal], budget: Budget) -> None:
        self._also = also
        self._budget = budget
        self.values = Values(also, budget, LOOKED_AT * TEXT_LIMIT, TEXT_LIMIT)

    def text(self, text: str, limit: int) -> str:
        return cut(redact(self._budget.take(text, LOOKED_AT * limit), also=self._also), limit)

    def object(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an object redacted; what could not be looked at is one too."""
        found = self.values.any(value, 0)
        return found if isinstance(found, Mapping) else {CUT: found}

    def name(self, text: str) -> str:
        return _name(self._budget.take(text, TEXT_LIMIT), self._also)


def _redact_raised(raised: Raised, texts: _Texts) -> Raised:
    return replace(
        raised,
        type=texts.name(raised.type),
        message=texts.text(raised.message, MESSAGE_LIMIT),
        frames=tuple([_redact_frame(frame, texts) for frame in raised.frames]),
        notes=tuple([texts.text(note, TEXT_LIMIT) for note in raised.notes]),
    )


def _redact_frame(frame: Frame, texts: _Texts) -> Frame:
    return replace(
        frame,
        module=texts.name(frame.module),
        function=texts.name(frame.function),
        file=texts.name(frame.file),
    )


@lru_cache(maxsize=1024)
def _name(text: str, also: frozenset[Personal]) -> str:
    """Redact what repeats from event to event: names of code and files."""
    return redact(text, also=also)
