"""A remediator that answers as told, on a real socket, and the ``soulfra`` command run against it."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from remediator.cli import main

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


@dataclass(slots=True, kw_only=True)
class FakeRemediator:
    """Answers per method and path; remembers what was asked."""

    url: str = ""
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], Any, str | None]] = field(default_factory=list)

    def on(self, what: str, content: Any, status: int = 200) -> None:
        """Answer *what* (``GET /health``) so; of several answers the last one stays."""
        self.answers.setdefault(what, []).append((status, content))

    def app(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        what = f"{request.method} {request.path.removeprefix('/api/monitoring')}"
        body = request.get_json(silent=True) if request.data else None
        self.asked.append((what, request.args.to_dict(), body, request.headers.get("Authorization")))
        prepared = self.answers.get(what, [(404, {"error": f"nothing at {what}"})])
        status, content = prepared.pop(0) if len(prepared) > 1 else prepared[0]
        text = content if isinstance(content, str) else json.dumps(content)
        return Response(text, status, content_type="application/json")


@pytest.fixture
def remediator() -> Iterator[FakeRemediator]:
    fake = FakeRemediator()
    server = make_server("127.0.0.1", 0, fake.app, threaded=True)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def soulfra(monkeypatch: pytest.MonkeyPatch, remediator: FakeRemediator) -> Callable[..., Result]:
    """Run the command in this process, pointed at the fake remediator."""
    monkeypatch.setenv("SOULFRA_URL", remediator.url)
    monkeypatch.delenv("SOULFRA_TOKEN", raising=False)
    monkeypatch.setenv("TZ", "UTC")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return run
