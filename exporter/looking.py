"""One look with everything kept for a person: every step with its time, the reason, the phases."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import monotonic, time

from exporter.kinds import ProbeBase
from exporter.observation import Observation, Outcome, Reason
from exporter.probes import probe_function
from exporter.probes.context import Context, Note

log = logging.getLogger(__name__)

_NOTES_KEPT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One run of one probe, and how it went step by step."""

    name: str
    config: ProbeBase
    limit: float
    observation: Observation
    notes: tuple[Note, ...]
    more: int = 0  # steps beyond those

    @property
    def kind(self) -> str:
        """The kind of the probe."""
        return self.config.kind


async def look(name: str, config: ProbeBase, context: Context, faults: Counter[str]) -> Look:
    """Run a probe once. A fault of ours is its outcome, in the log, and counted in *faults*."""
    started = monotonic()
    try:
        outcome = await probe_function(config.kind)(config, context)
    except Exception as error:
        # The edge: whoever asked gets an answer.
        faults["probe"] += 1
        log.exception("probe %s failed by itself", name)
        detail = f"the probe failed by itself: {type(error).__name__}"
        outcome = Outcome(reason=Reason.INTERNAL, detail=detail)
    observation = Observation(started=started, at=time(), seconds=monotonic() - started, outcome=outcome)
    notes = context.notes or []
    return Look(
        name=name,
        config=config,
        limit=context.timeout,
        observation=observation,
        notes=tuple(notes[:_NOTES_KEPT]),
        more=max(0, len(notes) - _NOTES_KEPT),
    )


def told(looks: Iterable[Look]) -> str:
    """Tell how each look went, for a person."""
    return "\n\n".join("\n".join(_lines(one)) for one in looks)


def milliseconds(seconds: float) -> str:
    """Write a short time."""
    return f"{seconds * 1000:.1f} ms"


def _lines(one: Look) -> Iterator[str]:
    seen = one.observation
    yield f"probe {one.name} ({one.kind}), gives up after {one.limit:.3g} s"
    for note in one.notes:
        yield f"  {milliseconds(note.seconds):>12}  {note.text}"
    if one.more:
        yield f"  {'':>12}  {one.more} more steps"
    word = "ok" if seen.healthy else f"FAILED: {seen.reason}"
    detail = f": {seen.outcome.detail}" if seen.outcome.detail else ""
    yield f"  {milliseconds(seen.seconds):>12}  {word}{detail}"
    if seen.outcome.phases:
        parts = (f"{phase} {milliseconds(seconds)}" for phase, seconds in seen.outcome.phases.items())
        yield f"  {'phases':>12}  {', '.join(parts)}"
    if seen.outcome.address:
        yield f"  {'address':>12}  {seen.outcome.address}"
    tls = seen.outcome.tls
    if tls is not None:
        verified = "verified" if tls.verified else "NOT verified"
        days = (tls.not_after - seen.at) / 86400
        yield f"  {'certificate':>12}  {verified}, {tls.version or 'TLS'}, ends in {days:.1f} days"
