"""Signs of life of jobs and loops: the remediator raises an error when one does not come in time."""

import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from soulfra_monitor.capture import text_of
from soulfra_monitor.dispatch import Beat
from soulfra_monitor.redaction import redact

PATH = "/api/monitoring/heartbeats/"
MESSAGE_LIMIT = 1000


class Heartbeat:
    """One job. Its methods never raise and never wait; what they say is sent in order.

    As a context manager it says that the job begins, and at the end that it succeeded or failed; exceptions
    pass unchanged.
    """

    def __init__(self, name: str, send: Callable[[Beat], None]) -> None:
        self._path = PATH + quote(name, safe="")
        self._send = send
        self._began: float | None = None

    def beat(self) -> None:
        """Say that the job succeeded, or that the loop is alive."""
        self._say("", {})

    def start(self) -> None:
        """Say that the job begins."""
        self._began = time.monotonic()
        self._say("/start", {})

    def fail(self, message: str = "") -> None:
        """Say that the job failed."""
        self._say("/fail", {"message": redact(text_of(message))[:MESSAGE_LIMIT]} if message else {})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.beat()
        else:
            self.fail(f"{type(error).__name__}: {text_of(error)}")

    def _say(self, what: str, more: dict[str, Any]) -> None:
        body: dict[str, Any] = {"at": time.time(), **more}
        if what != "/start" and self._began is not None:
            body["seconds"] = round(time.monotonic() - self._began, 6)
        self._send(Beat(self._path + what, json.dumps(body).encode()))
