"""The process probe on real processes."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from exporter.kinds.process import ProcessProbe
from exporter.observation import Outcome, ProcessStatus, Reason
from exporter.probes import listening, process, procfs
from exporter.probes.context import Context, ProcessMemory, Tools
from exporter.probes.ending import ProcessEnd
from exporter.probes.listening import listening_inodes, read_tables

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


async def test_a_pid_file_that_is_written_anew_takes_no_known_process_away(
    context: Context, launch: Callable[..., Any], tmp_path: Path
) -> None:
    running = launch(*SLEEPER)
    file = tmp_path / "service.pid"
    file.write_text(str(running.pid))
    assert (await ask(context, pid_file=str(file))).reason is None

    file.unlink()
    between = await ask(context, pid_file=str(file))
    file.write_text(str(running.pid))
    after = await ask(context, pid_file=str(file))
    file.unlink()
    running.kill()
    running.wait()
    ended = await ask(context, pid_file=str(file))

    assert (between.reason, between.detail) == (
        Reason.PID_FILE,  # which a second look has to confirm
        f"process {running.pid} is there, but the pid file is missing",
    )
    assert after.reason is None
    assert ended.reason is Reason.GONE


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


async def test_no_command_line_of_a_stranger_holds_the_look(
    context: Context, launch: Callable[..., Any], until: Any
) -> None:
    stranger = launch(*SLEEPER, "java-jarapp" * 1400)
    await until(lambda: "java-jarapp" in procfs.command_line(stranger.pid))

    started = time.monotonic()
    outcome = await ask(context, match=r"^nothing java.*-jar.*app.*\.jar|java.*-jar.*app.*\.jar$")

    assert outcome.reason is Reason.GONE
    assert time.monotonic() - started < 2


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


MASTER_AND_WORKERS = """
import os, socket, sys, time
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
for _ in range(int(sys.argv[2]) - 1):
    if os.fork() == 0:
        break
