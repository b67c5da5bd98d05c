"""Run a program and judge by how it ends, what it writes, and the metrics it tells.

Never a shell. The program gets its own session and is ended with all that it left in its process
group, on time and in whatever way this run ends. It sees none of the exporter's environment.
"""

import asyncio
import os
import pwd
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import IO, Any, cast

from exporter.kinds.command import CommandProbe
from exporter.observation import Outcome, Reading, Reason, shorten
from exporter.probes.command_metrics import NoMetricsError, read_metrics
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.patience import Judging, in_thread
from soulfra_monitor.redaction import redact_command

OUTPUT_LIMIT = 65536
ERRORS_LIMIT = 4096
GRACE = 1.0  # seconds from SIGTERM to SIGKILL, and from SIGKILL until a program is given up
LAST_WORDS = 0.5  # seconds for output that others hold open after the program has ended
_CHUNK = 65536  # bytes of one read
_PAUSE = 0.005  # seconds between reads of output that nobody keeps
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
_OK, _WARNING, _CRITICAL = 0, 1, 2  # exit codes of check plugins; 3 and more: the check itself failed

Verdict = tuple[Reason | None, str]


class CannotRunError(Exception):
    """The program was not started."""


class _Output:
    """Takes what a program writes: the first bytes or the last are kept, the rest is read and let go.

    It reads by itself and not by a transport: uvloop's closes a pipe's number twice, and by the second
    time another thread may have been given it (tests: test_no_handle_of_others_is_closed).
    """

    def __init__(self, pipe: IO[bytes], limit: int, *, last: bool = False) -> None:
        self.kept = b""
        self.cut = False
        self.closed = asyncio.get_running_loop().create_future()
        self._pipe = pipe
        self._limit = limit
        self._last = last

    def listen(self) -> None:
        """Read whenever there is something to read. Raises OSError."""
        os.set_blocking(self._pipe.fileno(), False)
        self._go_on()

    def close(self) -> None:
        """Let go of the pipe, whether or not all was read. Once is enough."""
        if not self.closed.done():
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            self._pipe.close()
            self.closed.set_result(None)

    def _go_on(self) -> None:
        if not self.closed.done():
            asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        whole = self.kept + data
        self.kept = whole[-self._limit :] if self._last else whole[: self._limit]
        if len(whole) > self._limit:
            self.cut = True
            # A flood must not keep the event loop busy.
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._pipe.fileno())
            loop.call_later(_PAUSE, self._go_on)

    @property
    def text(self) -> str:
        """What was kept."""
        return self.kept.decode(errors="replace")


@dataclass(slots=True, kw_only=True)
class _Run:
    """A program that was started. It is waited for exactly once, when the kernel says it has ended."""

    process: "subprocess.Popen[bytes]"
    output: _Output
    errors: _Output
    ended: "asyncio.Future[int]"
    handle: int = field(default=-1)

    def watch(self) -> None:
        """Have the kernel tell its end."""
        self.handle = os.pidfd_open(self.process.pid)
        asyncio.get_running_loop().add_reader(self.handle, self._collect)

    def listen(self) -> None:
        """Read what it writes. Raises OSError."""
        self.output.listen()
        self.errors.listen()

    def close(self) -> None:
        """Let go of the pipes, whether or not anybody came to read them."""
        self.output.close()
        self.errors.close()

    def signal(self, number: int) -> None:
        """Send a signal to the whole group; its number is safe until the program is waited for."""
        if not self.ended.done():
            with suppress(ProcessLookupError, PermissionError):  # another user's, after a setuid program
                os.killpg(self.process.pid, number)

    def _collect(self) -> None:
        asyncio.get_running_loop().remove_reader(self.handle)
        os.close(self.handle)
        self.signal(signal.SIGKILL)  # what it left behind; before the number can be used again
        self.ended.set_result(self.process.wait())


