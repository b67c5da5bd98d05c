"""What people, scripts and dashboards read."""

import re
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from remediator import report
from remediator.fixes import suggested
from remediator.run import AUTOMATIC, Outcome
from remediator.signals import ErrorState
from remediator.store import ErrorQuery, RunQuery
from remediator.verify import ExporterUnreachable
from remediator.web.access import denied
from remediator.web.context import gate, surroundings
from soulfra_monitor.durations import parse_duration
from soulfra_monitor.problems import Problem, Severity

blueprint = Blueprint("api", __name__, url_prefix="/api/monitoring")

_HOUR = 3600.0
_DAY = 86400.0
_PAGE = 100
_PAGE_LIMIT = 1000
_CURSOR = re.compile(r"(-?[0-9]{1,15}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,2})?)_(SE_[0-9a-f]{8})")


@blueprint.before_request
def _may_read() -> None:
    gate().check("read")


@blueprint.get("/health")
def health() -> ResponseReturnValue:
    """Return the health of every service and of the whole."""
    around = surroundings()
    store, now = around.tools.store, around.tools.clock()
    recovered = RunQuery(since=now - _DAY, outcome=Outcome.RECOVERED)
    return jsonify(
        report.health(
            names=around.tools.services,
            state=_exporter_state(),
            open_errors=store.find_errors(ErrorQuery(open=True, limit=10_000)),
            uptime=store.uptime(int((now - _DAY) // 60)),
            recent_errors=sum(store.count_errors(ErrorQuery(since=now - _HOUR)).values()),
            auto_recoveries=sum(store.count_runs(replace(recovered, trigger=one)) for one in AUTOMATIC),
            now=now,
            pauses=store.pauses(now),
            watchdog=around.tools.watchdog,
        )
    )


def _exporter_state() -> dict[str, Any] | None:
    try:
        return dict(surroundings().tools.exporter.state(timeout=2.0))
    except ExporterUnreachable:
        return None


@blueprint.get("/errors")
def errors() -> ResponseReturnValue:
    """Return a page of errors, last seen first, and the summary of all that match."""
    store = surroundings().tools.store
    query = ErrorQuery(
        since=_since("24h"),
        target=request.args.get("service"),
        problem=_one_of("type", Problem),
        severity=_one_of("severity", Severity),
        state=_one_of("state", ErrorState),
        limit=_limit() + 1,
        before=_cursor(),
    )
    found = store.find_errors(query)
    page, more = found[:-1], len(found) == query.limit
    if not more:
        page = found
    following = f"{page[-1].last_seen!r}_{page[-1].id}" if more else None
    return jsonify(report.errors_view(page, store.count_errors(query), following))


@blueprint.get("/errors/<error_id>")
def error(error_id: str) -> ResponseReturnValue:
    """Return one error with its signals, decisions and runs."""
    store = surroundings().tools.store
    found = store.get_error(error_id)
    if found is None:
        raise denied(HTTPStatus.NOT_FOUND, f"there is no error {error_id}")
    runs = store.find_runs(RunQuery(error_id=error_id, limit=_PAGE_LIMIT))
    members = store.membership(error_id)
    detail = report.error_detail(
        found,
        members,
        observations=store.sight(error_id),
        fix=suggested(found, members),
        past=store.past_runs(found),
    )
    return jsonify(
        error=detail,
        signals=report.signals_view(store.members(error_id)),
        decisions=[
            report.decision_view(item) for item in reversed(store.decisions(error_id=error_id, limit=500))
        ],
        runs=[report.run_view(run, store.steps(run.id)) for run in reversed(runs)],
    )


@blueprint.get("/runs")
def runs() -> ResponseReturnValue:
    """Return runs, newest first."""
    query = RunQuery(
        since=_since("24h"),
        target=request.args.get("service"),
        error_id=request.args.get("error"),
        outcome=_one_of("outcome", Outcome),
        limit=_limit(),
    )
    return jsonify(runs=[report.run_view(run) for run in surroundings().tools.store.find_runs(query)])


@blueprint.get("/runs/<run_id>")
def run(run_id: str) -> ResponseReturnValue:
    """Return one run with its plan, evidence and steps."""
    store = surroundings().tools.store
    found = store.get_run(run_id)
    if found is None:
        raise denied(HTTPStatus.NOT_FOUND, f"there is no run {run_id}")
    return jsonify(report.run_view(found, store.steps(run_id)))


@blueprint.get("/decisions")
def decisions() -> ResponseReturnValue:
    """Return decisions with their reasons, newest first."""
    found = surroundings().tools.store.decisions(
        error_id=request.args.get("error"), since=_since("24h"), limit=_limit()
    )
    return jsonify(decisions=[report.decision_view(decision) for decision in found])


@blueprint.get("/pauses")
def pauses() -> ResponseReturnValue:
    """Return what holds automatic runs back now."""
    tools = surroundings().tools
    return jsonify(pauses=[report.pause_view(pause) for pause in tools.store.pauses(tools.clock())])


def _since(default: str) -> float:
    text = request.args.get("since", default)
    try:
        return surroundings().tools.clock() - parse_duration(text)
    except ValueError as failure:
        raise denied(HTTPStatus.BAD_REQUEST, f"since: {failure}") from failure


def _limit() -> int:
    text = request.args.get("limit", str(_PAGE))
    if not text.isdecimal() or len(text) > len(str(_PAGE_LIMIT)) or not 0 < int(text) <= _PAGE_LIMIT:
        raise denied(HTTPStatus.BAD_REQUEST, f"limit: must be a number from 1 to {_PAGE_LIMIT}")
    return int(text)


def _cursor() -> tuple[float, str] | None:
    text = request.args.get("after")
    if not text:
        return None
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise denied(HTTPStatus.BAD_REQUEST, "after: take it from 'next' of the page before")
    return float(found[1]), found[2]


def _one_of(name: str, choices: type[Problem | Severity | ErrorState | Outcome]) -> str | None:
    text = request.args.get(name)
    if text is None:
        return None
    if text not in list(choices):
        raise denied(HTTPStatus.BAD_REQUEST, f"{name}: must be one of {', '.join(choices)}")
    return text
