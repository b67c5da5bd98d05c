"""Ends, deaths, forks and servers that fork: real processes."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.library.core.conftest import Program, Recorder

Run = Callable[..., Program]
AWAY = "http://127.0.0.1:1"  # nobody listens there


def messages(recorder: Recorder) -> list[str]:
    return sorted(event.message for event in recorder.events)


def test_what_is_reported_last_is_sent_before_the_end(recorder: Recorder, run: Run) -> None:
    status, _, err = run("""
from soulfra_monitor import ErrorMonitor
ErrorMonitor().start().report("last words")
""").end()

    assert (status, err) == (0, "")
    assert messages(recorder) == ["last words"]


def test_alike_errors_that_were_only_counted_are_told_at_the_end(recorder: Recorder, run: Run) -> None:
    run("""
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor().start()
for _ in range(1000):
    monitor.report("again")
""").end()

    assert recorder.total == 1000


def test_errors_at_exit_are_sent_whether_their_handler_runs_before_or_after_ours(
    recorder: Recorder, run: Run
) -> None:
    status, _, err = run("""
import atexit
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor()
atexit.register(monitor.report, "registered before")
monitor.start()
atexit.register(monitor.report, "registered after")
""").end()

    assert (status, err) == (0, "")
    assert messages(recorder) == ["registered after", "registered before"]


def test_errors_of_threads_that_outlive_the_main_thread_are_sent(recorder: Recorder, run: Run) -> None:
    run("""
import threading, time
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor().start()
main = threading.main_thread()
def work():
    main.join()
    monitor.report("from a thread")
threading.Thread(target=work).start()
""").end()

    assert messages(recorder) == ["from a thread"]


def test_the_end_of_a_program_whose_remediator_is_away_is_prompt_and_keeps_all(
    recorder: Recorder, run: Run, spool: Path
) -> None:
    code = """
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor().start()
for number in "abc":
    monitor.report(f"kept {number}")
"""
    began = time.monotonic()
    status, _, _ = run(code, SOULFRA_URL=AWAY).end()
    assert status == 0
    assert time.monotonic() - began < 5.0
    assert recorder.taken == []
    assert list(spool.rglob("*.seg"))

    run("""
from soulfra_monitor import ErrorMonitor
import sys
ErrorMonitor().start()
sys.stdin.read()
""")

    recorder.wait(lambda it: it.total == 3)
    assert messages(recorder) == ["kept a", "kept b", "kept c"]


def test_the_end_waits_at_most_two_seconds_for_a_remediator_that_hangs(
    recorder: Recorder, run: Run, spool: Path
) -> None:
    import socket  # noqa: PLC0415 - only here

    with socket.create_server(("127.0.0.1", 0)) as silent:
        program = run(
            """
import atexit, time
from soulfra_monitor import ErrorMonitor
began = []
atexit.register(lambda: print(time.monotonic() - began[0]))
ErrorMonitor().start().report("kept")
began.append(time.monotonic())
""",
            SOULFRA_URL=f"http://127.0.0.1:{silent.getsockname()[1]}",
        )
        _, out, _ = program.end()

    assert float(out) < 2.5
    assert len(list(spool.rglob("*.seg"))) == 1


def test_what_was_spooled_before_a_kill_is_sent_by_the_next_life_exactly_once(
    recorder: Recorder, run: Run, spool: Path
) -> None:
    program = run(
        """
import sys, time
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor().start()
for number in range(10):
    monitor.report(f"error {'abcdefghij'[number]}")
while monitor.stats().spooled < 10:
    time.sleep(0.01)
print("spooled", flush=True)
time.sleep(60)
""",
        SOULFRA_URL=AWAY,
    )
    assert program.line() == "spooled"
    os.kill(program.process.pid, signal.SIGKILL)
    program.end()

    heirs = [run(HEIR) for _ in range(3)]  # several at once: one of them sends it
    recorder.wait(lambda it: it.total >= 10)
    for heir in heirs:
        assert heir.end()[0] == 0

    assert messages(recorder) == [f"error {letter}" for letter in "abcdefghij"]
    assert len({(r.body["sender"]["boot"], r.body["seq"]) for r in recorder.requests}) == len(
        recorder.requests
    )
    assert list(spool.rglob("*.seg")) == []


HEIR = """
import time
from pathlib import Path
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor().start()
deadline = time.monotonic() + 10
while list(Path(monitor.settings.spool).glob("*/*/*.seg")):
    assert time.monotonic() < deadline
    time.sleep(0.05)
