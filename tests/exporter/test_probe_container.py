"""The container probe against a real Docker engine with containers that live, fall ill and die."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.kinds.container import ContainerProbe
from exporter.loading import load_config
from exporter.observation import REASONS, Outcome, Reason
from exporter.probes import container, usage
from exporter.probes.context import Context, Note, Tools

IMAGE = "soulfra-test"
DEADLINE = 60.0
ID = "0123456789abcdef" * 4

Until = Callable[..., Awaitable[object]]


class Docker:
    """A real engine of our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = f"unix://{folder}/docker.sock"

    def __call__(self, *arguments: str, check: bool = True) -> str:
        argv = ["docker", "--host", self.engine, *arguments]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=DEADLINE)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run(self, name: str, *options: str, command: tuple[str, ...] = ("/bin/sleep", "600")) -> str:
        return self("run", "--detach", "--network", "none", "--name", name, *options, IMAGE, *command)


def missing(message: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def make_image(docker: Docker) -> None:
    busybox = shutil.which("busybox")
    assert busybox
    archive = docker.folder / "image.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(busybox, "bin/busybox")
        for name in ("sh", "sleep", "cat", "dd", "tail", "touch"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
    docker("import", str(archive), IMAGE)


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Start an engine in folders of its own; it ends with the module, its containerd and shims with it."""
    for program in ("dockerd", "docker", "busybox"):
        if shutil.which(program) is None:
            missing(f"{program} is not installed")
    if os.geteuid() != 0:
        missing("dockerd needs root")
    engine = Docker(tmp_path_factory.mktemp("engine"))
    folder = engine.folder
    argv = [
        "dockerd",
        "--host",
        engine.engine,
        "--data-root",
        f"{folder}/data",
        "--exec-root",
        f"{folder}/exec",
    ]
    argv += ["--pidfile", f"{folder}/pid", "--storage-driver", "vfs", "--iptables=false", "--bridge=none"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        end = time.monotonic() + DEADLINE
        while not (folder / "docker.sock").exists() or not engine("version", check=False):
            if process.poll() is not None or time.monotonic() > end:
                missing("dockerd does not run here: " + (folder / "log").read_text()[-500:])
            time.sleep(0.05)
        make_image(engine)
        yield engine
        if containers := engine("ps", "--all", "--quiet").split():
            engine("rm", "--force", *containers)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        end_the_rest(folder)


def end_the_rest(folder: Path) -> None:
    """End what a killed engine leaves: its containerd and shims have our folder in their arguments."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(folder).encode() in file.read_bytes():
                os.kill(int(file.parent.name), signal.SIGKILL)


async def ask(context: Context, docker: Docker | str, wanted: Any, **more: Any) -> Outcome:
    engine = docker if isinstance(docker, str) else docker.engine
    config = ContainerProbe.model_validate({"container": wanted, "engine": engine, **more})
    outcome = await container.probe(config, context)
    assert outcome.reason in {None, *REASONS["container"]}
    return outcome


def values(outcome: Outcome) -> dict[str, float]:
    return {seen.measure.name.removeprefix("container_"): seen.value for seen in outcome.readings}


MEASURED = {
    "running",
    "restarts",
    "oom_kills",
    "start_time_seconds",
    "memory_working_set_bytes",
    "memory_limit_bytes",
    "cpu_seconds",
    "pids",
}


async def test_a_running_container_is_healthy_and_tells_what_it_uses(
    docker: Docker, context: Context
) -> None:
    identity = docker.run("plain", "--memory", "64m")

    outcome = await ask(context, docker, "plain")
    by_id = await ask(context, docker, identity[:12])

    assert (outcome.reason, outcome.detail, by_id.reason) == (None, "running", None)
    seen = values(outcome)
    assert set(seen) == MEASURED
    assert (seen["running"], seen["restarts"], seen["oom_kills"]) == (1, 0, 0)
    assert seen["memory_limit_bytes"] == 64 * 1024 * 1024
    assert 0 < seen["memory_working_set_bytes"] < 64 * 1024 * 1024
    assert time.time() - 60 < seen["start_time_seconds"] < time.time() + 1
    assert 0 < seen["cpu_seconds"] < 10
    assert seen["pids"] == 1


async def test_the_engine_tells_the_same_where_the_kernel_cannot_be_asked(
    docker: Docker, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.run("remote", "--memory", "64m")
    local = values(await ask(context, docker, "remote"))
    monkeypatch.setattr(container, "kernel_usage", lambda pid, identity: None)

    remote = values(await ask(context, docker, "remote"))

    assert set(local) == set(remote) == MEASURED
    assert remote["memory_working_set_bytes"] == pytest.approx(local["memory_working_set_bytes"], rel=0.5)
    assert remote["cpu_seconds"] == pytest.approx(local["cpu_seconds"], rel=0.5)
    assert remote["pids"] == local["pids"]


def test_control_groups_of_another_process_are_not_taken_for_the_containers() -> None:
    assert usage.kernel_usage(os.getpid(), ID) is None
    assert usage.kernel_usage(2**22 + 1, ID) is None


async def test_without_a_limit_of_its_own_none_is_told_and_none_is_judged(
    docker: Docker, context: Context
) -> None:
    docker.run("boundless")

    outcome = await ask(context, docker, "boundless", max_memory="1%")

    assert outcome.reason is None
    assert "memory_limit_bytes" not in values(outcome)


async def test_memory_beyond_its_share_of_the_limit_is_told(
    docker: Docker, context: Context, until: Until
) -> None:
    hold = "dd if=/dev/zero bs=32M | sleep 600"  # which does not read, so that dd holds what it has
    docker.run("hungry", "--memory", "256m", command=("/bin/sh", "-c", hold))

    async def beyond() -> Outcome | None:
        seen = await ask(context, docker, "hungry", max_memory="5%")
        return seen if seen.reason is Reason.LIMIT else None

    seen = await until(beyond)
    assert isinstance(seen, Outcome)
    assert seen.detail.endswith("of 268435456, allowed are 5%")
    assert (await ask(context, docker, "hungry", max_memory="100%")).reason is None


async def test_a_container_that_ended_is_gone_with_its_exit_code(
    docker: Docker, context: Context, until: Until
) -> None:
    docker.run("ended", command=("/bin/sh", "-c", "exit 3"))

    async def gone() -> Outcome | None:
        seen = await ask(context, docker, "ended")
        return seen if seen.reason is Reason.GONE else None

    seen = await until(gone)
    assert isinstance(seen, Outcome)
    assert seen.detail == "has ended, exit code 3"
    assert values(seen)["running"] == 0
    assert not {"cpu_seconds", "memory_working_set_bytes"} & set(values(seen))


async def test_one_that_is_paused_or_was_never_started_is_stopped(docker: Docker, context: Context) -> None:
    docker.run("held")
    docker("pause", "held")
    docker("create", "--name", "fresh", IMAGE, "/bin/sleep", "600")

    paused, created = await ask(context, docker, "held"), await ask(context, docker, "fresh")
    docker("unpause", "held")

    assert (paused.reason, paused.detail) == (Reason.STOPPED, "is paused")
    assert (created.reason, created.detail) == (Reason.STOPPED, "was never started")
    assert "start_time_seconds" not in values(created)
    assert (await ask(context, docker, "held")).reason is None


async def test_one_that_is_not_there_is_missing(docker: Docker, context: Context) -> None:
    outcome = await ask(context, docker, "nobody")

    # Not gone: Compose removes a container before it makes it anew, so a second look decides.
    assert (outcome.reason, values(outcome)) == (Reason.MISSING, {"running": 0})


async def test_restarts_by_the_engine_are_told_and_counted(
    docker: Docker, context: Context, until: Until
) -> None:
    docker.run("crashing", "--restart", "always", command=("/bin/sh", "-c", "exit 1"))

    async def restarting() -> bool:
        seen = await ask(context, docker, "crashing")
        return seen.reason is Reason.RESTARTING and values(seen)["restarts"] >= 2

    await until(restarting)
    docker("rm", "--force", "crashing")


async def test_its_own_check_makes_it_unhealthy_and_healthy_again(
    docker: Docker, context: Context, until: Until
) -> None:
    check = ("--health-cmd", "cat /tmp/ill && exit 1 || exit 0", "--health-interval", "200ms")
    docker.run("checked", *check, "--health-retries", "1")

    async def says(reason: Reason | None, detail: str) -> bool:
        seen = await ask(context, docker, "checked")
        return seen.reason is reason and detail in seen.detail

    await until(lambda: says(None, "running, healthy"))
    docker("exec", "checked", "/bin/touch", "/tmp/ill")
    await until(lambda: says(Reason.UNHEALTHY, "last with exit code 1"))
    docker("exec", "checked", "/bin/busybox", "rm", "/tmp/ill")
    await until(lambda: says(None, "running, healthy"))


async def test_one_that_is_still_starting_is_not_down(docker: Docker, context: Context) -> None:
    check = ("--health-cmd", "exit 1", "--health-interval", "100ms", "--health-start-period", "600s")
    docker.run("starting", *check)

    outcome = await ask(context, docker, "starting")

    assert (outcome.reason, outcome.detail) == (None, "running, starting")


@pytest.mark.parametrize("kernel", [True, False])
async def test_kills_for_want_of_memory_are_counted_over_restarts(
    docker: Docker, context: Context, until: Until, monkeypatch: pytest.MonkeyPatch, kernel: bool
) -> None:
    if not kernel:
        monkeypatch.setattr(container, "kernel_usage", lambda pid, identity: None)
    name = f"greedy-{kernel}"
    # Two steps: each takes too much memory once told to, and dies of it; the engine starts it anew.
    greedy = "while ! cat /tmp/go; do sleep 0.05; done; busybox rm /tmp/go; exec tail -c 90m /dev/zero"
    limit = ("--memory", "16m", "--memory-swap", "16m", "--restart", "always", "--env", "PATH=/bin")
    docker.run(name, *limit, command=("/bin/sh", "-c", greedy))
    before = values(await ask(context, docker, name))

    async def counted(kills: int) -> bool:
        seen = await ask(context, docker, name)
        told = values(seen)
        return seen.reason is None and told["oom_kills"] == told["restarts"] == kills

    for kills in (1, 2):
        docker("exec", name, "/bin/touch", "/tmp/go")
        await until(lambda kills=kills: counted(kills))
    again = [values(await ask(context, docker, name))["oom_kills"] for _ in range(3)]
    docker("rm", "--force", name)

    assert before["oom_kills"] == 0
    assert again == [2, 2, 2]


async def test_a_process_in_it_that_was_killed_is_counted_while_it_runs(
    docker: Docker, context: Context, until: Until
) -> None:
    greedy = "tail -c 90m /dev/zero > /dev/null; sleep 600"
    docker.run("survivor", "--memory", "16m", "--memory-swap", "16m", command=("/bin/sh", "-c", greedy))

    async def counted() -> bool:
        return values(await ask(context, docker, "survivor"))["oom_kills"] == 1

    await until(counted)
    assert (await ask(context, docker, "survivor")).reason is None


async def test_one_that_died_of_it_says_so(docker: Docker, context: Context, until: Until) -> None:
    # Told to only once it runs: the engine misses the kill of one that dies while it is being started.
    greedy = "while ! cat /tmp/go; do sleep 0.05; done; exec tail -c 90m /dev/zero"
    limit = ("--memory", "16m", "--memory-swap", "16m", "--env", "PATH=/bin")
    docker.run("starved", *limit, command=("/bin/sh", "-c", greedy))
    docker("exec", "starved", "/bin/touch", "/tmp/go")

    async def gone() -> Outcome | None:
        seen = await ask(context, docker, "starved")
        # The engine may tell of the kill some moments after the end.
        return seen if seen.reason is Reason.GONE and values(seen)["oom_kills"] else None

    seen = await until(gone)
    assert isinstance(seen, Outcome)
    assert seen.detail == "has ended, exit code 137, after a kill for want of memory"
    assert values(seen)["oom_kills"] == 1


async def test_a_container_of_compose_is_found_by_project_service_and_number(
    docker: Docker, context: Context
) -> None:
    def labels(number: int, oneoff: str = "False") -> tuple[str, ...]:
        told = {"project": "shop", "service": "web", "container-number": str(number), "oneoff": oneoff}
        return tuple(f"--label=com.docker.compose.{key}={value}" for key, value in told.items())

    docker.run("shop-web-1", *labels(1))
    docker.run("shop-web-run", *labels(1, oneoff="True"), command=("/bin/sh", "-c", "exit 1"))
    docker("create", "--name", "shop-web-2", *labels(2), IMAGE, "/bin/sleep", "600")
    service = {"project": "shop", "service": "web"}

    first = await ask(context, docker, service)
    second = await ask(context, docker, {**service, "number": 2})
    third = await ask(context, docker, {**service, "number": 3})

    assert [seen.reason for seen in (first, second, third)] == [None, Reason.STOPPED, Reason.MISSING]


async def test_each_step_is_noted(docker: Docker, tools: Tools) -> None:
    docker.run("noted")
    notes: list[Note] = []

    await ask(Context(timeout=2.0, tools=tools, notes=notes), docker, "noted")

    assert [note.text for note in notes] == [
        f"asking the engine at {docker.folder}/docker.sock",
        "/noted is running, health unknown",
    ]


# What keeps us from asking says nothing about the container


async def test_an_engine_that_is_not_there_is_no_evidence(
    context: Context, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    nowhere = await ask(context, f"unix://{tmp_path}/docker.sock", "any")
    nobody = await ask(context, f"tcp://127.0.0.1:{free_port()}", "any")
    keyless = await ask(context, "tcp://127.0.0.1:1", "any", tls={"ca_file": "/nowhere/ca.pem"})

    assert {nowhere.reason, nobody.reason, keyless.reason} == {Reason.INTERNAL}
    assert nobody.detail == "the engine cannot be asked: connection refused"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_socket_that_may_not_be_opened_is_no_evidence(docker: Docker) -> None:
    program = (
        "import asyncio, os, sys\n"
        "from exporter.kinds.container import ContainerProbe\n"
        "from exporter.probes.container import probe\n"
        "from exporter.probes.context import Context, Tools\n"
        "config = ContainerProbe(container='any', engine=sys.argv[1])\n"
        "os.setuid(65534)\n"
        "outcome = asyncio.run(probe(config, Context(timeout=2.0, tools=Tools())))\n"
        "print(outcome.reason, outcome.detail)\n"
    )
    argv = [sys.executable, "-c", program, docker.engine]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=DEADLINE)

    assert done.stdout == "internal the engine's socket may not be opened by this user\n"


@asynccontextmanager
async def stranger(*answers: bytes | None) -> AsyncIterator[str]:
    """Answer one request after the other; None hangs, and after the last the connection ends."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            for answer in answers:
                if not await reader.read(65536):
                    break
                if answer is None:
                    await reader.read()
                    break
                writer.write(answer)
            writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as listening:
        yield f"tcp://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def http(body: object, status: str = "200 OK") -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(text), text)


RUNNING = {"Id": ID, "State": {"Status": "running", "Pid": 2**22 + 1, "StartedAt": "2024-01-01T00:00:00Z"}}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nno length",
        http(b"no json"),
        http([1]),
        http({}),
        http({"Id": ID, "State": {"Status": "flying"}}),
        http({"Id": "../../x", "State": {"Status": "running"}}),
        http({"Id": ID, "State": 7}),
        http({}, "500 Internal Server Error"),
        http({}, "403 Forbidden"),
        http(b"[" * 100_000),
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 600_000,
        None,
    ],
)
async def test_an_engine_that_answers_strangely_is_no_evidence(tools: Tools, answer: bytes | None) -> None:
    async with stranger(answer) as engine:
        outcome = await ask(Context(timeout=0.5, tools=tools), engine, "any")

    assert outcome.reason is Reason.INTERNAL, outcome.detail


@pytest.mark.parametrize(
    "stats",
    [http({}), http({"memory_stats": [], "cpu_stats": 7, "pids_stats": {"current": "many"}}), None],
)
async def test_a_verdict_does_not_wait_for_what_the_container_uses(tools: Tools, stats: bytes | None) -> None:
    async with stranger(http(RUNNING), stats) as engine:
        outcome = await ask(Context(timeout=0.6, tools=tools), engine, "any")
    async with stranger(http(RUNNING), stats) as engine:
        limited = await ask(Context(timeout=0.6, tools=tools), engine, "any", max_memory="50%")

    assert (outcome.reason, values(outcome)["running"]) == (None, 1)
    assert limited.reason is Reason.INTERNAL


# Configuration


@pytest.mark.parametrize(
    ("probe", "place", "message"),
    [
        ("container: '-x'", ".container", "must be the name or the id of a container"),
        ("container: 'a/../b'", ".container", "must be the name or the id of a container"),
        (
            "container: [a]",
            ".container",
            "must be the name of a container, or {project: ..., service: ...} of Compose",
        ),
        ("container: {project: shop}", ".container.service", "is missing"),
        (
            "container: {project: shop, service: web, number: 0}",
            ".container.number",
            "must be at least 1",
        ),
        (
            "container: a, engine: 'http://h'",
            ".engine",
            "must be unix:///path/of/docker.sock or tcp://HOST:PORT",
        ),
        (
            "container: a, engine: 'unix://docker.sock'",
            ".engine",
            "must be unix:///path/of/docker.sock or tcp://HOST:PORT",
        ),
        ("container: a, tls: {}", "", "tls needs an engine at tcp://HOST:PORT"),
        ("container: a, max_memory: 0.9", ".max_memory", "a share is written in percent, for example 10%"),
    ],
)
def test_each_rule_names_its_mend(tmp_path: Path, probe: str, place: str, message: str) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_text(f"services: {{a: {{probes: [{{{probe}}}]}}}}")

    with pytest.raises(ConfigError) as caught:
        load_config(file, WatchConfig, {})

    found = [
        (seen.place.removeprefix("services.a.probes[0]"), seen.message) for seen in caught.value.mistakes
    ]
    assert found == [(place, message)]


async def test_a_peer_that_switches_protocols_is_no_engine(context: Context, tmp_path: Path) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello")
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(speak, tmp_path / "engine.sock"):
        outcome = await ask(context, f"unix://{tmp_path}/engine.sock", "plain")

    assert (outcome.reason, outcome.detail) == (
        Reason.INTERNAL,
        "the engine cannot be asked: its answer is not HTTP",
    )
