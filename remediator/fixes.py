"""What is suggested for an error of ours, from the kernel's table of known patterns. Pure."""

from collections.abc import Sequence
from dataclasses import asdict

from remediator.signals import Error, Member
from soulfra_monitor.classify import Classification
from soulfra_monitor.events import Event, EventError, Kind
from soulfra_monitor.fixes import suggest
from soulfra_monitor.wire import read_event


def suggested(error: Error, members: Sequence[Member]) -> dict[str, str | None] | None:
    """Return what is suggested for *error*, with the reason, as the API tells it; None when nothing is."""
    known = Classification(problem=error.problem, severity=error.severity, reasons=())
    fix = suggest(_event(error, members), known)
    if fix is None:
        return None
    return {key: text or None for key, text in asdict(fix).items() if key != "name"}


def _event(error: Error, members: Sequence[Member]) -> Event:
    """Return the newest event that was kept of the error; one made of its labels where there was none."""
    sample = next((member.detail for member in members if member.detail), None)
    plain = Event(
        id="0" * 32,
        at=error.last_seen,
        kind=Kind.REPORTED,
        service=error.target,
        message=error.message,
        facts=error.labels,
    )
    if sample is None:
        return plain
    try:
        return read_event({**sample, "service": error.target}, now=error.last_seen)
    except EventError:  # too much was left out of it
        return plain
