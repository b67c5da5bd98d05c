"""Whatever comes in, in whatever order and grouping: nothing is lost, and one problem is one error."""

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from remediator.signals import RECHECK_FOR, Admission, Error, ErrorState, Signal, Source, Status, admit
from remediator.store import ErrorQuery, Store
from remediator.store.sqlite import SqliteStore
from soulfra_monitor.problems import Problem, Severity

SIGNALS = st.builds(
    Signal,
    source=st.sampled_from([Source.ALERTMANAGER, Source.EVENT]),
    fingerprint=st.sampled_from(["f1", "f2", "v1.3"]),
    subject=st.sampled_from(["", "s"]),
    status=st.sampled_from(Status),
    target=st.sampled_from(["a", "b"]),
    problem=st.sampled_from([Problem.SERVICE_DOWN, Problem.ERROR_RATE]),
    severity=st.sampled_from(Severity),
    message=st.text(st.characters(codec="utf-8"), max_size=5),
    # Clocks jump back, and errors grow too old to take late signals.
    received_at=st.floats(0, 4 * RECHECK_FOR),
)
CLOSE, REOPEN = "close", "reopen"
EVENTS = st.lists(st.lists(SIGNALS, max_size=6) | st.sampled_from([CLOSE, REOPEN]), max_size=12)


@settings(max_examples=60, deadline=None)
@given(events=EVENTS)
def test_every_signal_is_counted_and_a_problem_has_one_open_error(
    events: list[list[Signal] | str],
) -> None:
    taken: list[Admission] = []
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "store.db")
        try:
            for event in events:
                if isinstance(event, str):
                    _turn(store, event)
                else:
                    taken += store.accept(event, admit)
                _check(store, taken)
        finally:
            store.close()


def _turn(store: Store, event: str) -> None:
    """Close or reopen every error, as the engine would."""
    for error in store.find_errors(ErrorQuery(open=event == CLOSE)):
        state = ErrorState.RECOVERED if event == CLOSE else ErrorState.PENDING
        changed = replace(error, open=event == REOPEN, state=state, closed_at=error.last_seen)
        others = _open(store)[error.target, error.problem, error.subject]
        assert store.update_error(changed) is (event == CLOSE or others == 0)


def _open(store: Store) -> Counter[tuple[str, Problem, str]]:
    return Counter((e.target, e.problem, e.subject) for e in store.find_errors(ErrorQuery(open=True)))


def _check(store: Store, taken: list[Admission]) -> None:
    errors = store.find_errors(ErrorQuery(limit=10_000))
    assert all(count == 1 for count in _open(store).values())
    firing = [a for a in taken if a.signal.status is Status.FIRING]
    assert sum(error.signals for error in errors) == len(firing)
    assert sum(a.new for a in taken) == len(errors)
    decided = [a for a in taken if a.decision is not None]
    assert sum(d.times for d in store.decisions(limit=10_000)) == len(decided)
    assert all(_is_member(store, a.signal, a.error) for a in taken if a.error is not None)


def _is_member(store: Store, signal: Signal, error: Error) -> bool:
    return signal.fingerprint in store.members(error.id)
