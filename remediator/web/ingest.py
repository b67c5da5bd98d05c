"""What applications send: error events and batches of ours, and whatever a Sentry SDK posts.

Taken durably or not at all: 200 when it is committed, 503 when it cannot be stored, so that libraries send it
again. Nothing is executed inside the request.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from math import ceil
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from remediator.config import EventsSection
from remediator.engine import Receipt
from remediator.rates import Rates
from remediator.sentry import Envelope, event_of, read_auth, read_envelope, service_of
from remediator.web.access import denied
from remediator.web.bodies import read_body
from remediator.web.context import gate, surroundings
from soulfra_monitor.events import Batch, Event, EventError
from soulfra_monitor.wire import read_body as read_events

blueprint = Blueprint("ingest", __name__)

_SENTRY = "sentry_key"

BYTES_OF_A_POST = 4096
"""Unpacked bytes that count as one more post."""


class Limits:
    """How often one address may post, and how many events of one service are taken."""

    def __init__(self, *, per_sender: Rates, per_service: Rates) -> None:
        self.per_sender = per_sender
        self.per_service = per_service

    def admit(self, rates: Rates, name: str, amount: int) -> None:
        """Take *amount* for *name*. Raises 429 (as HTTPException), with when to come again."""
        wait = rates.take(name, amount, time.monotonic())
        if wait:
            raise _too_much(name, wait, rates)

    def admit_events(self, amounts: Mapping[str, int]) -> None:
        """Take so many events of each service, or of none. Raises as ``admit`` does."""
        now = time.monotonic()
        for name, amount in amounts.items():
            missing = min(amount, self.per_service.burst) - self.per_service.left(name, now)
            if missing > 0:
                raise _too_much(name, missing / self.per_service.per_second, self.per_service)
        for name, amount in amounts.items():
            self.admit(self.per_service, name, amount)


def _too_much(name: str, wait: float, rates: Rates) -> HTTPException:
    error = denied(HTTPStatus.TOO_MANY_REQUESTS, f"too much of {name} at once; come again later")
    error.response = _wait(str(error.description), ceil(wait), rates.burst)
    return error


def limits_of(section: EventsSection) -> Limits:
    """Return the limits as they are configured."""
    sender, service = section.per_sender, section.per_service
    return Limits(
        per_sender=Rates(per_second=sender.per_second, burst=sender.burst),
        per_service=Rates(per_second=service.per_second, burst=service.burst),
    )


def _wait(message: str, seconds: int, limit: int) -> Response:
    answer = jsonify(error=message, retryAfter=seconds)
    answer.status_code = HTTPStatus.TOO_MANY_REQUESTS
    answer.headers["Retry-After"] = str(seconds)
    # For Sentry's SDKs: which categories of events to hold back, for how long.
    answer.headers["X-Sentry-Rate-Limits"] = f"{seconds}:error;default:key"
    answer.headers["RateLimit-Limit"] = str(limit)
    answer.headers["RateLimit-Remaining"] = "0"
    answer.headers["RateLimit-Reset"] = str(seconds)
    return answer


@blueprint.before_request
def _may_post() -> None:
    presented = read_auth(request.headers.get("X-Sentry-Auth", "")) or request.args.get(_SENTRY, "")
    gate().check("ingest", presented=presented or None)
    limits = _limits()
    limits.admit(limits.per_sender, _sender(), 1)


@blueprint.after_request
def _count(response: Response) -> Response:
    endpoint = (request.endpoint or "").rpartition(".")[2]
    surroundings().tools.metrics.ingest_requests.labels(endpoint, response.status_code).inc()
    return response


@blueprint.post("/api/monitoring/errors")
def errors() -> ResponseReturnValue:
    """Take one event, or a batch.

    200 with what became of it; 400 with the place of what cannot be read; 413, 415, 429 with when to come
    again; 503 when it cannot be stored.
    """
    body = _json(_body())
    try:
        found = read_events(body, now=surroundings().tools.clock())
    except EventError as error:
        raise denied(HTTPStatus.BAD_REQUEST, str(error)) from error
    if not _enabled():
        detail = "errors of applications are not taken in"
        return jsonify(accepted=0, errors=[], repeated=False, detail=detail)
    return jsonify(_take_batch(found) if isinstance(found, Batch) else _take_event(found))


@blueprint.post("/api/<project>/envelope/")
@blueprint.post("/<service>/api/<project>/envelope/")
def envelope(project: str, service: str = "") -> ResponseReturnValue:
    """Take an envelope of a Sentry SDK: its errors, and its word on errors that it dropped."""
    found = _read(read_envelope, _body())
    _refuse_large(found)
    name = _service(found, service, project)
    _take(_read(_events, found, name))
    for reason, count in _read(_discarded, found):
        surroundings().telemetry.drop(name, reason, count, surroundings().tools.clock())
    return jsonify(id=found.event_id) if found.event_id else jsonify({})


@blueprint.post("/api/<project>/store/")
@blueprint.post("/<service>/api/<project>/store/")
def store(project: str, service: str = "") -> ResponseReturnValue:
    """Take one event of an older Sentry SDK."""
    payload = _json(_body())
    if not isinstance(payload, dict):
        raise denied(HTTPStatus.BAD_REQUEST, "the body must be an object")
    name = service or service_of(payload) or _of_project(project)
    event = _read(event_of, payload, service=name, now=surroundings().tools.clock())
    _take([event])
    return jsonify(id=event.id)


def _refuse_large(found: Envelope) -> None:
    limit = surroundings().loaded.config.remediator.events.max_event
    largest = max((len(item.payload) for item in found.items if item.is_error), default=0)
    if largest > limit:
        message = f"an event has {largest} bytes; {limit} are taken (remediator.events.max_event)"
        raise denied(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


def _read(read: Callable[..., Any], *given: Any, **named: Any) -> Any:
    try:
        return read(*given, **named)
    except EventError as error:
        raise denied(HTTPStatus.BAD_REQUEST, str(error)) from error


def _service(found: Envelope, service: str, project: str) -> str:
    named = next((name for payload in _read(list, found.errors()) if (name := service_of(payload))), "")
    return service or named or _of_project(project)


def _events(found: Envelope, service: str) -> list[Event]:
    now = surroundings().tools.clock()
    return [event_of(payload, service=service_of(payload) or service, now=now) for payload in found.errors()]


def _discarded(found: Envelope) -> list[tuple[str, int]]:
    return list(found.discarded())


def _of_project(project: str) -> str:
    """Return the service of a DSN's project: as configured, else named for it."""
    projects = surroundings().loaded.config.remediator.events.projects
    return projects.get(project) or f"project-{project}"


