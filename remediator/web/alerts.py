"""Alertmanager's webhook: accept durably, then answer. Nothing is executed inside the request."""

from http import HTTPStatus
from time import perf_counter

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue

from remediator.alertmanager import ESCALATION
from remediator.alerts import SignalError, parse_webhook
from remediator.signals import Signal, Status
from remediator.web.context import gate, json_body, surroundings

blueprint = Blueprint("alerts", __name__)

_WATCHDOG = "Watchdog"
_COUNT_LIMIT = 10**9  # more is no number of alerts


@blueprint.before_request
def _begin() -> None:
    request.environ["soulfra.started"] = perf_counter()


@blueprint.after_request
def _count(response: Response) -> Response:
    metrics = surroundings().tools.metrics
    metrics.webhook_requests.labels(response.status_code).inc()
    metrics.webhook_seconds.observe(perf_counter() - request.environ["soulfra.started"])
    return response


@blueprint.post("/api/monitoring/alerts")
def receive() -> ResponseReturnValue:
    """Take a notification of Alertmanager.

    200 when every alert is committed; 400 when the body is not that format; 503 when it cannot be
    stored, so that Alertmanager sends it again.
    """
    gate().check("alerts")
    around = surroundings()
    payload = json_body()
    if payload is None:
        return jsonify(error="the body is not JSON"), HTTPStatus.BAD_REQUEST
    now = around.tools.clock()
    try:
        signals = parse_webhook(payload, now)
    except SignalError as error:
        return jsonify(error=str(error)), HTTPStatus.BAD_REQUEST
    _note_truncation(payload.get("truncatedAlerts"))
    alerts = [signal for signal in signals if not _is_ours(signal, now)]
    if not around.loaded.config.remediator.enabled:
        return jsonify(accepted=0, detail="error monitoring is disabled"), HTTPStatus.OK
    admissions = around.engine.accept(alerts) if alerts else []
    found = {admission.error.id for admission in admissions if admission.error}
    return jsonify(accepted=len(signals), errors=sorted(found)), HTTPStatus.OK


def _is_ours(signal: Signal, now: float) -> bool:
    """Whether it tells of no failure: the proof of life, or our own call for a person come back."""
    name = signal.labels.get("alertname")
    if name == _WATCHDOG and signal.status is Status.FIRING:
        surroundings().tools.metrics.watchdog.set(now)
        surroundings().tools.watchdog.hear(now)
    return name in (_WATCHDOG, ESCALATION)


def _note_truncation(count: object) -> None:
    if not isinstance(count, int) or not 0 < count <= _COUNT_LIMIT:
        return
    surroundings().tools.metrics.truncated_alerts.inc(count)
    # Alertmanager leaves out the same alerts every time; only asking it brings them in.
    surroundings().tools.feed("warning", f"Alertmanager left out {count} alerts; set max_alerts: 0")