async def probe(config: CommandProbe, context: Context) -> Outcome:
    """Run the program once. Never raises: a failure is the outcome."""
    progress = context.progress()
    progress.connected = True
    most = 2 * context.timeout + 2 * GRACE + LAST_WORDS + 1  # every step has a limit of its own
    return await guarded(_take_turn(config, context, progress), progress, most)


async def _take_turn(config: CommandProbe, context: Context, progress: Progress) -> Outcome:
    """Wait until few enough programs run; the program's own time begins then."""
    turns = context.tools.commands
    try:
        async with asyncio.timeout(context.timeout):  # wait_for loses a cancellation at times
            await turns.acquire()
    except TimeoutError:
        return progress.outcome(Reason.INTERNAL, "too many commands ran at the same time; this one did not")
    try:
        return await _run(config, context, progress)
    finally:
        turns.release()


async def _run(config: CommandProbe, context: Context, progress: Progress) -> Outcome:
    progress.note("running %s", redact_command(config.command))
    starting = _Start(config)
    try:
        async with asyncio.timeout(context.timeout):
            process = await in_thread(starting.run, context.recall)
        run = _follow(process)
    except CannotRunError as error:
        return progress.outcome(Reason.INTERNAL, str(error))
    except TimeoutError:
        starting.abandon()
        return progress.outcome(Reason.INTERNAL, "the program could not be started in time")
    except OSError as error:  # no thread or no handle is left for it
        starting.abandon()
        return progress.outcome(Reason.INTERNAL, _CANNOT_WATCH.format(error.strerror))
    except asyncio.CancelledError:
        starting.abandon()
        raise
    try:
        run.listen()
        in_time = await _wait(run, context.timeout)
        await asyncio.wait([run.output.closed, run.errors.closed], timeout=LAST_WORDS)
    except OSError as error:
        return progress.outcome(Reason.INTERNAL, _CANNOT_WATCH.format(error.strerror))
    finally:
        run.signal(signal.SIGKILL)
        await _ends(run, GRACE)
        run.close()
    progress.reach("processing")
    if not in_time:
        return progress.outcome(Reason.TIMEOUT, _with_words(f"no end within {context.timeout:g} s", run))
    return await _judge(config, run, context, progress)


_CANNOT_WATCH = "the program cannot be watched: {}"


def _follow(process: "subprocess.Popen[bytes]") -> _Run:
    """Have the kernel tell the program's end. Raises OSError when no handle is left for that."""
    run = _Run(
        process=process,
        output=_Output(cast("IO[bytes]", process.stdout), OUTPUT_LIMIT),
        errors=_Output(cast("IO[bytes]", process.stderr), ERRORS_LIMIT, last=True),
        ended=asyncio.get_running_loop().create_future(),
    )
    run.watch()
    return run


async def _wait(run: _Run, limit: float) -> bool:
    """Wait for the end, and bring it about when the time is over. Tell whether it came by itself."""
    if await _ends(run, limit):
        return True
    for number in (signal.SIGTERM, signal.SIGKILL):
        run.signal(number)
        if await _ends(run, GRACE):
            break
    return False


async def _ends(run: _Run, limit: float) -> bool:
    done, _ = await asyncio.wait([run.ended], timeout=limit)
    return bool(done)