def _body() -> bytes:
    """Return the body. A large one counts as many posts: what it costs grows with its length."""
    section = surroundings().loaded.config.remediator.events
    data = read_body(request, packed=section.max_body, unpacked=section.max_unpacked)
    limits = _limits()
    limits.admit(limits.per_sender, _sender(), len(data) // BYTES_OF_A_POST)
    return data


def _sender() -> str:
    return f"the address {request.remote_addr}"


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise denied(HTTPStatus.BAD_REQUEST, "the body is not JSON") from error


def _take_batch(batch: Batch) -> dict[str, Any]:
    """Take a batch once; what its process counted is added only the first time."""
    around = surroundings()
    receipt = _accept(batch.events, boot=batch.sender.boot, seq=batch.seq)
    if not receipt.repeated:
        around.telemetry.take(batch, around.tools.clock())
    return _told(receipt, len(batch.events))


def _take_event(event: Event) -> dict[str, Any]:
    return {"id": event.id, **_told(_take([event]), 1)}


def _take(events: Sequence[Event]) -> Receipt:
    if not events or not _enabled():
        return Receipt(repeated=False)
    return _accept(events)


def _accept(events: Sequence[Event], *, boot: str = "", seq: int = 0) -> Receipt:
    tools = surroundings().tools
    _limits().admit_events(Counter(event.service for event in events))
    receipt = surroundings().engine.accept_events(events, boot=boot, seq=seq)
    for admission in receipt.admissions:
        tools.metrics.count_event(admission.signal)
    return receipt


def _told(receipt: Receipt, accepted: int) -> dict[str, Any]:
    found = {admission.error.id for admission in receipt.admissions if admission.error}
    return {"accepted": accepted, "errors": sorted(found), "repeated": receipt.repeated}


def _enabled() -> bool:
    section = surroundings().loaded.config.remediator
    return section.enabled and section.events.enabled


def _limits() -> Limits:
    found: Limits = current_app.extensions["limits"]
    return found
