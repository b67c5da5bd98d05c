"""What machines ask: alive, ready, metrics. Open to all, with nothing secret in it."""

from http import HTTPStatus

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue

from remediator.store import StoreError
from remediator.web.context import surroundings

blueprint = Blueprint("status", __name__)


@blueprint.get("/healthz")
def alive() -> ResponseReturnValue:
    """Say whether this process is worth keeping: its engine goes on."""
    if surroundings().engine.alive:
        return jsonify(status="alive")
    return jsonify(status="the engine has stopped"), HTTPStatus.INTERNAL_SERVER_ERROR


@blueprint.get("/readyz")
def ready() -> ResponseReturnValue:
    """Say whether alerts can be taken in: the store accepts writes."""
    try:
        surroundings().tools.store.ping()
    except StoreError as error:
        return jsonify(status=f"the store fails: {error}"), HTTPStatus.SERVICE_UNAVAILABLE
    return jsonify(status="ready")


@blueprint.get("/metrics")
def metrics() -> ResponseReturnValue:
    """Expose the remediator's own metrics, in the format that the scraper asks for."""
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415 - an import of http.server

    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(surroundings().tools.metrics.registry), content_type=content_type)


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """Name what is here."""
    return jsonify(
        service="soulfra-remediator",
        health="/api/monitoring/health",
        errors="/api/monitoring/errors",
        runs="/api/monitoring/runs",
        decisions="/api/monitoring/decisions",
        metrics="/metrics",
    )