time.sleep(60)
"""
Forked = Callable[[int, int], Awaitable[Any]]


@pytest.fixture
def forked(context: Context, launch: Callable[..., Any], until: Any) -> Iterator[Forked]:
    """Start so many processes that share a port, and wait until all are seen; they end with the test."""
    groups: list[int] = []

    async def start(port: int, size: int) -> Any:
        code = (sys.executable, "-c", MASTER_AND_WORKERS, str(port), str(size))
        master = launch(*code, process_group=0)
        groups.append(master.pid)

        async def all_there() -> bool:
            facts = (await ask(Context(timeout=2.0, tools=context.tools), port=port)).process
            return facts is not None and facts.group_size == size

        await until(all_there)
        return master

    yield start
    for group_id in groups:
        with suppress(ProcessLookupError):
            os.killpg(group_id, signal.SIGKILL)


async def test_processes_that_share_a_port_are_one_service(
    context: Context, forked: Forked, free_port: Callable[[], int]
) -> None:
    port = free_port()
    master = await forked(port, 4)

    facts = (await ask(context, port=port)).process

    assert facts is not None
    parts = [psutil.Process(master.pid), *psutil.Process(master.pid).children()]
    assert (facts.pid, facts.group_size, facts.threads) == (master.pid, 4, 4)
    assert facts.resident_bytes == pytest.approx(sum(part.memory_info().rss for part in parts), rel=0.05)
    assert facts.open_fds == sum(part.num_fds() for part in parts)
    assert facts.max_fds == sum(part.rlimit(psutil.RLIMIT_NOFILE)[0] for part in parts)
    assert facts.start_time == pytest.approx(parts[0].create_time(), abs=1.5)


async def test_the_worst_of_several_processes_shows_in_the_ratio_of_handles(
    context: Context, launch: Callable[..., Any], until: Any
) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    code = "import resource, sys, time; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)); "
    opening = (
        code + "files = [open('/dev/null') for _ in range(80)]; print('ready', flush=True); time.sleep(60)"
    )
    for _ in range(3):
        launch(*SLEEPER, marker)
    nearly_full = launch(sys.executable, "-c", opening, marker, stdout=subprocess.PIPE)
    nearly_full.stdout.readline()

    facts = (await ask(context, match=marker)).process

    assert facts is not None
    assert facts.group_size == 4
    assert facts.worst_fd_ratio == pytest.approx(psutil.Process(nearly_full.pid).num_fds() / 100)


async def test_cpu_time_never_falls_when_one_of_several_processes_ends(
    context: Context, launch: Callable[..., Any], until: Any
) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    launch(*SLEEPER, marker)
    busy = launch(sys.executable, "-c", "while True: pass", marker)

    async def used() -> float | None:
        facts = (await ask(context, match=marker)).process
        spent = facts.cpu_seconds if facts else None
        return spent if spent and spent > 0.5 else None

    before = await until(used)
    busy.kill()
    busy.wait()
    after = [(await ask(context, match=marker)).process for _ in range(2 * process.RECOUNT_AFTER)]

    assert [facts.group_size for facts in after if facts][-1] == 1
    assert min(facts.cpu_seconds or 0.0 for facts in after if facts) >= before


async def test_a_pid_file_stands_for_a_process_and_its_descendants(
    context: Context, forked: Forked, free_port: Callable[[], int], tmp_path: Path
) -> None:
    file = tmp_path / "service.pid"
    master = await forked(free_port(), 3)
    file.write_text(str(master.pid))

    facts = (await ask(context, pid_file=str(file))).process
    again = (await ask(context, pid_file=str(file))).process

    assert facts is not None
    assert (facts.pid, facts.group_size) == (master.pid, 3)
    assert again is not None
    assert again.group_size == 3


@pytest.mark.parametrize(
    ("count", "reason", "detail"),
    [
        ({"at_least": 2}, None, ""),
        ({"at_least": 3}, Reason.LIMIT, "2 processes, at least 3 expected"),
        ({"at_most": 1}, Reason.LIMIT, "2 processes, at most 1 expected"),
        ({"at_least": 2, "at_most": 2}, None, ""),
    ],
)
async def test_too_few_or_too_many_processes_are_a_failure(
    context: Context, launch: Callable[..., Any], count: dict[str, int], reason: Reason | None, detail: str
) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    for _ in range(2):
        launch(*SLEEPER, marker)

    outcome = await ask(context, match=marker, count=count)

    assert (outcome.reason, outcome.detail) == (reason, detail)


async def test_a_process_too_few_is_noticed_at_once_and_so_is_its_successor(
    context: Context, launch: Callable[..., Any]
) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    launch(*SLEEPER, marker)
    second = launch(*SLEEPER, marker)
    how: dict[str, Any] = {"match": marker, "count": {"at_least": 2}}
    before = await ask(context, **how)

    second.kill()
    second.wait()
    fewer = await ask(context, **how)
    launch(*SLEEPER, marker)
    after = await ask(context, **how)

    assert [outcome.reason for outcome in (before, fewer, after)] == [None, Reason.LIMIT, None]


async def test_a_main_process_in_the_place_of_another_is_a_restart(
    context: Context, serve: Callable[[int], Any], free_port: Callable[[], int]
) -> None:
    port = free_port()
    restarts = []
    for _ in range(3):
        server = serve(port)
        for _ in range(2):
            facts = (await ask(context, port=port)).process
            assert facts is not None
            restarts.append(facts.restarts)
        server.kill()
        server.wait()
        assert (await ask(context, port=port)).reason is Reason.GONE

    assert restarts == [0, 0, 1, 1, 2, 2]


CARELESS = """
import os, time
for _ in range(3):
    os.fork() or os._exit(0)
print(1, flush=True)
time.sleep(60)
"""


async def test_children_that_nobody_waited_for_are_counted(
    context: Context, launch: Callable[..., Any], until: Any
) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    parent = launch(sys.executable, "-c", CARELESS, marker, stdout=subprocess.PIPE)
    parent.stdout.readline()
    children = psutil.Process(parent.pid).children()
    await until(lambda: all(child.status() == psutil.STATUS_ZOMBIE for child in children))
    facts = (await ask(context, match=marker)).process

    assert facts is not None
    assert (facts.zombies, facts.group_size) == (3, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become others")
async def test_processes_of_other_users_are_not_the_service_s(
    context: Context,
    launch: Callable[..., Any],
    serve: Callable[[int], Any],
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    marker, port = f"marker-{os.getpid()}-{time.monotonic_ns()}", free_port()
    sleeper = ("/bin/sh", "-c", "sleep 60; :", marker)
    mine, theirs = launch(*sleeper), launch(*sleeper, user="nobody")
    serve(port)
    file = tmp_path / "service.pid"
    file.write_text(str(mine.pid))

    async def pid_of(**how: Any) -> int | None:
        facts = (await ask(Context(timeout=2, tools=context.tools), **how)).process
        return facts.pid if facts else None

    assert await pid_of(match=marker, user="nobody") == theirs.pid
    assert await pid_of(match=marker, user=0) == mine.pid
    assert await pid_of(pid_file=str(file), user="root") == mine.pid
    strangers = [
        await ask(Context(timeout=2, tools=context.tools), user="nobody", **how)
        for how in ({"port": port}, {"pid_file": str(file)}, {"match": f"{marker}-none"})
    ]
    assert [(outcome.reason, outcome.detail) for outcome in strangers] == [
        (Reason.GONE, f"port {port} is served by a process of another user"),
        (Reason.GONE, f"process {mine.pid} of the pid file is another user's"),
        (Reason.GONE, "no process of the user nobody matches"),
    ]


async def test_a_user_that_this_machine_does_not_have_is_no_evidence(
    context: Context, launch: Callable[..., Any]
) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    launch(*SLEEPER, marker)

    outcome = await ask(context, match=marker, user="nobody-of-that-name")

    assert (outcome.reason, outcome.detail) == (
        Reason.INTERNAL,
        "there is no user 'nobody-of-that-name' on this machine",
    )


async def test_a_process_that_may_be_hidden_from_us_is_not_called_gone(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procfs, "others_are_hidden", lambda: True)

    outcome = await ask(context, match=f"marker-{os.getpid()}-{time.monotonic_ns()}-none")

    assert outcome.reason is Reason.INTERNAL


BECOME_NOBODY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from exporter.probes import procfs
before = procfs.others_are_hidden()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(before, procfs.others_are_hidden())
"""