class _Start:
    """The start of a program in a thread, which may come to nothing after nobody waits for it any more."""

    def __init__(self, config: CommandProbe) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._abandoned = False

    def run(self) -> "subprocess.Popen[bytes]":
        """Start the program. Raises CannotRunError."""
        process = start(self._config)
        with self._lock:
            self._process = process
            abandoned = self._abandoned
        if abandoned:
            _kill(process)
            process.wait()
        return process

    def abandon(self) -> None:
        """End the program, now or when it has been started; its end is waited for elsewhere."""
        with self._lock:
            self._abandoned = True
            process = self._process
        if process is not None:
            _kill(process)
            # A program in a dead filesystem ends when that comes back: no loop may wait for it.
            with suppress(RuntimeError):  # no thread is left: the next start of a program waits for it
                threading.Thread(target=process.wait, daemon=True, name="reaper").start()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Have the kernel end the program with its group, and let go of its pipes. Waits for nothing."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def start(config: CommandProbe) -> "subprocess.Popen[bytes]":
    """Start the program. Raises CannotRunError with the cause."""
    try:
        return subprocess.Popen(
            config.command,
            cwd=config.cwd,
            env={**_ENVIRONMENT, **config.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **_account(config.user),
        )
    except FileNotFoundError as error:
        what = "folder" if error.filename == config.cwd else "program"
        raise CannotRunError(f"there is no {what} {error.filename}") from error
    except OSError as error:
        raise CannotRunError(f"{error.filename or 'the program'} cannot be run: {error.strerror}") from error
    except ValueError as error:
        raise CannotRunError(f"the program cannot be run: {error}") from error


def _account(user: str | int | None) -> dict[str, Any]:
    """Return how the program becomes *user*, with that user's groups. Raises CannotRunError."""
    if user is None:
        return {}
    try:
        known = pwd.getpwnam(user) if isinstance(user, str) else pwd.getpwuid(user)
    except KeyError as error:
        raise CannotRunError(f"there is no user {user}") from error
    if known.pw_uid == os.geteuid():
        return {}
    if os.geteuid() != 0:
        raise CannotRunError(f"only an exporter that runs as root can run a program as {known.pw_name}")
    groups = os.getgrouplist(known.pw_name, known.pw_gid)
    return {"user": known.pw_uid, "group": known.pw_gid, "extra_groups": groups}


async def _judge(config: CommandProbe, run: _Run, context: Context, progress: Progress) -> Outcome:
    code = run.ended.result()
    progress.note("it ended with %d and wrote %d bytes", code, len(run.output.kept))
    reason, detail = _nagios(code, run) if config.nagios else _exit(code, config.expect.exit, run)
    readings: Sequence[Reading] = ()
    if config.metrics:
        (late_reason, late_detail), readings = await _metrics(run, context.tools.judging, progress)
        reason, detail = (reason, detail) if reason else (late_reason, late_detail or detail)
    if (
        reason is None
        and config.expect.output is not None
        and not _found(config.expect.output, run.output.text)
    ):
        whole = f" in the first {OUTPUT_LIMIT} bytes of" if run.output.cut else " in"
        reason, detail = Reason.ANSWER, f"the expected text is not{whole} the output"
    return progress.outcome(reason, detail, readings=tuple(readings))


def _exit(code: int, expected: Sequence[int], run: _Run) -> Verdict:
    return (None, "") if code in expected else (Reason.EXIT, _with_words(_ending(code), run))


def _nagios(code: int, run: _Run) -> Verdict:
    """Judge as check plugins mean it: a warning is well, and a check that failed by itself is no evidence."""
    said = shorten(run.output.text.partition("\n")[0].partition("|")[0])
    if code in (_OK, _WARNING):
        return None, said
    if code == _CRITICAL:
        return Reason.EXIT, said or "critical"
    return Reason.INTERNAL, f"the check itself failed: {said or _with_words(_ending(code), run)}"


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by signal {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def _with_words(what: str, run: _Run) -> str:
    """Add the last line that it wrote, of its errors first."""
    lines = [line.strip() for text in (run.output.text, run.errors.text) for line in text.split("\n")]
    words = next((line for line in reversed(lines) if line), "")
    return f"{what}: {words}" if words else what


async def _metrics(run: _Run, judging: Judging, progress: Progress) -> tuple[Verdict, Sequence[Reading]]:
    if run.output.cut:
        return (Reason.TOO_LARGE, f"more than {OUTPUT_LIMIT} bytes of metrics"), ()
    try:
        readings, passed_over = await judging.run(partial(read_metrics, run.output.kept))
    except NoMetricsError as error:
        return (error.reason, str(error)), ()
    for name in passed_over:
        progress.note("%s is neither a gauge nor a counter and is not exposed", name)
    return (None, ""), readings


def _found(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    import re2  # noqa: PLC0415 - 3 MB, needed by those who expect an output only

    return re2.compile(pattern)
