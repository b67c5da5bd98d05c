"""What every service of the platform has: a command line, JSON errors, a fault switch and a server."""

import argparse
import logging
import math
import os
import random
import signal
import socket
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from types import FrameType
from typing import Any, NoReturn

from flask import Flask, Response, abort, g, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.serving import make_server

HOST = "127.0.0.1"
LARGEST_BODY = 2 * 1024 * 1024  # bytes
LONGEST_FAULT = 3600.0  # seconds
SLOW_BY_DEFAULT = 2.0  # seconds

log = logging.getLogger("platform")


class Mode(StrEnum):
    """How a service misbehaves."""

    OK = "ok"
    CRASH = "crash"
    HANG = "hang"
    ERRORS = "errors"
    SLOW = "slow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One setting of the switch.

    ``seconds`` is the delay of each request for slow, and how long the fault lasts for hang and
    errors (None: until the process ends). ``rate`` is the share of requests that are hit.
    """

    mode: Mode = Mode.OK
    seconds: float | None = None
    rate: float = 1.0


class Switch:
    """The fault a service plays, kept in memory only: a restart cures it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._fault = Fault()
        self._ends = math.inf

    def set(self, fault: Fault) -> None:
        """Play *fault* from now on; requests that hang under the one before go on."""
        lasts = fault.seconds if fault.mode in (Mode.HANG, Mode.ERRORS) else None
        with self._changed:
            self._fault = fault
            self._ends = math.inf if lasts is None else time.monotonic() + lasts
            self._changed.notify_all()

    @property
    def fault(self) -> Fault:
        """The fault that is played now."""
        return self._fault if time.monotonic() < self._ends else Fault()

    def play(self) -> None:
        """Let one request suffer what the switch says: return late, never, or with a 500."""
        fault = self.fault
        if fault.mode is Mode.OK or random.random() >= fault.rate:
            return
        if fault.mode is Mode.SLOW:
            time.sleep(SLOW_BY_DEFAULT if fault.seconds is None else fault.seconds)
        elif fault.mode is Mode.HANG:
            self._hang()
        elif fault.mode is Mode.ERRORS:
            abort(500, "something is broken inside; a restart would help")

    def _hang(self) -> None:
        with self._changed:
            left = None if math.isinf(self._ends) else self._ends - time.monotonic()
            self._changed.wait_for(lambda: self.fault.mode is not Mode.HANG, timeout=left)


def command_line(name: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the option every service has; PORT stands in for ``--port``."""
    parser = argparse.ArgumentParser(prog=name, description=description)
    port = os.environ.get("PORT")
    parser.add_argument("--port", type=int, default=port, required=port is None, help="0 takes a free one")
    return parser


def named_url(text: str) -> tuple[str, str]:
    """Read ``NAME=URL`` from the command line."""
    name, separator, url = text.partition("=")
    if not (name and separator and url.startswith(("http://", "https://"))):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=URL, for example provider-a=http://{HOST}:4006"
        )
    return name, url.rstrip("/")


def application(name: str) -> Flask:
    """Return a Flask application with JSON errors, terse logging and the fault switch."""
    app = Flask(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it
    switch = Switch()
    app.before_request(lambda: _begin(switch))
    app.after_request(_log_answer)
    app.register_error_handler(HTTPException, _as_json)
    app.add_url_rule("/switch", "switch", lambda: _answer_switch(switch), methods=["GET", "POST"])
    return app


def serve(app: Flask, port: int) -> None:
    """Answer requests on *port* in threads until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # every request is logged here already
    signal.signal(signal.SIGTERM, _stop)
    try:
        # Bound here and not by the server, which would look up the host's name first: slow without DNS.
        listener = socket.create_server((HOST, port), backlog=128)  # sets SO_REUSEADDR
    except OSError as error:
        raise SystemExit(f"{app.name}: cannot listen on {HOST}:{port}: {error.strerror}") from error
    with listener:
        port = listener.getsockname()[1]
        server = make_server(HOST, port, app, threaded=True, fd=listener.fileno())
        log.info("%s listening on http://%s:%d", app.name, HOST, port)
        server.serve_forever()


def json_object() -> dict[str, Any]:
    """Return the request's body, a JSON object; anything else is a 400 that says so."""
    body = request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        abort(400, "the body must be a JSON object")
    return body


def text_of(body: dict[str, Any], key: str, *, longest: int) -> str:
    """Return the text under *key*; a missing, empty or too long one is a 400 that says so."""
    value = body.get(key)
    if not isinstance(value, str) or not value.strip():
        abort(400, f"{key!r} must be a text that is not empty")
    if len(value) > longest:
        abort(400, f"{key!r} must have at most {longest} characters, not {len(value)}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        abort(400, f"{key!r} has half a surrogate pair, which is no character")
    return value


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _begin(switch: Switch) -> None:
    g.started = time.monotonic()
    if request.endpoint != "switch":
        switch.play()


def _log_answer(response: Response) -> Response:
    if request.path != "/health" or response.status_code != 200:
        took = (time.monotonic() - g.started) * 1000
        log.info("%s %s %d %.0f ms", request.method, request.path, response.status_code, took)
    return response


def _as_json(error: HTTPException) -> ResponseReturnValue:
    return jsonify(error=error.description), error.code or 500


def _answer_switch(switch: Switch) -> ResponseReturnValue:
    if request.method == "POST":
        switch.set(_read_fault(json_object()))
    fault = switch.fault
    response = jsonify(mode=fault.mode, seconds=fault.seconds, rate=fault.rate)
    if fault.mode is Mode.CRASH:
        response.call_on_close(_crash)
    return response


def _crash() -> NoReturn:
    os._exit(1)


def _read_fault(body: dict[str, Any]) -> Fault:
    try:
        mode = Mode(body.get("mode", ""))
    except ValueError:
        abort(400, f"'mode' must be one of {', '.join(Mode)}")
    seconds = body.get("seconds")
    rate = body.get("rate", 1.0)
    if seconds is not None and not _is_number_within(seconds, LONGEST_FAULT):
        abort(400, f"'seconds' must be a number from 0 to {LONGEST_FAULT:g}")
    if not _is_number_within(rate, 1.0):
        abort(400, "'rate' must be a number from 0 to 1")
    return Fault(mode=mode, seconds=seconds, rate=rate)


def _is_number_within(value: object, highest: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= highest
