"""What is said of our own failures: all of it, but a store that fails does not fill the log."""

import logging

import pytest

from remediator.complaints import Complaints
from remediator.store import StoreError

log = logging.getLogger(__name__)


def fail(complaints: Complaints, place: str, failure: Exception) -> None:
    try:
        raise failure
    except (StoreError, ValueError):
        complaints.say(place, "looking failed")


def test_a_store_that_fails_is_told_once_a_minute_for_each_place_without_a_traceback(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("remediator.complaints.time.monotonic", lambda: now[0])
    complaints = Complaints(log)
    for _ in range(50):
        fail(complaints, "look", StoreError("disk full"))
    fail(complaints, "timer", StoreError("disk full"))
    assert caplog.messages == ["looking failed: disk full"] * 2
    now[0] += 61
    fail(complaints, "look", StoreError("disk full"))

    assert caplog.messages[2:] == ["looking failed: disk full (49 more like this in the last minute)"]
    assert [record.exc_info for record in caplog.records] == [None] * 3


def test_any_other_failure_is_told_each_time_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(log)
    for _ in range(3):
        fail(complaints, "look", ValueError("no"))

    assert [bool(record.exc_info) for record in caplog.records] == [True] * 3
