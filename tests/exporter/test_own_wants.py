"""What the exporter itself lacks is told as that: it is no evidence about a peer, and holds nobody up."""

import asyncio
import errno
import os
import resource
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exporter.kinds import Tls, read_probe
from exporter.kinds.process import ProcessProbe
from exporter.observation import Outcome, Reason
from exporter.probes import command, own_files, probe_function, process
from exporter.probes import context as contexts
from exporter.probes.context import Context, Progress, TlsFileError, Tools, failure_of
from exporter.probes.patience import Judging, OwnWantError


async def look(context: Context, **config: Any) -> Outcome:
    probe = read_probe(config)
    return await probe_function(probe.kind)(probe, context)


@contextmanager
def no_open_files_left() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("kind", ["tcp", "http", "redis"])
async def test_a_probe_without_a_file_for_its_connection_is_no_evidence(context: Context, kind: str) -> None:
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        config = read_probe({kind: address if kind == "tcp" else f"{kind}://{address}/"})
        probe = probe_function(kind)  # loaded while there are files
        with no_open_files_left():
            seen = await probe(config, context)

    assert seen.reason is Reason.INTERNAL
    assert "LimitNOFILE" in seen.detail


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("kind", ["pid_file", "port", "match", "user"])
async def test_a_process_that_cannot_be_looked_at_for_want_of_files_is_not_gone(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: str
) -> None:
    (tmp_path / "pid").write_text(str(os.getpid()))
    with socket.create_server(("127.0.0.1", 0)) as server:
        pid_file = str(tmp_path / "pid")
        found: dict[str, dict[str, Any]] = {
            "pid_file": {"pid_file": pid_file},
            "port": {"port": server.getsockname()[1]},
            "match": {"match": "."},
            "user": {"pid_file": pid_file, "user": os.getuid()},
        }
        config = ProcessProbe.model_validate(found[kind])
        assert (await process.probe(config, context)).reason is None
        opens = os.open

        def refuse(path: str, flags: int) -> int:
            if kind != "user" or path.endswith("/status"):
                raise OSError(number, os.strerror(number))
            return opens(path, flags)

        monkeypatch.setattr("exporter.probes.procfs.os.open", refuse)
        seen = await process.probe(config, context)

    assert seen.reason is Reason.INTERNAL
    assert os.strerror(number) in seen.detail


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EMFILE, "no open files left"),
        (errno.ENFILE, "no open files left"),
        (errno.EADDRNOTAVAIL, "no local port"),
        (errno.ENOBUFS, "no memory left"),
        (errno.ENOMEM, "no memory left"),
    ],
)
@pytest.mark.parametrize("connected", [False, True])
def test_what_this_machine_lacks_is_internal(number: int, told: str, connected: bool) -> None:
    reason, detail = failure_of(OSError(number, os.strerror(number)), connected=connected)

    assert reason is Reason.INTERNAL
    assert told in detail


def test_a_name_that_is_not_resolved_for_want_of_files_is_internal() -> None:
    error = socket.gaierror(socket.EAI_AGAIN, "try again")
    with no_open_files_left():
        without = failure_of(error, connected=False)

    assert without[0] is Reason.INTERNAL
    assert failure_of(error, connected=False)[0] is Reason.DNS


async def test_a_context_that_no_file_was_left_for_is_not_kept_without_authorities(
    make_certificate: Callable[[int], tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch, tools: Tools
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(make_certificate(30)[1]))
    with no_open_files_left(), pytest.raises(TlsFileError, match="Too many open files"):
        await tools.tls(Tls(), within=5)

    assert (await tools.tls(Tls(), within=5)).cert_store_stats()["x509"] == 1


def test_an_authority_that_is_not_found_for_want_of_files_is_no_evidence() -> None:
    error = ssl.SSLCertVerificationError(1, "verify failed")
    error.verify_code, error.verify_message = 20, "unable to get local issuer certificate"
    with no_open_files_left():
        want = failure_of(error, connected=True)[0]

    assert (want, failure_of(error, connected=True)[0]) == (Reason.INTERNAL, Reason.TLS_VERIFY)


async def test_judging_takes_few_threads_and_sends_away_whom_it_has_no_place_for() -> None:
    judging = Judging(threads=2, line=3)
    go_on = threading.Event()
    tasks = [asyncio.create_task(judging.run(go_on.wait)) for _ in range(5)]
    await asyncio.sleep(0)

    with pytest.raises(OwnWantError, match="wait to be judged"):
        await judging.run(go_on.wait)
    assert judging.refused == 1
    assert sum(thread.name.startswith("judge") for thread in threading.enumerate()) <= 2
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "served"), 10) == "served"

    go_on.set()
    assert await asyncio.gather(*tasks) == [True] * 5
    judging.close()