"""


def test_a_heir_that_is_killed_while_it_sends_leaves_the_rest_to_the_next(
    recorder: Recorder, run: Run, spool: Path
) -> None:
    first = run(
        """
import time
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor().start()
for number in range(10):
    monitor.report(f"error {'abcdefghij'[number]}")
    before = monitor.stats().spooled
    while monitor.stats().spooled == before:
        time.sleep(0.01)
print("spooled", flush=True)
time.sleep(60)
""",
        SOULFRA_URL=AWAY,
    )
    assert first.line(40) == "spooled"
    first.process.kill()
    heir = run(HEIR)
    killed = False

    def kill_in_the_middle(_: object) -> bool:
        nonlocal killed
        if not killed and len(recorder.requests) > 3:
            killed = True
            heir.process.kill()
            heir.process.wait()
            return True  # taken or not, nobody hears it
        return False

    recorder.take_before_misbehaving = True
    recorder.always = kill_in_the_middle
    recorder.wait(lambda _: killed)

    run(HEIR).end()

    assert recorder.total == 10
    assert messages(recorder) == [f"error {letter}" for letter in "abcdefghij"]
    assert list(spool.rglob("*.seg")) == []


def test_a_full_disk_costs_neither_errors_nor_the_program(recorder: Recorder, run: Run) -> None:
    status, out, _ = run(
        """
import json, resource, time
from dataclasses import asdict
from soulfra_monitor import ErrorMonitor
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
monitor = ErrorMonitor().start()
for number in "abc":
    monitor.report(f"kept {number}")
while monitor.stats().spooled < 3:
    time.sleep(0.01)
stats = monitor.stats()
print(json.dumps([stats.pending, stats.broken]))
""",
        SOULFRA_URL=AWAY,
    ).end()

    assert status == 0
    assert json.loads(out) == [3, {}]


@pytest.mark.parametrize("folder", ["/proc/self/spool", "/dev/null/spool"])
def test_a_spool_that_cannot_be_written_costs_nothing(run: Run, folder: str) -> None:
    status, out, err = run(
        """
import logging, time
from soulfra_monitor import ErrorMonitor
logging.basicConfig()
monitor = ErrorMonitor().start()
monitor.report("kept")
while monitor.stats().spooled < 1:
    time.sleep(0.01)
monitor.stop()
print(monitor.stats().broken)
""",
        SOULFRA_URL=AWAY,
        SOULFRA_SPOOL=folder,
    ).end()

    assert (status, out) == (0, "{}\n")
    assert "kept in memory, not on disk" in err


def test_a_forked_child_tells_its_own_errors_under_its_own_name(recorder: Recorder, run: Run) -> None:
    status, out, err = run("""
import os
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor().start()
monitor.report("parent before")
monitor.flush()
monitor.report("parent pending")
pid = os.fork()
monitor.report("child" if not pid else "parent after")
if not pid:
    assert monitor.stats().seen == 1
    monitor.flush()
    os._exit(0)
print(os.waitpid(pid, 0)[1])
""").end()

    assert (status, out.strip(), err) == (0, "0", "")
    assert messages(recorder) == ["child", "parent after", "parent before", "parent pending"]
    boots = {body["sender"]["boot"]: body["sender"]["pid"] for body in recorder.taken}
    assert len(boots) == 2
    assert len(set(boots.values())) == 2


def test_a_fork_while_threads_report_hangs_nowhere(recorder: Recorder, run: Run) -> None:
    status, out, err = run(
        """
import os, threading, warnings
from soulfra_monitor import ErrorMonitor
warnings.simplefilter("ignore")  # of forks beside threads: these are the program's own
monitor = ErrorMonitor().start()
going = True
def storm():
    while going:
        try:
            raise ValueError("storm")
        except ValueError as error:
            monitor.report(error)