@pytest.mark.parametrize(("option", "hidden"), [("invisible", True), ("noaccess", True), ("off", False)])
def test_a_proc_that_hides_others_is_known(option: str, hidden: bool, binary: Callable[[str], str]) -> None:
    inside = f'mount -t proc -o hidepid={option} proc /proc && "$@"; exit'  # so that process 1 is root's
    argv = (binary("unshare"), "--mount", "--pid", "--fork", "sh", "-c", inside, "-")
    source = Path(procfs.__file__).parents[2]
    asked = [*argv, sys.executable, "-c", BECOME_NOBODY, str(source)]
    done = subprocess.run(asked, capture_output=True, check=False, text=True)
    if "mount" in done.stderr or "unshare" in done.stderr or os.geteuid() != 0:
        pytest.skip("needs root and the right to mount")

    assert done.stdout.split() == ["False", str(hidden)], done.stderr


async def test_races_with_ending_processes_never_raise(context: Context, launch: Callable[..., Any]) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    launch("/bin/sh", "-c", "while :; do /bin/true; done", marker)

    for _ in range(200):
        outcome = await ask(Context(timeout=5, tools=context.tools), match=marker)
        assert outcome.reason is None


async def test_a_clock_that_is_set_anew_makes_no_restart(
    context: Context, launch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    launch(*SLEEPER, marker)
    before = (await ask(context, match=marker)).process

    monkeypatch.setattr(procfs, "time", lambda: time.time() + 7200)
    after = (await ask(context, match=marker)).process
    monkeypatch.undo()
    await ask(context, match=marker)

    assert before is not None
    assert after is not None
    assert after.start_time == pytest.approx(before.start_time + 7200, abs=2)
    assert (after.restarts, after.start_ticks) == (0, before.start_ticks)


async def test_a_clock_that_is_set_forward_makes_no_stranger_of_the_process_of_a_pid_file(
    context: Context, launch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    running = launch(*SLEEPER)
    file = tmp_path / "service.pid"
    file.write_text(str(running.pid))
    before = await ask(context, pid_file=str(file))

    monkeypatch.setattr(procfs, "time", lambda: time.time() + 7200)
    after = await ask(context, pid_file=str(file))
    stranger = await ask(Context(timeout=2, tools=context.tools), pid_file=str(file))
    monkeypatch.undo()
    await ask(context, pid_file=str(file))

    assert (before.reason, after.reason) == (None, None)
    assert stranger.reason is Reason.GONE, "who has not seen it before cannot know"


async def test_the_limit_of_the_address_space_is_a_limit(
    context: Context, launch: Callable[..., Any]
) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    code = (
        "import resource, time; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, -1)); print(1, flush=True)"
    )
    running = launch(sys.executable, "-c", f"{code}; time.sleep(60)", marker, stdout=subprocess.PIPE)
    running.stdout.readline()

    facts = (await ask(context, match=marker)).process

    assert facts is not None
    assert (facts.memory_limit_bytes or 0) <= 1 << 30


@pytest.mark.parametrize("kind", [socket.AF_INET, socket.AF_INET6])
def test_the_kernel_and_its_tables_name_the_same_listening_sockets(kind: socket.AddressFamily) -> None:
    with socket.create_server(("", 0), family=kind) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("localhost" if kind is socket.AF_INET else "::1", port)):
            found = listening_inodes(port)
            assert found == read_tables(port) == {str(os.fstat(listening.fileno()).st_ino)}
    assert listening_inodes(port) == read_tables(port) == frozenset()


def test_a_kernel_that_refuses_to_tell_is_read_from_its_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> frozenset[str]:
        raise PermissionError

    monkeypatch.setattr(listening, "_ask_kernel", refuse)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listening_inodes(server.getsockname()[1]) == {str(os.fstat(server.fileno()).st_ino)}


async def test_a_port_of_a_process_that_we_may_not_look_at_is_served_and_searched_seldom(
    context: Context,
    serve: Callable[[int], Any],
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port, walks = free_port(), []
    serve(port)

    def closed(pid: int) -> Iterator[str]:
        walks.append(pid)
        return iter(())

    monkeypatch.setattr(procfs, "links", closed)
    outcomes = [await ask(context, port=port) for _ in range(process.RECOUNT_AFTER)]
    walked = walks.count(os.getpid())
    monkeypatch.undo()
    found = await ask(context, port=port)

    assert {(outcome.reason, outcome.detail, outcome.process) for outcome in outcomes} == {
        (None, f"port {port} is served by a process that cannot be looked at", None)
    }
    assert walked == 1
    assert found.process is not None


async def test_a_machine_without_threads_is_no_evidence(
    context: Context, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        blind = await ask(context, port=free_port())
    after = await ask(context, port=free_port())

    assert (blind.reason, blind.detail) == (
        Reason.INTERNAL,
        "processes cannot be looked for: no thread can be started",
    )
    assert after.reason is Reason.GONE


@pytest.mark.parametrize("how", ["match", "pid_file", "user"])
async def test_a_process_that_no_handle_was_left_to_look_at_is_not_gone(
    context: Context,
    launch: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    running = launch(*SLEEPER, marker)
    file = tmp_path / "service.pid"
    file.write_text(str(running.pid))
    ways: dict[str, dict[str, Any]] = {
        "match": {"match": marker},
        "pid_file": {"pid_file": str(file)},
        "user": {"match": marker, "user": os.getuid()},
    }
    opened = os.open

    def none_left(path: str, *more: Any) -> int:
        closed = {"match": "cmdline", "pid_file": "stat", "user": "status"}[how]
        if path == f"/proc/{running.pid}/{closed}":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(path, *more)

    monkeypatch.setattr(os, "open", none_left)
    outcome = await ask(context, **ways[how])

    assert (outcome.reason, outcome.detail) == (
        Reason.INTERNAL,
        "processes cannot be looked for: Too many open files",
    )


async def test_the_holder_of_a_port_that_no_handle_was_left_to_look_at_is_not_another_user_s(
    context: Context,
    serve: Callable[[int], Any],
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    server = serve(port)
    listed, looks = os.listdir, []

    def none_left(path: str) -> list[str]:
        if path == f"/proc/{server.pid}/fd":
            looks.append(path)
            if len(looks) == 1:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return listed(path)

    monkeypatch.setattr(os, "listdir", none_left)

    assert (await ask(context, port=port, user=os.getuid())).reason is Reason.INTERNAL


async def test_a_watch_that_no_handle_was_left_for_keeps_none(
    context: Context, launch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    launch(*SLEEPER, marker)
    facts = (await ask(context, match=marker)).process
    assert facts is not None

    close = os.close

    def none_left(_pid: int) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("exporter.probes.ending.read_stat", none_left)
    closed: list[int] = []

    def note_close(handle: int) -> None:
        closed.append(handle)
        close(handle)

    monkeypatch.setattr(os, "close", note_close)
    with pytest.raises(OSError, match="Too many open files"):
        ProcessEnd(facts, lambda: None)

    assert len(closed) == 1


MAIN_THREAD_ENDS = """
import ctypes, os, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
"""


async def test_a_process_lives_as_long_as_one_of_its_threads(
    context: Context, launch: Callable[..., Any], tmp_path: Path, until: Any
) -> None:
    running = launch(sys.executable, "-c", MAIN_THREAD_ENDS)
    file = tmp_path / "service.pid"
    file.write_text(str(running.pid))
    await until(lambda: (stat := procfs.read_stat(running.pid)) is not None and stat.state == "Z")

    outcome = await ask(context, pid_file=str(file))

    assert outcome.reason is None
    assert outcome.process is not None
    assert outcome.process.status is ProcessStatus.RUNNING
