"""What people change: recoveries by hand, approvals, the pause switch."""

from http import HTTPStatus
from typing import Any

from flask import Blueprint, g, jsonify, request
from flask.typing import ResponseReturnValue

from remediator import report
from remediator.run import Pause
from remediator.web.access import denied
from remediator.web.context import gate, json_body, surroundings
from soulfra_monitor.durations import parse_duration
from soulfra_monitor.redaction import redact

blueprint = Blueprint("operate", __name__, url_prefix="/api/monitoring")

EVERYTHING = "everything"
_PAUSE_LIMIT = 365 * 86400.0


@blueprint.before_request
def _may_operate() -> None:
    g.operator = gate().check("operate")


@blueprint.post("/recover")
def recover() -> ResponseReturnValue:
    """Begin a recovery now: 202 with the run, or why not (400, 404, 409)."""
    body = _body("action", "target", "force", "by")
    action, target = _text(body, "action"), _text(body, "target")
    force = body.get("force", False)
    if not isinstance(force, bool):
        raise denied(HTTPStatus.BAD_REQUEST, "force: must be true or false")
    run = surroundings().engine.request(action, target, force=force, by=_who(body))
    address = f"/api/monitoring/runs/{run.id}"
    return jsonify(run=run.id, url=address), HTTPStatus.ACCEPTED, {"Location": address}


@blueprint.post("/errors/<error_id>/approve")
def approve(error_id: str) -> ResponseReturnValue:
    """Say yes to what waits for approval; it still has to pass every other guardrail."""
    error = surroundings().engine.answer_approval(error_id, approve=True, by=_who(_body("by")))
    return jsonify(report.error_view(error))


@blueprint.post("/errors/<error_id>/reject")
def reject(error_id: str) -> ResponseReturnValue:
    """Say no to what waits for approval."""
    error = surroundings().engine.answer_approval(error_id, approve=False, by=_who(_body("by")))
    return jsonify(report.error_view(error))


@blueprint.post("/pause")
def pause() -> ResponseReturnValue:
    """Hold automatic runs back, everywhere or for one target, until resumed or for a while."""
    around = surroundings()
    body = _body("scope", "reason", "owner", "for")
    scope = _text(body, "scope", EVERYTHING)
    if scope != EVERYTHING and scope not in around.tools.services:
        raise denied(HTTPStatus.NOT_FOUND, f"{scope!r} is not a configured service")
    now = around.tools.clock()
    until = now + _duration(body["for"]) if body.get("for") is not None else None
    wanted = Pause(
        scope=scope,
        reason=redact(_text(body, "reason")),
        owner=_text(body, "owner", g.operator),
        since=now,
        until=until,
    )
    kept = around.tools.store.add_pause(wanted)
    around.tools.feed("pause", f"{scope} paused by {kept.owner}: {kept.reason}")
    return jsonify(report.pause_view(kept)), HTTPStatus.CREATED


@blueprint.post("/resume")
def resume() -> ResponseReturnValue:
    """End the pauses of a scope; idempotent."""
    around = surroundings()
    scope = _text(_body("scope"), "scope", EVERYTHING)
    ended = around.tools.store.end_pauses(scope, around.tools.clock())
    around.tools.feed("resume", f"{scope} resumed by {g.operator}")
    around.engine.wake()
    return jsonify(ended=ended)


def _body(*known: str) -> dict[str, Any]:
    # Not request.data: that is empty when a client calls its JSON a form, as curl -d does.
    body = json_body() if request.get_data() else {}
    if not isinstance(body, dict):
        raise denied(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise denied(HTTPStatus.BAD_REQUEST, f"unknown: {', '.join(unknown)}; known are {', '.join(known)}")
    return body


def _text(body: dict[str, Any], key: str, default: str | None = None) -> str:
    value = body.get(key, default)
    if not isinstance(value, str) or not value or len(value) > 500:  # noqa: PLR2004 - nobody types more
        raise denied(HTTPStatus.BAD_REQUEST, f"{key}: must be a text that is not empty")
    return value


def _who(body: dict[str, Any]) -> str:
    return _text(body, "by", g.operator)


def _duration(text: object) -> float:
    try:
        seconds = parse_duration(str(text))
    except ValueError as failure:
        raise denied(HTTPStatus.BAD_REQUEST, f"for: {failure}") from failure
    if not 0 < seconds <= _PAUSE_LIMIT:
        raise denied(HTTPStatus.BAD_REQUEST, "for: must be longer than 0s and at most 365d")
    return seconds