threads = [threading.Thread(target=storm) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(20):
    pid = os.fork()
    if not pid:
        monitor.report("child")
        if not monitor.flush(10):
            print(monitor.stats(), flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        break
going = False
for thread in threads:
    thread.join()
stats = monitor.stats()
assert stats.seen == stats.sent + sum(stats.dropped.values()) + stats.pending, stats
""",
        MONITORING_OVERHEAD_LIMIT="100",
    ).end(60)

    assert (status, out, err) == (0, "", "")
    assert messages(recorder).count("child") == 20


def test_a_fork_with_nothing_to_tell_starts_no_thread(run: Run) -> None:
    status, out, _ = run("""
import os
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor().start()
monitor.report("x")
monitor.flush()
pid = os.fork()
if not pid:
    print(len(os.listdir("/proc/self/task")), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
""").end()

    assert (status, out) == (0, "1\n")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_tell_their_errors(recorder: Recorder, run: Run, method: str) -> None:
    status, _, err = run(
        """
import multiprocessing, sys
from soulfra_monitor import ErrorMonitor, active
def work(number):
    monitor = active() or ErrorMonitor().start()
    monitor.report(f"child {'abc'[number]}")
    monitor.flush()
if __name__ == "__main__":
    ErrorMonitor().start()
    context = multiprocessing.get_context(sys.argv[1])
    children = [context.Process(target=work, args=(number,)) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
""",
        method,
    ).end(60)

    assert (status, err) == (0, "")
    assert messages(recorder) == ["child a", "child b", "child c"]


def test_children_of_multiprocessing_flush_at_their_end(recorder: Recorder, run: Run) -> None:
    status, _, err = run("""
import multiprocessing
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor().start()
child = multiprocessing.get_context("fork").Process(target=monitor.report, args=("last words of a child",))
child.start()
child.join()
""").end()

    assert (status, err) == (0, "")
    assert messages(recorder) == ["last words of a child"]


GUNICORN = """
import os, threading
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor().start()
class Shop:
    def sell(self):
        raise ValueError("no stock")
shop = monitor.add_service("shop", Shop())
def app(environ, start_response):
    try:
        shop.sell()
    except ValueError:
        pass
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.mark.parametrize("preload", [True, False])
def test_workers_of_gunicorn_tell_their_errors_and_calls(
    recorder: Recorder, run: Run, tmp_path: Path, preload: bool
) -> None:
    import http.client  # noqa: PLC0415 - only here

    (tmp_path / "shop_app.py").write_text(GUNICORN)
    program = run(
        """
import sys
from gunicorn.app.wsgiapp import run
sys.argv = ["gunicorn", *sys.argv[1:]]
run()
""",
        *("shop_app:app", "--workers", "2", "--bind", "127.0.0.1:0", "--chdir", str(tmp_path)),
        *(["--preload"] if preload else []),
        PYTHONPATH=f"{os.environ.get('PYTHONPATH', '')}:{Path(__file__).parents[3]}:{tmp_path}",
        SOULFRA_SERVICE="shop",
    )
    assert program.process.stderr is not None
    port = 0
    for line in program.process.stderr:
        if "Listening at" in line:
            port = int(line.split("Listening at: http://127.0.0.1:")[1].split()[0])
            break
    pids: set[str] = set()
    asked = 0
    deadline = time.monotonic() + 20
    while len(pids) < 2 or asked < 50:
        assert time.monotonic() < deadline
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/")
        pids.add(connection.getresponse().read().decode())
        connection.close()
        asked += 1

    program.process.send_signal(signal.SIGTERM)
    program.end()

    recorder.wait(lambda it: it.total == asked)
    calls = [one for body in recorder.taken for one in body.get("calls", ())]
    assert sum(one["count"] for one in calls) == asked
    assert sum(one["failures"] for one in calls) == asked
    assert {str(body["sender"]["pid"]) for body in recorder.taken if body.get("events")} == pids


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_event_loop_is_not_held_up(recorder: Recorder, run: Run, loop: str) -> None:
    status, out, err = run(
        """
import asyncio, sys
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor().start()
async def work(number):
    try:
        await asyncio.sleep(0)
        raise ValueError("in a task")
    except ValueError as error:
        monitor.report(error)
async def main():
    print(type(asyncio.get_running_loop()).__module__.split(".")[0])
    await asyncio.gather(*(work(number) for number in range(100)))
if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
""",
        loop,
    ).end()

    assert (status, out.strip(), err) == (0, loop, "")
    assert recorder.total == 100


def test_an_interrupted_program_ends_as_it_would_without_us(recorder: Recorder, run: Run) -> None:
    program = run("""
import time
from soulfra_monitor import ErrorMonitor
ErrorMonitor().start().report("before")
print("ready", flush=True)
time.sleep(60)
""")
    assert program.line() == "ready"
    recorder.wait(lambda it: it.events)
    program.process.send_signal(signal.SIGINT)

    status, _, err = program.end()

    assert status == -signal.SIGINT
    assert err.strip().endswith("KeyboardInterrupt")
    assert messages(recorder) == ["before"]


def test_warnings_as_errors_and_dev_mode_find_nothing(recorder: Recorder, run: Run) -> None:
    status, _, err = run(
        """
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor().start()
monitor.report("x")
monitor.flush()
monitor.report("y")
""",
        PYTHONWARNINGS="error",
        PYTHONDEVMODE="1",
    ).end()

    assert (status, err) == (0, "")
    assert messages(recorder) == ["x", "y"]


def test_with_all_hooks_on_a_program_runs_and_ends_as_without(recorder: Recorder, run: Run) -> None:
    code = """
import sys
if "watched" in sys.argv:
    from soulfra_monitor import ErrorMonitor
    monitor = ErrorMonitor().start()
    monitor.report("told")
    assert monitor.flush(10)
    assert monitor.stats().broken == {}, monitor.stats()
print("work")
"""
    plain = run(code, SOULFRA_WITHOUT="").end()
    watched = run(code, "watched", SOULFRA_WITHOUT="").end()

    assert watched == plain == (0, "work\n", "")
    assert messages(recorder) == ["told"]


def test_importing_the_package_loads_next_to_nothing(run: Run) -> None:
    _, out, _ = run("""
import sys
before = set(sys.modules)
import soulfra_monitor
print(sorted(set(sys.modules) - before))
""").end()

    assert out.strip() == "['soulfra_monitor']"


def test_a_monitor_at_rest_loads_nothing_heavy(run: Run) -> None:
    heavy = [
        "asyncio",
        "logging",
        "http.client",
        "ssl",
        "email",
        "concurrent.futures",
        "multiprocessing",
        "tempfile",
    ]
    _, out, _ = run(f"""
import sys
from soulfra_monitor import ErrorMonitor
ErrorMonitor().start()
print([name for name in {heavy} if name in sys.modules])
""").end()

    assert out.strip() == "[]"
    assert sys.version_info >= (3, 11)


def test_signals_of_the_program_never_arrive_in_threads_of_ours(run: Run) -> None:
    program = run(
        """
import os, signal, threading
from soulfra_monitor import ErrorMonitor
from soulfra_monitor.hooks import pulse
monitor = ErrorMonitor(without=()).start()
monitor.report("x")
looked = threading.Event()
pulse.pulse.add(lambda _: looked.set(), monitor)
assert monitor.flush(10) and looked.wait(10)
threads = set(os.listdir("/proc/self/task")) - {str(os.getpid())}
for thread in threads:
    with open(f"/proc/self/task/{thread}/status") as file:
        blocked = next(int(line.split()[1], 16) for line in file if line.startswith("SigBlk"))
    print([bool(blocked >> number - 1 & 1) for number in (signal.SIGTERM, signal.SIGSEGV)])
print(len(threads), signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]))
os.kill(os.getpid(), signal.SIGUSR1)
print(signal.sigwait([signal.SIGUSR1]))
""",
        SOULFRA_WITHOUT="",
    )

    code, out, err = program.end()

    assert (code, err) == (0, "")
    assert out.splitlines() == ["[True, False]"] * 2 + ["2 set()", str(signal.SIGUSR1)]


LATE = """
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor(exit_timeout="20s").start()
class Late:
    def __del__(self, report=monitor.report):
        report("late")
late = Late()
"""


def test_an_error_while_python_takes_its_modules_apart_is_sent_without_waiting_for_a_thread(
    recorder: Recorder, run: Run
) -> None:
    """No other thread runs by then."""
    program = run(LATE + "monitor.report('early')\n")

    status, _, err = program.end(seconds=10.0)

    assert (status, err) == (0, "")
    assert messages(recorder) == ["early", "late"]


def test_the_first_error_may_come_when_nothing_can_be_imported_any_more(
    recorder: Recorder, run: Run, spool: Path
) -> None:
    program = run(LATE)

    status, _, err = program.end(seconds=10.0)

    assert (status, err) == (0, "")
    assert len(list(spool.rglob("*.seg"))) == 1


def test_a_program_without_a_free_handle_ends_as_it_would_without_us(run: Run) -> None:
    """To end a thread that still runs, Python needs a library that the system would load by then."""
    status, _, err = run("""
import resource, time
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor(exit_timeout="0.3s").start()
monitor.report("kept")
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
class Late:
    def __del__(self):
        time.sleep(1)
late = Late()
""").end()

    assert (status, err) == (0, "")


BECOMES = """
import os, sys, time
from soulfra_monitor import ErrorMonitor
if len(sys.argv) == 1:
    others = [name for name in os.environ["SOULFRA_WITHOUT"].split(",") if name != "execs"]
    monitor = ErrorMonitor(without=others).start()
    monitor.report("last words")
    BEFORE
    os.execv(sys.executable, [sys.executable, __file__, "again"])
print("again")
"""


@pytest.mark.parametrize(
    "before",
    [
        "pass",
        "try:\n        os.execvp('/nonexistent/program', ['x'])\n    except OSError:\n        pass",
        "try:\n        os.execv(__file__, ['x'])\n    except OSError:\n        pass",
    ],
)
def test_what_there_is_is_sent_before_another_program_takes_the_process(
    recorder: Recorder, run: Run, before: str
) -> None:
    ended = run(BECOMES.replace("BEFORE", before), PYTHONUNBUFFERED="1").end()

    assert ended == (0, "again\n", "")
    assert messages(recorder) == ["last words"]


def test_a_program_that_becomes_another_waits_no_longer_than_at_its_end(run: Run, spool: Path) -> None:
    ended = run(BECOMES.replace("BEFORE", "pass"), SOULFRA_URL=AWAY).end()

    assert ended == (0, "again\n", "")
    assert len(list(spool.rglob("*.seg"))) == 1


def test_a_forked_child_that_becomes_another_program_waits_for_nothing(run: Run) -> None:
    status, out, _ = run(
        """
import os, time
from soulfra_monitor import ErrorMonitor
class Engine:
    def turn(self):
        return 1
monitor = ErrorMonitor(without=[], exit_timeout="20s").start()
engine = monitor.add_service("engine", Engine())
engine.turn()
began = time.monotonic()
pid = os.fork()
if pid == 0:
    os.execlp("true", "true")
os.waitpid(pid, 0)
print(time.monotonic() - began < 5)
os._exit(0)
""",
        SOULFRA_URL=AWAY,
        PYTHONUNBUFFERED="1",
    ).end()

    assert (status, out) == (0, "True\n")


def test_a_sign_of_life_at_the_very_end_is_sent(recorder: Recorder, run: Run) -> None:
    ended = run("""
import atexit
from soulfra_monitor import ErrorMonitor
atexit.register(lambda: monitor.heartbeat("nightly").beat())
monitor = ErrorMonitor().start()
monitor.report("early")
""").end()

    assert ended == (0, "", "")
    assert [beat.path for beat in recorder.beats] == ["/api/monitoring/heartbeats/nightly"]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="no thread can be started by then")
def test_threads_that_fail_while_the_program_ends_share_one_connection(recorder: Recorder, run: Run) -> None:
    ended = run("""
import atexit, json, threading
from soulfra_monitor import ErrorMonitor
def last():
    def fail(number):
        monitor.report(f"error {'abcdefgh'[number]}")
    threads = [threading.Thread(target=fail, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = monitor.stats()
    print(json.dumps([stats.seen, stats.sent, stats.pending, stats.broken]))
atexit.register(last)
monitor = ErrorMonitor().start()
""").end()

    assert (ended[0], ended[2]) == (0, "")
    assert json.loads(ended[1]) == [8, 8, 0, {}]
    assert sorted(messages(recorder)) == [f"error {letter}" for letter in "abcdefgh"]
