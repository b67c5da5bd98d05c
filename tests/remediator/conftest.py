"""Real parts for the remediator's tests: an HTTP server that answers as told, and a way to wait."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass(slots=True, kw_only=True)
class Request:
    """One request that the server got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True, kw_only=True)
class Reply:
    """What the server answers; *delay* seconds before it, *drip* seconds between its bytes."""

    status: int = 200
    body: bytes | str | dict[str, Any] | list[Any] = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0

    @property
    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


class Server:
    """Answers each request with what ``answer`` returns for it, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.answer: Callable[[Request], Reply] = lambda _: Reply()
        self.released = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                server.connections += 1

            def log_message(self, *_: Any) -> None:
                """Say nothing on the test's output."""

            def reply(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {key.lower(): value for key, value in self.headers.items()}
                request = Request(method=self.command, path=self.path, headers=headers, body=body)
                server.requests.append(request)
                reply = server.answer(request)
                server.released.wait(reply.delay)
                content = reply.content
                self.send_response(reply.status)
                for key, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                for part in [content[i : i + 1] for i in range(len(content))] if reply.drip else [content]:
                    server.released.wait(reply.drip)
                    self.wfile.write(part)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = reply  # noqa: N815 - the names that the library calls

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:
                    self.close_connection = True  # the client had enough

        return Handler


@pytest.fixture
def http_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def make_reply() -> type[Reply]:
    return Reply


def wait_until(condition: Callable[[], object], within: float = 10.0) -> None:
    """Poll until *condition* is true; fail when it never is."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not true within {within} s")
        time.sleep(0.005)


@pytest.fixture
def until() -> Callable[..., None]:
    return wait_until
