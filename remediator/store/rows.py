"""Values as rows: a column per field, JSON where a field is a mapping."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Generic, TypeVar

from remediator.run import Outcome, PastRun, Pause, Run, Start, Step, StepState, Trigger
from remediator.signals import Decision, Error, ErrorState, Member, Reason, Status, Verdict
from remediator.store import DailySummary, Heartbeat
from soulfra_monitor.problems import Problem, Severity

Value = TypeVar("Value")
Reader = Callable[[Any], Any]

_ENCODER = json.JSONEncoder(default=str, separators=(",", ":"))


def to_json(value: Any) -> str:
    """Write evidence and the like; what JSON has no word for is written as its text."""
    return _ENCODER.encode(value)


class Rows(Generic[Value]):
    """How values of one type are written to a row and read back.

    *readers* say how a column that is not plain text or a number is read; those of *documents* are JSON.
    A column is named like its field. NULL is None.
    """

    def __init__(
        self, value: Callable[..., Value], readers: Mapping[str, Reader], documents: Sequence[str] = ()
    ) -> None:
        self._value = value
        # Values are dataclasses, which no type of Python's says of a class and its constructor at once.
        self.columns = tuple(field.name for field in fields(value))  # type: ignore[arg-type]
        self._get = attrgetter(*self.columns)
        self._documents = tuple(self.columns.index(name) for name in documents)
        self._readers = tuple((self.columns.index(name), reader) for name, reader in readers.items())

    def write(self, value: Value) -> list[Any]:
        """Return the columns' values in the order of ``columns``."""
        row = list(self._get(value))
        for index in self._documents:
            row[index] = to_json(row[index])
        return row

    def read(self, row: Sequence[Any]) -> Value:
        """Return the value of a row that was selected in the order of ``columns``."""
        cells = list(row)
        for index, reader in self._readers:
            if cells[index] is not None:
                cells[index] = reader(cells[index])
        return self._value(**dict(zip(self.columns, cells, strict=True)))


def _plan(text: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(json.loads(text))


ERRORS = Rows(
    Error,
    {
        "problem": Problem,
        "severity": Severity,
        "state": ErrorState,
        "held_reason": Reason,
        "open": bool,
        "escalation_sent": bool,
        "labels": json.loads,
        "annotations": json.loads,
    },
    documents=("labels", "annotations"),
)
DECISIONS = Rows(Decision, {"verdict": Verdict, "reason": Reason})
RUNS = Rows(
    Run,
    {
        "trigger": Trigger,
        "outcome": Outcome,
        "evidence": json.loads,
        "timings": json.loads,
        "plan": _plan,
    },
    documents=("evidence", "timings", "plan"),
)
STEPS = Rows(Step, {"state": StepState, "args": json.loads}, documents=("args",))
MEMBERS = Rows(
    Member, {"status": Status, "labels": json.loads, "detail": json.loads}, documents=("labels", "detail")
)
PAST_RUNS = Rows(PastRun, {"outcome": Outcome, "plan": _plan}, documents=("plan",))
HEARTBEATS: Rows[Heartbeat] = Rows(Heartbeat, {"expected": bool})
STARTS: Rows[Start] = Rows(Start, {})
PAUSES: Rows[Pause] = Rows(Pause, {})
SUMMARIES = Rows(DailySummary, {"problem": Problem, "severity": Severity})
