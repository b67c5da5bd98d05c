"""The command probe on real programs, well-behaved and hostile ones."""

import asyncio
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from exporter.kinds.command import CommandProbe
from exporter.observation import Outcome, Reason
from exporter.probes import command
from exporter.probes.command_metrics import NoMetricsError, read_metrics
from exporter.probes.context import COMMANDS_AT_ONCE, Context, Note, Tools

LIMIT = 0.6


async def ask(context: Context, *argv: str, **how: Any) -> Outcome:
    return await command.probe(CommandProbe.model_validate({"command": argv, **how}), context)


def python(code: str) -> tuple[str, str, str]:
    return sys.executable, "-c", code


def shell(code: str) -> tuple[str, str, str]:
    return "/bin/sh", "-c", code


@pytest.fixture
def hurried(tools: Tools) -> Context:
    return Context(timeout=LIMIT, tools=tools)


def names_of_children(process: psutil.Process) -> list[str]:
    names = []
    for child in process.children():
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            names.append(child.name())
    return names


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    ("code", "how", "reason", "detail"),
    [
        ("exit 0", {}, None, ""),
        ("exit 3", {}, Reason.EXIT, "exit code 3"),
        ("exit 3", {"expect": {"exit": [0, 3]}}, None, ""),
        ("exit 0", {"expect": {"exit": 3}}, Reason.EXIT, "exit code 0"),
        ("echo one; echo two >&2; exit 1", {}, Reason.EXIT, "exit code 1: two"),
        ("echo one; exit 1", {}, Reason.EXIT, "exit code 1: one"),
        ("kill -SEGV $$", {}, Reason.EXIT, "ended by signal SIGSEGV"),
        ("echo password=hunter-22 >&2; exit 1", {}, Reason.EXIT, "exit code 1: password=***"),
        ("echo all is well", {"expect": {"output": "^all .* well\\s"}}, None, ""),
        (
            "echo broken",
            {"expect": {"output": "well"}},
            Reason.ANSWER,
            "the expected text is not in the output",
        ),
    ],
)
async def test_a_command_is_judged_by_its_end(
    context: Context, code: str, how: dict[str, Any], reason: Reason | None, detail: str
) -> None:
    outcome = await ask(context, *shell(code), **how)

    assert (outcome.reason, outcome.detail) == (reason, detail)


@pytest.mark.parametrize(
    ("code", "reason", "detail"),
    [
        ("echo 'OK - fine | t=3'; exit 0", None, "OK - fine"),
        ("echo 'WARNING - slow'; exit 1", None, "WARNING - slow"),
        ("echo 'CRITICAL - dead'; exit 2", Reason.EXIT, "CRITICAL - dead"),
        ("echo 'no route'; exit 3", Reason.INTERNAL, "the check itself failed: no route"),
        ("exit 127", Reason.INTERNAL, "the check itself failed: exit code 127"),
        ("kill -KILL $$", Reason.INTERNAL, "the check itself failed: ended by signal SIGKILL"),
    ],
)
async def test_a_check_plugin_is_judged_by_its_own_codes(
    context: Context, code: str, reason: Reason | None, detail: str
) -> None:
    outcome = await ask(context, *shell(code), nagios=True)

    assert (outcome.reason, outcome.detail) == (reason, detail)


