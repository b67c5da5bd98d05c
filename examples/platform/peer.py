"""Calls from one service of the platform to another."""

import time
from dataclasses import dataclass
from typing import Any

import requests
from flask import jsonify
from flask.typing import ResponseReturnValue


class PeerError(Exception):
    """A call to another service failed; ``status`` is what it answered, None if it did not."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another service at *url*."""

    name: str
    url: str
    timeout: float = 5.0  # seconds, per network step

    def get(self, path: str, *, timeout: float | None = None) -> Any:
        """Return the JSON that GET *path* answers, or raise PeerError."""
        return self._call("GET", path, timeout=timeout or self.timeout)

    def post(self, path: str, body: object, *, timeout: float | None = None) -> Any:
        """Return the JSON that the service answers to *body* sent as JSON, or raise PeerError."""
        return self._call("POST", path, timeout=timeout or self.timeout, json=body)

    def post_text(self, path: str, text: str, content_type: str, *, timeout: float | None = None) -> Any:
        """Return the JSON that the service answers to *text*, or raise PeerError."""
        headers = {"Content-Type": f"{content_type}; charset=utf-8"}
        limit = timeout or self.timeout
        return self._call("POST", path, timeout=limit, data=text.encode(), headers=headers)

    def _call(self, method: str, path: str, *, timeout: float, **arguments: Any) -> Any:
        try:
            with requests.Session() as session:
                session.trust_env = False  # the services are neighbours: no proxy lies between them
                answer = session.request(method, self.url + path, timeout=timeout, **arguments)
                content = answer.json()
        except requests.Timeout as error:
            raise PeerError(f"{self.name} did not answer within {timeout:g} s") from error
        except requests.ConnectionError as error:
            raise PeerError(f"{self.name} cannot be reached") from error
        except requests.RequestException as error:
            raise PeerError(f"{self.name} answered nonsense: {type(error).__name__}") from error
        if not answer.ok:
            reason = content.get("error") or content.get("reason") if isinstance(content, dict) else None
            raise PeerError(f"{self.name} answered {answer.status_code}: {reason}", status=answer.status_code)
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class CheapCall:
    """A small real request that shows that a service can be reached and works."""

    path: str
    text: str | None = None  # sent as text/plain; None: a GET

    def to(self, peer: Peer) -> None:
        """Make the call, or raise PeerError. Quick, so that a checker is not kept waiting."""
        if self.text is None:
            peer.get(self.path, timeout=1.0)
        else:
            peer.post_text(self.path, self.text, "text/plain", timeout=1.0)


def answer_link(peer: Peer, call: CheapCall) -> ResponseReturnValue:
    """Answer whether *peer* works as seen from this service: 200, or 502 with the reason."""
    started = time.monotonic()
    try:
        call.to(peer)
    except PeerError as error:
        return jsonify(status="unhealthy", service=peer.name, reason=str(error)), 502
    return jsonify(status="healthy", service=peer.name, seconds=round(time.monotonic() - started, 4))
