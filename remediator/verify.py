"""Asks the exporter for fresh probes. The only proof of a recovery."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from remediator.calls import CallError, call
from remediator.playbook import Verify
from remediator.run import Outcome

FRESH_FOR = 5.0
"""Seconds after which an answer says nothing about now."""

LOOK_TIMEOUT = 5.0
"""Seconds for one look; more than a probe's timeout, so that a hanging service is an answer."""


class ExporterUnreachable(Exception):  # noqa: N818 - named for what it says
    """The exporter gave no usable answer, so that nothing is known."""


class ExporterClient:
    """The exporter's ``/check`` and ``/state``. Safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def check(
        self, targets: Iterable[str], *, peers: bool = False, timeout: float = LOOK_TIMEOUT
    ) -> dict[str, Any]:
        """Have the targets probed now and return the exporter's answer; *peers* adds what all others are.

        Raises ExporterUnreachable with the reason.
        """
        fields = [("target", target) for target in targets]
        return self._get("/check", [*fields, ("peers", "true")] if peers else fields, timeout, "results")

    def state(self, target: str | None = None, *, timeout: float = 2.0) -> dict[str, Any]:
        """Return what the exporter knows, of one target or of all. Raises ExporterUnreachable."""
        return self._get("/state", [("target", target)] if target else [], timeout, "services")

    def _get(self, path: str, fields: list[tuple[str, str]], timeout: float, needed: str) -> dict[str, Any]:
        try:
            answer = call("GET", f"{self._url}{path}", timeout=timeout, fields=fields)
            found = answer.json() if answer.ok else None
        except CallError as error:
            raise ExporterUnreachable(f"{path}: {error}") from error
        if not isinstance(found, dict) or not isinstance(found.get(needed), dict):
            told = "has no usable content" if answer.ok else f"has status {answer.status}"
            raise ExporterUnreachable(f"{path}: its answer {told}")
        return found


class Checker(Protocol):
    """Whoever can have a target probed now."""

    def check(self, targets: Iterable[str], *, peers: bool = ..., timeout: float = ...) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What the looks at a target came to."""

    outcome: Outcome  # recovered, failed or unverified
    looks: int
    detail: str
    healthy_since: float | None = None  # epoch seconds of the first of the healthy looks in a row


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look; ``healthy`` is None when it says nothing."""

    healthy: bool | None
    at: float
    detail: str


def verify(
    client: Checker,
    target: str,
    rule: Verify,
    *,
    must_be_fast: bool = False,
    hopeless: Callable[[], str | None] = lambda: None,
    stop: threading.Event | None = None,
    now: Callable[[], float] = time.time,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] | None = None,
) -> Verification:
    """Look every ``rule.every`` until ``rule.healthy`` looks in a row are healthy, or the deadline.

    Recovered is said on fresh answers of the exporter alone. When the last look was not answered,
    the outcome is unverified. *stop* ends it early, as unverified. *hopeless* is asked after each look
    that is not healthy: why waiting longer is of no use, if it is.
    """
    stop = stop or threading.Event()
    pause = wait or stop.wait
    deadline = clock() + rule.within
    row: list[Look] = []
    looks, newest = 0, float("-inf")
    while not stop.is_set():
        began = clock()
        answer = _ask(client, target, min(LOOK_TIMEOUT, max(0.1, deadline - began)))
        look = answer if isinstance(answer, Look) else _read(answer, target, must_be_fast, newest, now())
        looks, newest = looks + 1, max(newest, look.at)
        row = [*row, look] if look.healthy else []
        if len(row) >= rule.healthy:
            detail = f"{len(row)} healthy probes in a row"
            return Verification(
                outcome=Outcome.RECOVERED, looks=looks, detail=detail, healthy_since=row[0].at
            )
        why = None if look.healthy else hopeless()
        if why is not None or clock() >= deadline:
            return _give_up(look, looks, len(row), rule, why)
        pause(max(0.0, min(began + rule.every, deadline) - clock()))
    return Verification(outcome=Outcome.UNVERIFIED, looks=looks, detail="the remediator is stopping")


def is_fresh(at: object, now: float) -> TypeGuard[float]:
    """Whether an answer of that moment says something about now."""
    return isinstance(at, int | float) and abs(now - at) <= FRESH_FOR


def _give_up(last: Look, looks: int, in_a_row: int, rule: Verify, why: str | None) -> Verification:
    if last.healthy is None:
        outcome, detail = Outcome.UNVERIFIED, last.detail
    elif last.healthy:
        outcome, detail = Outcome.FAILED, f"only {in_a_row} of {rule.healthy} healthy probes in a row"
    else:
        outcome, detail = Outcome.FAILED, last.detail
    return Verification(
        outcome=outcome, looks=looks, detail=f"{detail} ({why or f'after {rule.within:g} s'})"
    )


def _ask(client: Checker, target: str, timeout: float) -> dict[str, Any] | Look:
    try:
        return client.check([target], timeout=timeout)
    except ExporterUnreachable as error:
        return Look(healthy=None, at=float("-inf"), detail=f"the exporter cannot be asked: {error}")


def _read(answer: Mapping[str, Any], target: str, must_be_fast: bool, newest: float, now: float) -> Look:
    at = answer.get("at")
    if not is_fresh(at, now) or at <= newest:
        return Look(healthy=None, at=newest, detail="the exporter's answer is not fresh")
    result = answer["results"].get(target)
    if not isinstance(result, Mapping) or not result.get("known"):
        return Look(healthy=None, at=at, detail=f"the exporter does not know {target}")
    return _judge(result, at, must_be_fast, blind=bool(answer.get("prober_blind")))


def _judge(result: Mapping[str, Any], at: float, must_be_fast: bool, *, blind: bool) -> Look:
    healthy = result.get("healthy")
    if healthy is True and must_be_fast and result.get("slow"):
        return Look(healthy=False, at=at, detail="healthy but still slow")
    if healthy is True:
        return Look(healthy=True, at=at, detail="healthy")
    if blind:
        # Most targets fail at once: this failure may be the prober's own.
        return Look(healthy=None, at=at, detail="the prober seems blind")
    if healthy is not False:
        return Look(healthy=None, at=at, detail="the exporter does not say whether it is healthy")
    told = ": ".join(str(part) for part in (result.get("reason"), result.get("detail")) if part)
    return Look(healthy=False, at=at, detail=f"still unhealthy{': ' if told else ''}{told}"[:500])
