"""What is suggested for errors of ours; the patterns themselves are tried in tests/kernel/test_fixes.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from remediator.actions import ACTIONS
from remediator.events import signal_of_event
from remediator.fixes import suggested
from remediator.signals import Error, Member, Source, Status, open_error
from soulfra_monitor.events import Event, Kind, Raised
from soulfra_monitor.fixes import PATTERNS
from soulfra_monitor.problems import Problem


def event(kind: Kind = Kind.FILE, error: BaseException | None = None, **more: Any) -> Event:
    raised = (Raised(type=type(error).__name__, message=str(error)),) if error else ()
    given = {"message": str(error or "no message"), "raised": raised, **more}
    return Event(id="a" * 32, at=1.0, kind=kind, service="shop", **given)


def caught(work: Callable[[], object]) -> OSError:
    try:
        work()
    except OSError as error:
        return error
    raise AssertionError("nothing was raised")


def error_and_member(found: Event, detail: dict[str, Any] | None = None) -> tuple[Error, Member]:
    signal = signal_of_event(found, 1000.0)
    member = Member(
        fingerprint=signal.fingerprint,
        status=Status.FIRING,
        first_seen=1.0,
        last_seen=1.0,
        times=1,
        labels=signal.labels,
        detail=signal.detail if detail is None else detail,
    )
    return open_error(signal, "SE_00000001"), member


def suggestion(found: Event, detail: dict[str, Any] | None = None) -> dict[str, str | None]:
    error, member = error_and_member(found, detail)
    told = suggested(error, [member])
    assert told is not None, error
    return told


def test_cause_mend_setting_action_and_reason_are_told() -> None:
    failure = caught(lambda: Path("/no/such/file").read_text())

    told = suggestion(event(error=failure, facts={"path": "/no/such/file", "errno": 2}))

    assert "/no/such/file" in str(told["cause"])
    assert told.keys() == {"cause", "fix", "knob", "link", "action", "reason"}
    assert told["action"] == "file"
    assert told["reason"]


def test_an_alert_without_an_event_has_what_fits_its_problem(make_world: Callable[..., Any]) -> None:
    world = make_world(start=False)
    world.fire(problem=Problem.REDIS_UNAVAILABLE, source=Source.ALERTMANAGER)

    assert suggested(world.error(), []) is not None


def test_a_sample_of_which_much_was_left_out_is_no_hindrance() -> None:
    found = event(kind=Kind.HANDLES, message="[Errno 24] Too many open files", facts={"errno": 24})

    assert suggestion(found, {"id": "a" * 32, "missing": "left out"})["cause"]


def test_what_is_not_known_has_no_fix() -> None:
    error, member = error_and_member(event(Kind.METHOD, ValueError("no")))

    assert suggested(error, [member]) is None


def test_braces_in_facts_are_no_templates() -> None:
    told = suggestion(event(message="[Errno 2]", facts={"path": "{service.__class__}", "errno": 2}))

    assert "{service.__class__}" in str(told["cause"])


def test_what_is_suggested_to_do_can_be_done() -> None:
    actions = {pattern.action.partition(":")[0] for pattern in PATTERNS if pattern.action}

    assert actions <= set(ACTIONS)
