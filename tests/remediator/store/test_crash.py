"""Several processes on one store, and processes that die in the middle of a write."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from remediator.store import ErrorQuery, Store, open_store

PRELUDE = """
import sys
from remediator.signals import Signal, Source, Status, admit
from remediator.store import open_store
from soulfra_monitor.problems import Problem, Severity

def signal(target):
    return Signal(
        source=Source.ALERTMANAGER, fingerprint="f", status=Status.FIRING, target=target,
        problem=Problem.SERVICE_DOWN, severity=Severity.HIGH, message="down", received_at=1000.0,
    )

store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
"""

SAME_ALERT = """
for _ in range(100):
    store.accept([signal("trust-engine")], admit)
store.close()
"""

ONE_BY_ONE = """
for number in range(100000):
    (admission,) = store.accept([signal(f"t{number}")], admit)
    print(admission.error.id, flush=True)
"""

BATCHES = """
for number in range(100000):
    store.accept([signal(f"t{number}-{place}") for place in range(50)], admit)
    print(number, flush=True)
"""


@contextmanager
def child(script: str, address: str) -> Iterator[subprocess.Popen[str]]:
    """Run *script* in a process of its own; it waits for a line before it begins."""
    command = [sys.executable, "-c", PRELUDE + script, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert output(process).readline() == "ready\n"
            yield process
        finally:
            process.kill()


def output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def killed_after(lines: int, process: subprocess.Popen[str]) -> list[str]:
    """Kill -9 the process once it has told so many lines; return all it told."""
    go(process)
    told = [output(process).readline() for _ in range(lines)]
    process.kill()
    told += output(process).readlines()
    return [line.strip() for line in told if line.endswith("\n")]


def test_the_same_alert_from_two_processes_is_one_error_and_none_is_lost(address: str, store: Store) -> None:
    with child(SAME_ALERT, address) as first, child(SAME_ALERT, address) as second:
        go(first)
        go(second)
        assert (first.wait(30), second.wait(30)) == (0, 0)

    (found,) = store.find_errors(ErrorQuery())
    assert found.signals == 200
    assert found.version == 200


def test_what_was_acknowledged_before_kill_9_is_there(address: str) -> None:
    with child(ONE_BY_ONE, address) as process:
        told = killed_after(300, process)

    store = open_store(address)
    try:
        kept = {error.id for error in store.find_errors(ErrorQuery(limit=100_000))}
        assert len(told) >= 300
        assert set(told) <= kept
        assert len(kept) <= len(told) + 1
        store.ping()
    finally:
        store.close()


def test_kill_9_leaves_no_batch_in_part(address: str) -> None:
    for _ in range(3):
        with child(BATCHES, address) as process:
            told = killed_after(5, process)

        store = open_store(address)
        try:
            count = store.count_errors(ErrorQuery())["pending"]
            assert count % 50 == 0
            assert count >= len(told) * 50
        finally:
            store.close()


SENT_AGAIN = """
from dataclasses import replace
start = int(sys.stdin.readline())
for seq in range(start, 100000):
    event = replace(
        signal("trust-engine"), source=Source.EVENT, problem=Problem.UNCAUGHT_EXCEPTION, count=3,
        fingerprint="v1.0123456789abcdef", subject="v1.0123456789abcdef",
    )
    store.accept_batch("boot", seq, [event, event], admit, at=1000.0)
    print(seq, flush=True)
"""


def test_a_batch_that_kill_9_may_have_stopped_is_sent_again_and_counts_once(address: str) -> None:
    last = 0
    for _ in range(5):
        with child(SENT_AGAIN, address) as process:
            go(process)
            assert process.stdin is not None
            # The one after the last that was acknowledged may have been taken: the sender cannot know.
            print(last + 1, file=process.stdin, flush=True)
            told = [output(process).readline() for _ in range(40)]
            process.kill()
            told += output(process).readlines()
        last = max(int(line) for line in told if line.endswith("\n"))

    store = open_store(address)
    try:
        (found,) = store.find_errors(ErrorQuery())
        (member,) = store.membership(found.id)
        assert found.signals in (6 * last, 6 * (last + 1))
        assert member.times == found.signals
    finally:
        store.close()
