"""Asks the exporter to look now, and puts its answer into the words of the policy."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from remediator import evidence
from remediator.policy import Health
from remediator.runner import Tools
from remediator.verify import ExporterUnreachable, is_fresh

_CHECK_TIMEOUT = 8.0  # seconds; a hung target and its peers take two probe timeouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """What the exporter answered."""

    health: Health
    result: Mapping[str, Any] = field(default_factory=dict)  # of the look at the target, as it was told


UNWATCHED = Inquiry(health=Health(reachable=True, ready=True))
"""Of no configured service there is nothing to ask."""


def ask(tools: Tools, target: str, *, peers: bool = True, count: bool = False) -> Inquiry:
    """Have the exporter look at *target* and at what it depends on.

    With *peers* it also looks at others, to tell a blind prober from a dead target; with *count* it is asked
    how many services are up, which is much to send for thousands of them. Never raises for an exporter that
    cannot be asked: that is an answer.
    """
    service = tools.services.get(target)
    needed = service.depends_on if service else ()
    try:
        answer = tools.exporter.check([target, *needed], peers=peers, timeout=_CHECK_TIMEOUT)
        fresh = is_fresh(answer.get("at"), time.time())
        blind = bool(answer.get("prober_blind"))
        services = tools.exporter.state(timeout=2.0)["services"] if count or blind else {}
    except ExporterUnreachable as failure:
        tools.metrics.exporter_reachable.set(0)
        return Inquiry(health=Health(reachable=False, detail=str(failure)))
    tools.metrics.exporter_reachable.set(1)
    if not fresh:
        told = "its answer is not of this moment; compare the clocks"
        return Inquiry(health=Health(reachable=False, detail=told))
    results = answer["results"]
    seen = results.get(target, {})
    if seen.get("known") and seen.get("healthy") is None:
        # No evidence either way: a fault of the exporter must not restart a service.
        told = str(seen.get("detail") or "its probe failed by itself")
        return Inquiry(health=Health(reachable=False, detail=told))
    states = [item.get("status") for item in services.values()]
    health = Health(
        reachable=True,
        ready=bool(answer.get("ready")),
        known=bool(seen.get("known")),
        healthy=bool(seen.get("healthy")),
        slow=bool(seen.get("slow")),
        blind=blind,
        detail=str(seen.get("detail") or seen.get("reason") or ""),
        down_since=seen.get("since") if seen.get("status") == "down" else None,
        sick_dependencies=_sick(needed, results, answer["at"], tools.settings.settle),
        services_up=states.count("up"),
        services_total=len(states),
    )
    return Inquiry(health=health, result=seen)


def last_seen(tools: Tools, target: str) -> Mapping[str, Any]:
    """Return what the exporter has seen of *target* and of what it depends on, for people to read."""
    service = tools.services.get(target)
    names = (target, *(service.depends_on if service else ()))
    try:
        seen = {name: tools.exporter.state(name, timeout=2.0)["services"].get(name) for name in names}
    except ExporterUnreachable as failure:
        return {"missing": f"the exporter cannot be asked: {failure}"}
    return evidence.last_seen(seen, names)


def _sick(needed: Sequence[str], results: Mapping[str, Any], at: float, settle: float) -> tuple[str, ...]:
    """Name the dependencies that are down, or up again for so short that dependants need a moment."""
    sick = []
    for name in needed:
        seen = results.get(name, {})
        if not seen.get("known"):
            continue
        settled = at - (seen.get("recovered_at") or 0.0) >= settle
        if seen.get("healthy") is False or not settled:
            sick.append(name)
    return tuple(sick)
