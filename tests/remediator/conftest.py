"""Real parts for the remediator's tests: an HTTP server that answers as told, a way to wait, the core."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import remediator.engine
import remediator.server
from remediator.actions import ACTIONS
from remediator.config import load
from remediator.notify import Notification, Notifier
from remediator.playbook import Verify
from remediator.run import Run
from remediator.server import build
from remediator.signals import Error, Signal, Source, Status
from remediator.store import ErrorQuery, RunQuery, Store, StoreError, open_store
from remediator.verify import ExporterClient, ExporterUnreachable
from remediator.web import Surroundings
from remediator.web.access import Holder
from soulfra_monitor.problems import Problem, Severity


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


# -- the core of the remediator around a scripted exporter and recorded actions -------------------------


class ScriptedExporter(ExporterClient):
    """Says of each service what the test has put down, in the words of the real one."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__("http://127.0.0.1:1")
        self.services: dict[str, dict[str, Any]] = {
            name: {"up": True, "slow": False, "known": True, "since": 0.0} for name in names
        }
        self.edges: list[dict[str, Any]] = []
        self.reachable = True
        self.ready = True
        self.blind = False
        self.asked = 0
        self.told_all = 0  # how often it was asked for what it knows of every service
        self.skew = 0.0  # seconds that its clock is ahead
        self._last = 0.0

    def set(self, name: str, **changes: Any) -> None:
        self.services[name] = {**self.services[name], **changes}

    def check(self, targets: Iterable[str], *, peers: bool = False, timeout: float = 5.0) -> dict[str, Any]:
        self.asked += 1
        results = {target: self._result(target) for target in targets}
        return {**self._head(), "results": results}

    def state(self, target: str | None = None, *, timeout: float = 2.0) -> dict[str, Any]:
        self.told_all += target is None
        names = [target] if target else list(self.services)
        services = {name: self._service(name) for name in names if name in self.services}
        return {**self._head(), "services": services, "integrations": self.edges}

    def _head(self) -> dict[str, Any]:
        if not self.reachable:
            raise ExporterUnreachable("/check: the connection was refused")
        self._last = max(time.time(), self._last + 1e-6)  # no two answers are of the same moment
        return {"at": self._last + self.skew, "ready": self.ready, "prober_blind": self.blind}

    def _result(self, name: str) -> dict[str, Any]:
        service = self.services.get(name)
        if service is None or not service["known"]:
            return {"known": False, "healthy": False}
        up = bool(service["up"])
        return {
            "known": True,
            "healthy": None if service.get("reason") == "internal" else up,
            "status": "up" if up else "down",
            "since": service["since"],
            "recovered_at": service["since"] or None,
            "slow": service["slow"],
            "reason": service.get("reason") or (None if up else "connection_refused"),
            "detail": "",
            "response_time": 0.02,
            "process": None,
        }

    def _service(self, name: str) -> dict[str, Any]:
        service = self.services[name]
        status = service.get("status") or ("up" if service["up"] else "down")
        failing = None if service["up"] else {"probe": "http", "reason": "connection_refused", "detail": ""}
        return {
            "status": status,
            "since": service["since"],
            "slow": service["slow"],
            "response_time": 0.02 if service["up"] else None,
            "failing": failing,
            "process": None,
            "probes": {},
        }


class RecordingNotifier(Notifier):
    """Keeps what people are told; takes nothing while ``works`` is false."""

    def __init__(self) -> None:
        super().__init__({}, (), {})
        self.told: list[Notification] = []
        self.works = True

    @property
    def direct(self) -> tuple[str, ...]:
        return ("log",)

    def send(self, names: Iterable[str], notification: Notification) -> dict[str, str | None]:
        if self.works:
            self.told.append(notification)
        return dict.fromkeys(names, None if self.works else "refused")


