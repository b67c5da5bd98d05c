"""The Flask application: errors as JSON, one blueprint per audience."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from remediator.config import Loaded
from remediator.engine import Engine
from remediator.judge import RefusalError
from remediator.runner import Tools
from remediator.store import StoreError
from remediator.telemetry import Telemetry
from remediator.web.access import Gate, Holder

log = logging.getLogger(__name__)

_TRY_AGAIN = "5"  # seconds

BODY_LIMIT = 64 * 1024 * 1024
"""Bytes. Alertmanager has been seen to post more than 10,000 alerts at once, and repeats what is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the views work with."""

    loaded: Loaded
    engine: Engine
    tools: Tools
    telemetry: Telemetry
    secrets: Mapping[str, Holder]


def create_app(surroundings: Surroundings) -> Flask:
    """Make the application; it starts nothing by itself."""
    from remediator.web import (  # noqa: PLC0415 - they import Surroundings
        alerts,
        api,
        heartbeats,
        ingest,
        operate,
        status,
    )

    app = Flask("remediator")
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    app.extensions["surroundings"] = surroundings
    app.extensions["gate"] = Gate(surroundings.secrets)
    app.extensions["limits"] = ingest.limits_of(surroundings.loaded.config.remediator.events)
    for module in (alerts, api, heartbeats, ingest, operate, status):
        app.register_blueprint(module.blueprint)
    app.register_error_handler(HTTPException, _tell_http)
    app.register_error_handler(RefusalError, _tell_refusal)
    app.register_error_handler(StoreError, _tell_store)
    app.register_error_handler(Exception, lambda error: _tell_bug(error, surroundings.tools))
    return app


def _tell_http(error: HTTPException) -> ResponseReturnValue:
    if error.response is not None:
        return error.response
    code = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    # Bearer alone: a browser that is offered basic keeps the secret, and sends it for other pages too.
    headers = {"WWW-Authenticate": 'Bearer realm="soulfra"'} if code == HTTPStatus.UNAUTHORIZED else {}
    return jsonify(error=error.description), code, headers


def _tell_refusal(error: RefusalError) -> ResponseReturnValue:
    return jsonify(error=str(error), reason=error.reason), error.status


def _tell_store(error: StoreError) -> ResponseReturnValue:
    log.error("the store failed: %s", error)
    answer = jsonify(error="the store cannot do this now; try again")
    return answer, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": _TRY_AGAIN}


def _tell_bug(error: Exception, tools: Tools) -> ResponseReturnValue:
    tools.metrics.internal_errors.labels("web").inc()
    log.error("a request failed", exc_info=error)
    return jsonify(error="internal error; the log has the details"), HTTPStatus.INTERNAL_SERVER_ERROR