async def test_who_leaves_the_line_leaves_nothing_and_a_thread_that_works_keeps_its_place() -> None:
    judging = Judging(threads=1, line=1)
    go_on = threading.Event()
    ran: list[int] = []
    works = asyncio.create_task(judging.run(go_on.wait))
    waits = asyncio.create_task(judging.run(lambda: ran.append(1)))
    await asyncio.sleep(0)

    for task in (works, waits):
        task.cancel()
    await asyncio.wait([works, waits])
    last = asyncio.create_task(judging.run(lambda: ran.append(2)))
    await asyncio.sleep(0)
    assert ran == []

    go_on.set()
    await last
    assert ran == [2]
    judging.close()


@pytest.mark.parametrize("kind", ["http", "redis", "postgres", "mysql"])
async def test_a_file_of_ours_that_hangs_holds_nobody_up_and_is_no_evidence(
    context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_port: Callable[[], int], kind: str
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(own_files, "read_own", lambda *_: go_on.wait(20) and b"secret-" + b"1")
    file = str(tmp_path / "secret")
    pytest.importorskip(f"exporter.probes.{kind}")
    config: dict[str, Any] = {kind: f"{kind}://127.0.0.1:{free_port()}/"}
    config |= {"bearer": {"token_file": file}} if kind == "http" else {"password_file": file}
    config |= {"username": "prober"} if kind in ("postgres", "mysql") else {}
    started = time.monotonic()

    asked = asyncio.create_task(look(context, **config))
    try:
        await asyncio.sleep(0)
        assert time.monotonic() - started < 10, "the loop was held"
        seen = await asked
    finally:
        go_on.set()

    assert seen.reason is Reason.INTERNAL
    assert "could not be read in time" in seen.detail


def test_what_a_peer_says_at_length_is_cut_before_it_is_looked_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_through: list[int] = []

    def redact(text: str) -> str:
        looked_through.append(len(text))
        return text

    monkeypatch.setattr(contexts, "redact", redact)
    progress = Progress(notes=[])
    progress.hide("open-sesame")
    long = "open-sesame " * 90_000
    outcome = progress.outcome(Reason.STATUS, long)
    progress.note("%s", long)

    assert len(looked_through) == 2
    assert max(looked_through) <= contexts.LOOKED_THROUGH
    assert outcome.detail.startswith("*** ***")
    assert "sesame" not in repr((outcome, progress.notes))


def test_a_pipe_is_no_file_to_send(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(own_files.OwnFileError, match="password_file is not a file"):
            own_files.read_secret(str(path), "password_file")


async def test_a_program_given_up_is_waited_for_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch, until: Callable[..., Awaitable[Any]]
) -> None:
    starting = command._Start(read_probe({"command": ["/bin/sleep", "60"]}))  # type: ignore[arg-type]
    process = await asyncio.to_thread(starting.run)
    wait, go_on = process.wait, threading.Event()

    def waits_for_a_dead_disk() -> int:
        go_on.wait(20)
        return wait()

    monkeypatch.setattr(process, "wait", waits_for_a_dead_disk)
    started = time.monotonic()
    starting.abandon()

    assert time.monotonic() - started < 10, "the loop was held"
    go_on.set()
    await until(lambda: process.returncode is not None)
    assert process.returncode == -9
