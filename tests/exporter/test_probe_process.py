"""The process probe on real processes."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.kinds.process import ProcessProbe
from exporter.observation import Outcome, ProcessStatus, Reason
from exporter.probes import process
from exporter.probes.context import Context, ProcessMemory, Tools
from exporter.probes.ending import ProcessEnd

LISTENS_UNTIL_TOLD = """
import socket, sys, time
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
sys.stdin.read()
listening.close()
time.sleep(60)
"""
SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)")


async def ask(context: Context, **how: Any) -> Outcome:
    return await process.probe(ProcessProbe.model_validate(how), context)


async def test_the_process_behind_a_port_is_found_with_its_resources(
    context: Context, serve: Callable[[int], Any], free_port: Callable[[], int]
) -> None:
    port = free_port()
    server = serve(port)

    facts = (await ask(context, port=port)).process

    assert facts is not None
    assert (facts.pid, facts.status) == (server.pid, ProcessStatus.RUNNING)
    assert facts.start_time == pytest.approx(time.time(), abs=30)
    assert (facts.resident_bytes or 0) > 1_000_000
    assert (facts.open_fds or 0) >= 3
    assert (facts.max_fds or 0) >= (facts.open_fds or 0)
    assert facts.threads == 1
    assert facts.cpu_seconds is not None


async def test_a_known_process_that_stops_listening_is_not_gone(
    context: Context, launch: Callable[..., Any], free_port: Callable[[], int], until: Any
) -> None:
    port = free_port()
    server = launch(sys.executable, "-c", LISTENS_UNTIL_TOLD, str(port), stdin=subprocess.PIPE)

    async def listening() -> bool:
        return (await ask(context, port=port)).reason is None

    await until(listening)
    server.stdin.close()

    async def deaf() -> Outcome | None:
        outcome = await ask(context, port=port)
        return outcome if outcome.reason else None

    outcome = await until(deaf)
    server.kill()
    server.wait()
    ended = await ask(context, port=port)

    assert outcome.reason is Reason.NOT_LISTENING
    assert outcome.process.pid == server.pid
    assert outcome.detail == f"process {server.pid} is there, but nothing listens on port {port}"
    assert ended.reason is Reason.GONE


async def test_a_port_that_only_clients_use_is_gone(context: Context, free_port: Callable[[], int]) -> None:
    assert (await ask(context, port=free_port())).reason is Reason.GONE


async def test_a_successor_on_the_port_is_found_after_a_kill(
    context: Context, serve: Callable[[int], Any], free_port: Callable[[], int]
) -> None:
    port = free_port()
    first = serve(port)
    await ask(context, port=port)
    first.kill()
    first.wait()
    gone = await ask(context, port=port)

    second = serve(port)
    found = (await ask(context, port=port)).process

    assert gone.reason is Reason.GONE
    assert found is not None
    assert found.pid == second.pid


async def test_a_pid_file_names_the_process(
    context: Context, launch: Callable[..., Any], tmp_path: Path
) -> None:
    running = launch(*SLEEPER)
    file = tmp_path / "service.pid"
    file.write_text(f"{running.pid}\n")

    outcome = await ask(context, pid_file=str(file))

    assert outcome.reason is None
    assert outcome.process is not None
    assert outcome.process.pid == running.pid


async def test_a_zombie_has_ended(
    context: Context, launch: Callable[..., Any], tmp_path: Path, until: Any
) -> None:
    running = launch(*SLEEPER)
    file = tmp_path / "service.pid"
    file.write_text(str(running.pid))
    running.kill()  # and nobody waits for it

    async def ended() -> Outcome | None:
        outcome = await ask(context, pid_file=str(file))
        return outcome if outcome.reason else None

    outcome = await until(ended)
    assert outcome.reason is Reason.GONE
    assert outcome.process.status is ProcessStatus.ZOMBIE


async def test_a_pid_that_went_to_a_younger_process_is_gone(
    context: Context, launch: Callable[..., Any], tmp_path: Path
) -> None:
    running = launch(*SLEEPER)
    file = tmp_path / "service.pid"
    file.write_text(str(running.pid))
    os.utime(file, (time.time() - 3600, time.time() - 3600))

    assert (await ask(context, pid_file=str(file))).reason is Reason.GONE


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, Reason.GONE), ("", Reason.PID_FILE), ("nonsense", Reason.PID_FILE), ("-1", Reason.GONE)],
)
async def test_a_pid_file_that_names_nobody_is_a_failure(
    context: Context, tmp_path: Path, content: str | None, reason: Reason
) -> None:
    file = tmp_path / "service.pid"
    if content is not None:
        file.write_text(content)

    assert (await ask(context, pid_file=str(file))).reason is reason


async def test_a_pid_file_that_we_may_not_read_is_no_evidence(context: Context, tmp_path: Path) -> None:
    unreadable = tmp_path / "service.pid"
    unreadable.mkdir()  # a refusal that holds for root too

    outcome = await ask(context, pid_file=str(unreadable))

    assert outcome.reason is Reason.INTERNAL
    assert outcome.detail == "the pid file cannot be read: Is a directory"


async def test_a_look_that_takes_too_long_is_no_evidence(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    released = threading.Event()

    def wait(*_: object) -> frozenset[str]:
        released.wait(10)
        return frozenset()

    monkeypatch.setattr(process, "listening_inodes", wait)
    outcome = await ask(Context(timeout=0.05, tools=tools), port=free_port())
    released.set()

    assert (outcome.reason, outcome.detail) == (Reason.INTERNAL, "no answer within 0.05 s")


async def test_the_processes_of_a_service_are_counted_anew_while_its_main_process_lives(
    context: Context, launch: Callable[..., Any]
) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    main = launch(*SLEEPER, marker)
    await ask(context, match=marker)
    worker = launch(*SLEEPER, marker)

    counts = [await group(context, marker) for _ in range(2 * process.RECOUNT_AFTER)]
    worker.kill()
    worker.wait()
    after = [await group(context, marker) for _ in range(process.RECOUNT_AFTER)]

    half = process.RECOUNT_AFTER - 1
    assert counts == [(main.pid, 1)] * half + [(main.pid, 2)] * (half + 2)
    assert after[-1] == (main.pid, 1)


async def group(context: Context, marker: str) -> tuple[int, int]:
    facts = (await ask(context, match=marker)).process
    assert facts is not None
    return facts.pid, facts.group_size


async def test_match_finds_the_process_by_its_command_line(
    context: Context, launch: Callable[..., Any]
) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    running = launch(*SLEEPER, marker)

    found = await ask(context, match=f"{marker}$")
    running.kill()
    running.wait()
    gone = await ask(context, match=f"{marker}$")

    assert found.process is not None
    assert found.process.pid == running.pid
    assert gone.reason is Reason.GONE


@pytest.mark.parametrize(("alone", "reason"), [(True, Reason.STOPPED), (False, None)])
async def test_a_stopped_process_fails_only_where_nothing_else_is_watched(
    tools: Tools, launch: Callable[..., Any], until: Any, alone: bool, reason: Reason | None
) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    launch(*SLEEPER, marker).send_signal(signal.SIGSTOP)
    context = Context(timeout=2.0, tools=tools, stopped_fails=alone)

    async def stopped() -> Outcome | None:
        outcome = await ask(context, match=marker)
        return outcome if outcome.process and outcome.process.status is ProcessStatus.STOPPED else None

    assert (await until(stopped)).reason is reason


async def test_a_used_again_pid_is_not_taken_for_the_known_process(
    tools: Tools, serve: Callable[[int], Any], free_port: Callable[[], int]
) -> None:
    port = free_port()
    serve(port)
    memory = ProcessMemory()
    context = Context(timeout=2.0, tools=tools, memory=memory)
    true_facts = (await ask(context, port=port)).process
    assert true_facts is not None

    memory.members = ((true_facts.pid, true_facts.start_ticks - 1000),)
    found = (await ask(context, port=port)).process

    assert found is not None
    assert (found.start_ticks, found.group_size) == (true_facts.start_ticks, 1)


async def test_the_kernel_tells_the_end_at_once(
    context: Context, launch: Callable[..., Any], tmp_path: Path
) -> None:
    running = launch(*SLEEPER)
    file = tmp_path / "service.pid"
    file.write_text(str(running.pid))
    facts = (await ask(context, pid_file=str(file))).process
    assert facts is not None
    ended = asyncio.Event()
    ProcessEnd(facts, ended.set)

    killed = time.monotonic()
    running.kill()
    await asyncio.wait_for(ended.wait(), 10)

    assert time.monotonic() - killed < 0.3


async def test_an_end_before_the_watch_began_is_told_too(
    context: Context, launch: Callable[..., Any], tmp_path: Path
) -> None:
    running = launch(*SLEEPER)
    file = tmp_path / "service.pid"
    file.write_text(str(running.pid))
    facts = (await ask(context, pid_file=str(file))).process
    assert facts is not None
    running.kill()
    running.wait()

    ended = asyncio.Event()
    ProcessEnd(facts, ended.set)

    await asyncio.wait_for(ended.wait(), 10)