async def test_a_program_that_cannot_run_is_no_evidence(context: Context, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")

    details = [
        (await ask(context, "/no/such/program")),
        (await ask(context, "true", cwd="/no/such/folder")),
        (await ask(context, str(plain))),
        (await ask(context, "true", user="nobody-of-that-name")),
    ]

    assert [(outcome.reason, outcome.detail) for outcome in details] == [
        (Reason.INTERNAL, "there is no program /no/such/program"),
        (Reason.INTERNAL, "there is no folder /no/such/folder"),
        (Reason.INTERNAL, f"{plain} cannot be run: Permission denied"),
        (Reason.INTERNAL, "there is no user nobody-of-that-name"),
    ]


async def test_a_program_sees_its_own_environment_only(
    context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_" + "PASSWORD", "pass" + "word-1")
    file = tmp_path / "seen"
    code = f"env > {file}; pwd >> {file}; cat >> {file}"

    outcome = await ask(context, *shell(code), env={"MODE": "night; $(x)"}, cwd=str(tmp_path))

    seen = set(file.read_text().splitlines())
    assert outcome.reason is None
    assert {"MODE=night; $(x)", "LANG=C.UTF-8", str(tmp_path)} <= seen
    assert {line.partition("=")[0] for line in seen} <= {
        "MODE",
        "LANG",
        "PATH",
        "PWD",
        "SHLVL",
        "_",
        str(tmp_path),
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become others")
async def test_a_program_runs_as_another_user_with_that_user_s_groups_only(context: Context) -> None:
    pattern = r"uid=65534\(nobody\) gid=65534\(nogroup\) groups=65534\(nogroup\)\s*$"

    assert (await ask(context, "id", user="nobody", expect={"output": pattern})).reason is None


async def test_words_stay_words(context: Context, tmp_path: Path) -> None:
    outcome = await ask(context, "test", "$(touch x); *", "=", "$(touch x); *", cwd=str(tmp_path))

    assert outcome.reason is None
    assert not (tmp_path / "x").exists()


async def test_a_program_that_does_not_end_is_ended_with_its_children(
    hurried: Context, tmp_path: Path, until: Any
) -> None:
    file = tmp_path / "pids"

    outcome = await ask(hurried, *shell(f"sleep 60 & echo $! $$ > {file}; echo waiting >&2; wait"))

    assert (outcome.reason, outcome.detail) == (Reason.TIMEOUT, "no end within 0.6 s: waiting")
    for pid in file.read_text().split():
        await until(lambda pid=pid: ended(int(pid)))


async def test_a_program_that_ignores_sigterm_is_killed(hurried: Context, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    began = time.monotonic()

    outcome = await ask(hurried, *shell(f"trap '' TERM; echo $$ > {file}; while :; do sleep 0.1; done"))

    assert outcome.reason is Reason.TIMEOUT
    assert time.monotonic() - began < LIMIT + 2 * command.GRACE + command.LAST_WORDS
    assert ended(int(file.read_text()))


async def test_a_child_that_keeps_the_output_open_does_not_hold_the_probe(
    context: Context, tmp_path: Path, until: Any
) -> None:
    file = tmp_path / "pid"
    began = time.monotonic()

    outcome = await ask(
        context,
        *shell(f"sleep 60 & echo $! > {file}; echo done"),
        expect={"output": "done"},
    )

    assert outcome.reason is None
    assert time.monotonic() - began < 1.5
    await until(lambda: ended(int(file.read_text())))


async def test_a_child_in_a_session_of_its_own_does_not_hold_the_probe(
    context: Context, tmp_path: Path, binary: Callable[[str], str]
) -> None:
    file = tmp_path / "pid"
    apart = f"{binary('setsid')} sh -c 'echo $$ > {file}; exec sleep 60' &"
    code = f"{apart} until test -s {file}; do :; done; echo done"
    began = time.monotonic()
    try:
        outcome = await ask(context, *shell(code), expect={"output": "done"})

        assert outcome.reason is None
        assert time.monotonic() - began < 2
    finally:
        os.kill(int(file.read_text()), signal.SIGKILL)  # the only kind that lives on


async def test_a_flood_of_output_costs_bounded_memory_and_leaves_the_loop_free(hurried: Context) -> None:
    process = psutil.Process()
    lags: list[float] = []

    async def tick() -> None:
        while True:
            due = asyncio.get_running_loop().time() + 0.01
            await asyncio.sleep(0.01)
            lags.append(asyncio.get_running_loop().time() - due)

    ticking = asyncio.create_task(tick())
    before, used = process.memory_info().rss, sum(process.cpu_times()[:2])
    outcome = await ask(hurried, "yes")
    ticking.cancel()

    assert outcome.reason is Reason.TIMEOUT
    assert process.memory_info().rss - before < 20 * 1024 * 1024
    assert sum(process.cpu_times()[:2]) - used < 0.5 * LIMIT
    assert sorted(lags)[len(lags) // 2] < 0.1


async def test_more_output_than_is_kept_does_not_block_the_program(context: Context) -> None:
    flood = python("import sys; sys.stdout.write('x' * 3_000_000 + 'end'); sys.stderr.write('e' * 100_000)")

    assert (await ask(context, *flood)).reason is None
    late = await ask(context, *flood, expect={"output": "end"})

    assert (late.reason, late.detail) == (
        Reason.ANSWER,
        "the expected text is not in the first 65536 bytes of the output",
    )


async def test_only_so_many_programs_run_at_once(context: Context, tmp_path: Path) -> None:
    code = f"cd {tmp_path}; touch running.$$; ls running.* | wc -l > seen.$$; sleep 0.1; rm running.$$"

    outcomes = await asyncio.gather(*(ask_anew(context, *shell(code)) for _ in range(20)))

    assert [outcome.reason for outcome in outcomes] == [None] * 20
    most = most_seen(tmp_path)
    assert 2 <= most <= COMMANDS_AT_ONCE


async def test_no_handle_of_others_is_closed(context: Context) -> None:
    taken: list[int] = []
    lost: list[str] = []
    over = threading.Event()

    def take_and_return() -> None:
        """Open handles and close them, as the start of another program does beside us."""
        while not over.is_set():
            pair = os.pipe()
            for handle in pair:
                try:
                    os.fstat(handle)
                    os.close(handle)
                except OSError as error:
                    lost.append(str(error))
            taken.extend(pair)

    others = [threading.Thread(target=take_and_return) for _ in range(2)]
    for other in others:
        other.start()
    try:
        outcomes = [
            outcome
            for _ in range(40)
            for outcome in await asyncio.gather(*(ask_anew(context, *shell("echo x")) for _ in range(4)))
        ]
    finally:
        over.set()
        for other in others:
            other.join()

    assert taken
    assert lost == []
    assert {(outcome.reason, outcome.detail) for outcome in outcomes} == {(None, "")}


def most_seen(folder: Path) -> int:
    return max(int(file.read_text()) for file in folder.glob("seen.*"))


async def ask_anew(context: Context, *argv: str) -> Outcome:
    """Ask as a probe of its own, so that it waits for the others' turns only."""
    return await ask(Context(timeout=10, tools=context.tools), *argv)


async def test_a_command_whose_turn_does_not_come_is_no_evidence(hurried: Context) -> None:
    for _ in range(COMMANDS_AT_ONCE):
        await hurried.tools.commands.acquire()

    outcome = await ask(hurried, "true")

    assert (outcome.reason, outcome.detail) == (
        Reason.INTERNAL,
        "too many commands ran at the same time; this one did not",
    )


async def test_a_probe_that_is_given_up_leaves_no_program(
    context: Context, tmp_path: Path, until: Any
) -> None:
    file = tmp_path / "pid"
    task = asyncio.create_task(ask(context, *shell(f"echo $$ > {file}; sleep 60")))
    await until(lambda: file.exists() and file.read_text())

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ended(int(file.read_text()))
    assert not context.tools.commands.locked()


async def test_a_probe_that_is_given_up_ends_the_whole_group_at_once(
    tools: Tools, tmp_path: Path, until: Any
) -> None:
    pids = tmp_path / "pids"
    deaf = f"trap '' TERM; sleep 60 & echo $$ $! > {pids}; wait; sleep 60"
    task = asyncio.create_task(ask(Context(timeout=60, tools=tools), *shell(deaf)))
    await until(lambda: pids.exists() and len(pids.read_text().split()) == 2)

    began = time.monotonic()
    task.cancel()
    await asyncio.wait([task])

    assert time.monotonic() - began < command.GRACE / 2
    # The kernel has been told; those that nobody waits for still need a moment to end.
    await until(lambda: all(ended(int(pid)) for pid in pids.read_text().split()))


async def test_a_probe_that_is_given_up_while_its_program_is_ended_leaves_none(
    tools: Tools, tmp_path: Path, until: Any
) -> None:
    told = tmp_path / "told"
    deaf = f"trap 'echo $$ > {told}' TERM; while :; do sleep 0.01; done"
    task = asyncio.create_task(ask(Context(timeout=0.2, tools=tools), *shell(deaf)))
    await until(lambda: told.exists() and told.read_text())

    task.cancel()
    await asyncio.wait([task])

    assert ended(int(told.read_text()))


async def test_a_probe_that_is_given_up_while_its_program_starts_leaves_none(
    tools: Tools, until: Any
) -> None:
    me = psutil.Process()
    for turns in range(60):  # of the loop: before its thread, in it, and after it
        context = Context(timeout=60, tools=tools)
        task = asyncio.create_task(ask(context, "sleep", "60"))
        for _ in range(turns):
            await asyncio.sleep(0.0002)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=10)
        assert done, f"given up after {turns} turns, it went on"

    await until(lambda: "sleep" not in names_of_children(me))
    assert not tools.commands.locked()


async def test_no_handles_and_no_zombies_are_left(hurried: Context) -> None:
    me = psutil.Process()
    await ask(hurried, "true")
    before = me.num_fds()

    for argv in (("true",), ("false",), ("/no/such/program",), ("sleep", "60"), shell("exec sleep 60 &")):
        await ask(hurried, *argv)

    assert me.num_fds() == before
    assert [child for child in me.children() if child.status() == psutil.STATUS_ZOMBIE] == []


def test_it_works_on_the_loop_that_the_exporter_uses() -> None:
    async def main() -> list[Reason | None]:
        tools = Tools()
        context = Context(timeout=LIMIT, tools=tools)
        try:
            argvs = (("true",), ("false",), ("sleep", "60"), shell("yes | head -c 1000000"))
            return [(await ask(context, *argv)).reason for argv in argvs]
        finally:
            await tools.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == [None, Reason.EXIT, Reason.TIMEOUT, None]


async def test_each_step_is_noted_without_secrets(tools: Tools) -> None:
    notes: list[Note] = []
    secret = "pass" + "word-1"

    await ask(Context(timeout=2, tools=tools, notes=notes), "echo", "--password", secret)

    texts = [note.text for note in notes]
    assert texts[0] == "running echo --password ***"
    assert not [text for text in texts if secret in text]


METRICS = """
# HELP jobs_waiting Jobs that wait.
# TYPE jobs_waiting gauge
jobs_waiting{queue="mail"} 3
jobs_waiting{queue="sms"} 0
# TYPE jobs_done_total counter
jobs_done_total 12
temperature 21.5
sent_total 4
# TYPE odd histogram
odd_bucket{le="+Inf"} 1
odd_sum 1
odd_count 1
"""


async def test_a_command_tells_metrics_of_its_own(tools: Tools) -> None:
    notes: list[Note] = []
    context = Context(timeout=2, tools=tools, notes=notes)

    outcome = await ask(context, "echo", METRICS, metrics=True)

    assert outcome.reason is None
    told = [
        (reading.measure.name, reading.measure.type, reading.measure.labels, reading.labels, reading.value)
        for reading in outcome.readings
    ]
    assert told == [
        ("command_jobs_waiting", "gauge", ("queue",), ("mail",), 3),
        ("command_jobs_waiting", "gauge", ("queue",), ("sms",), 0),
        ("command_jobs_done", "counter", (), (), 12),
        ("command_temperature", "gauge", (), (), 21.5),
        ("command_sent", "counter", (), (), 4),
    ]
    assert outcome.readings[0].measure.help == "Jobs that wait."
    assert "odd is neither a gauge nor a counter and is not exposed" in [note.text for note in notes]


async def test_metrics_are_told_also_when_the_command_fails(context: Context) -> None:
    outcome = await ask(context, *shell("echo jobs 3; echo broken >&2; exit 1"), metrics=True)

    assert (outcome.reason, outcome.detail) == (Reason.EXIT, "exit code 1: broken")
    assert [reading.value for reading in outcome.readings] == [3]


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("nonsense", Reason.PROTOCOL, "the metrics cannot be read"),
        ('a{b="1} 2', Reason.PROTOCOL, "the metrics cannot be read"),
        ("a x", Reason.PROTOCOL, "the metrics cannot be read"),
        ("a 1\na 2", Reason.PROTOCOL, "a metric comes twice with the same labels"),
        ('a{x="1",y="2"} 1\na{y="2",x="1"} 1', Reason.PROTOCOL, "a metric comes twice with the same labels"),
        ("# TYPE a counter\na 1\nb 1\n# TYPE a gauge\na 1", Reason.PROTOCOL, "a metric comes twice"),
        ("a 1 1700000000000", Reason.PROTOCOL, "a has a timestamp; the exporter gives that itself"),
        ('a{target="x"} 1', Reason.PROTOCOL, "a has the label target, which it must not have"),
        ('a{probe="x"} 1', Reason.PROTOCOL, "a has the label probe, which it must not have"),
        ('a{job="x"} 1', Reason.PROTOCOL, "a has the label job, which it must not have"),
        ('a{instance="x"} 1', Reason.PROTOCOL, "a has the label instance, which it must not have"),
        ('a{__name="x"} 1', Reason.PROTOCOL, "the metrics cannot be read"),
        ('{"a.b"} 1', Reason.PROTOCOL, "a.b is no name for a gauge"),
        ('a{"x.y"="1"} 1', Reason.PROTOCOL, "a has the label x.y, which it must not have"),
        ("# TYPE a_total gauge\na_total 1", Reason.PROTOCOL, "a_total is no name for a gauge"),
        ("a" * 101 + " 1", Reason.PROTOCOL, "is no name for a gauge"),
        ('a{b="' + "x" * 201 + '"} 1', Reason.PROTOCOL, "the label b of a is longer than 200 characters"),
        (
            "a{" + ",".join(f'l{n}="x"' for n in range(17)) + "} 1",
            Reason.PROTOCOL,
            "a has more than 16 labels",
        ),
        ("\n".join(f"a{n} 1" for n in range(201)), Reason.TOO_LARGE, "more than 200 metrics"),
        ("# x\n" * 3000, Reason.TOO_LARGE, "more than 200 metrics"),
    ],
)
def test_text_that_is_no_metrics_is_the_command_s_failure(text: str, reason: Reason, detail: str) -> None:
    with pytest.raises(NoMetricsError) as caught:
        read_metrics(text.encode())

    assert caught.value.reason is reason
    assert detail in str(caught.value)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("echo nonsense", Reason.PROTOCOL),
        ("printf '\\377 1\\n'", Reason.PROTOCOL),
        ("yes 'a 1' | head -c 100000", Reason.TOO_LARGE),
    ],
)
async def test_bad_metrics_fail_the_probe(context: Context, code: str, reason: Reason) -> None:
    outcome = await ask(context, *shell(code), metrics=True)

    assert (outcome.reason, outcome.readings) == (reason, ())


@pytest.mark.parametrize(
    "want",
    [
        ("os.pidfd_open", OSError(errno.EMFILE, "Too many open files")),
        ("threading.Thread.start", RuntimeError()),
    ],
)
async def test_a_machine_without_handles_or_threads_is_no_evidence_and_leaves_no_program(
    context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, until: Any, want: tuple[str, Exception]
) -> None:
    file = tmp_path / "pid"
    lost, error = want

    def refuse(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(lost, refuse)
        outcome = await ask(context, *shell(f"echo $$ > {file}; sleep 60"))
    again = await ask(context, "true")

    assert outcome.reason is Reason.INTERNAL
    assert outcome.detail.startswith("the program cannot be watched: ")
    assert again.reason is None
    await until(lambda: not file.exists() or not file.read_text() or ended(int(file.read_text())))
