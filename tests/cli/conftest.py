"""A remediator that answers as told and a real one, on real sockets, and ``soulfra`` run against them."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from remediator.calls import call
from remediator.cli import main
from remediator.config import load
from remediator.metrics import Metrics
from remediator.server import build
from remediator.store import Store
from remediator.web import create_app

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


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve *app* on a free port, as long as it lasts."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def remediator() -> Iterator[FakeRemediator]:
    fake = FakeRemediator()
    with served(fake.app) as fake.url:
        yield fake


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """A real remediator's application and store. Its engine stands still: what is stored stays as it is."""

    url: str
    store: Store
    metrics: Metrics

    def post(self, path: str, body: Any = None) -> Any:
        answer = call("POST", f"{self.url}/api/monitoring{path}", timeout=10.0, json_body=body or {})
        assert answer.ok, answer.text(500)
        return answer.json()


CONFIG: dict[str, Any] = {
    "services": {
        "redis": {},
        "mobile-converter": {
            "depends_on": ["redis"],
            "paths": [{"path": "/srv/converter/out", "kind": "directory", "mode": "0750"}],
        },
    },
    "heartbeats": {
        "nightly-export": {"period": "24h", "grace": "1h"},
        "mail-loop": {"period": "1m30s", "grace": "10s"},
    },
}


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    """Run the real application; the command is pointed at it."""
    file = tmp_path / "soulfra.yml"
    file.write_text(json.dumps(CONFIG), encoding="utf-8")
    surroundings, _ = build(load(file, {}), tmp_path, {})
    surroundings.tools.feed = lambda kind, text: None  # its lines would be among the command's
    with served(create_app(surroundings)) as url:
        monkeypatch.setenv("SOULFRA_URL", url)
        tools = surroundings.tools
        yield Application(url=url, store=tools.store, metrics=tools.metrics)
    surroundings.tools.store.close()


@pytest.fixture
def soulfra(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[..., Result]:
    """Run the command in this process, pointed at the fake remediator where no real one is asked for."""
    if "application" not in request.fixturenames:
        monkeypatch.setenv("SOULFRA_URL", request.getfixturevalue("remediator").url)
    monkeypatch.delenv("SOULFRA_TOKEN", raising=False)
    monkeypatch.setenv("TZ", "UTC")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return run