class FlakyStore:
    """The real store, until ``broken``: then every call fails as on a full disk."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.broken = threading.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*args: Any, **given: Any) -> Any:
            if self.broken.is_set() and name != "close":
                raise StoreError("database or disk is full")
            return method(*args, **given)

        return call


RESTART = [{"steps": [{"restart": {"service": "{{ target }}"}}]}]
QUICK = {"healthy": 2, "every": "5ms", "within": "60ms"}


def playbook(**changes: Any) -> dict[str, Any]:
    """Write a playbook that restarts what is down, quickly proved."""
    made: dict[str, Any] = {
        "name": "down",
        "match": ['problem="service_down"'],
        "cooldown": "10ms",
        "rungs": RESTART,
        "escalate": {"notify": ["people"]},
        **changes,
    }
    return {**made, "rungs": [{"verify": QUICK, **rung} for rung in made["rungs"]]}


class World:
    """A remediator put together as ``remediator.server`` does, and what it acts on."""

    def __init__(self, folder: Path, config: Mapping[str, Any], holders: Mapping[str, Holder]) -> None:
        self.folder = folder
        self.offset = 0.0
        self.done: list[tuple[str, str]] = []  # actions: name and service
        self.lines: list[tuple[str, str]] = []
        self.on_action: Callable[[str, str], str] = self.repair
        file = folder / "soulfra.yml"
        file.write_text(json.dumps(config))
        self.loaded = load(file, {})
        self.holders = dict(holders)
        self.exporter = ScriptedExporter(self.loaded.config.services)
        self.notifier = RecordingNotifier()
        self.lives: list[Surroundings] = []
        self.begin()

    def begin(self, *, start: bool = False) -> None:
        """Begin a life of the remediator over the same folder."""
        surroundings, self.chores = build(self.loaded, self.folder, self.holders)
        tools = surroundings.tools
        tools.exporter, tools.notifier, tools.clock = self.exporter, self.notifier, self.now
        tools.feed = lambda kind, text: self.lines.append((kind, text))
        self.lives.append(surroundings)
        self.surroundings = surroundings
        self.engine, self.tools = surroundings.engine, tools
        self.store: Any = tools.store
        self.metrics = tools.metrics
        if start:
            self.engine.start()

    def repair(self, action: str, service: str) -> str:
        self.exporter.set(service, up=True, slow=False)
        return f"{action} done"

    def now(self) -> float:
        return time.time() + self.offset

    def act(self, name: str, args: Any) -> str:
        service = getattr(args, "service", "")
        self.done.append((name, service))
        return self.on_action(name, service)

    def signal(self, target: str = "web", **changes: Any) -> Signal:
        made = Signal(
            source=Source.ALERTMANAGER,
            fingerprint=f"f-{target}",
            status=Status.FIRING,
            target=target,
            problem=Problem.SERVICE_DOWN,
            severity=Severity.HIGH,
            message=f"{target} is down",
            received_at=self.now(),
            labels={"alertname": "SoulfraServiceDown", "target": target, "problem": "service_down"},
        )
        return replace(made, **changes)

    def fire(self, target: str = "web", **changes: Any) -> None:
        self.engine.accept([self.signal(target, **changes)])

    def fail(self, target: str = "web", **changes: Any) -> None:
        """Let the service fail, and the alert come in."""
        self.exporter.set(target, up=False)
        self.fire(target, **changes)

    def errors(self, target: str | None = None) -> list[Error]:
        return list(self.store.find_errors(ErrorQuery(target=target)))

    def error(self, target: str = "web") -> Error:
        (found,) = self.errors(target)
        return found

    def runs(self, target: str | None = None) -> list[Run]:
        return list(reversed(self.store.find_runs(RunQuery(target=target))))

    def reasons(self, error: Error | None = None) -> list[str]:
        """Why nothing ran, the last answer last."""
        found = self.store.decisions(error_id=error.id if error else None)
        return [str(decision.reason) for decision in reversed(found) if decision.reason]

    def idle(self) -> bool:
        """Whether nothing is under way and nothing is due."""
        return not self.busy(self.engine) and not self.store.due_errors(self.now(), 1)

    def _is_idle(self, engine: Any) -> bool:
        return not self.busy(engine)

    def busy(self, engine: Any) -> bool:
        """Whether a look or a run is under way."""
        return bool(engine._looking or engine._running._at_work)

    def settle(self) -> None:
        wait_until(self.idle)

    def pass_time(self, seconds: float) -> None:
        self.offset += seconds
        self.engine.wake()

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def close(self) -> None:
        for life in self.lives:
            life.engine.stop()
        for life in self.lives:
            wait_until(partial(self._is_idle, life.engine))
            life.tools.store.close()


BASE: dict[str, Any] = {
    "services": {
        "redis": {"restart": {"command": ["restart-redis"]}},
        "web": {
            "restart": {"command": ["restart-web"]},
            "depends_on": ["redis"],
            "hooks": {"reconnect_redis": "http://127.0.0.1:1/reconnect"},
        },
        "mail": {"restart": {"command": ["restart-mail"]}},
        "bare": {},
    },
    "remediator": {
        "alertmanagers": ["http://127.0.0.1:1"],  # nobody listens there
        "exporter": "http://127.0.0.1:1",
        "backoff": "10ms",
        "settle": "1ms",
        "evidence_timeout": "200ms",
        "lease": "15s",
        "name": "here",
    },
    "playbooks": [
        playbook(),
        playbook(name="restart_service", match=['action="restart_service"']),
        playbook(
            name="reconnect_redis",
            match=['action="reconnect_redis"'],
            rungs=[{"steps": [{"hook": {"service": "{{ target }}", "hook": "reconnect_redis"}}]}],
        ),
    ],
}


@pytest.fixture
def write_playbook() -> Callable[..., dict[str, Any]]:
    return playbook


@pytest.fixture
def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    """Return a maker of worlds; keywords replace sections of the configuration, *start* starts the engine."""
    made: list[World] = []
    quick = Verify.model_validate(QUICK)
    monkeypatch.setattr(remediator.engine, "_QUICK", quick)
    monkeypatch.setattr(remediator.server, "open_store", lambda address: FlakyStore(open_store(address)))
    actions = ModuleType("recorded_actions")
    for name in ("restart", "hook"):
        setattr(actions, name, lambda args, context, timeout, name=name: made[-1].act(name, args))
        monkeypatch.setitem(ACTIONS, name, f"recorded_actions:{name}")
    monkeypatch.setitem(sys.modules, "recorded_actions", actions)

    def make(*, start: bool = True, holders: Mapping[str, Holder] | None = None, **sections: Any) -> World:
        config = {**BASE, **sections}
        config["remediator"] = {**BASE["remediator"], **sections.get("remediator", {})}
        folder = tmp_path / str(len(made))
        folder.mkdir()
        world = World(folder, config, holders or {})
        made.append(world)
        if start:
            world.engine.start()
        return world

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
