"""Looks from a thread of its own, four times a second, for what does not come back.

*Hung calls*: watched calls older than their timeout, or far older than such calls get. *Waits for a lock*: a
thread that has stood for long at one lock of the program's own code, or for seconds where threads wait for
each other. *Blocked event loops*: a running loop
that is not waiting for events gets a heartbeat; when that is not answered, something blocks it. An idle loop
costs nothing and is never woken.

Each is told once, with the stack of its thread.
"""

import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import CodeType, FrameType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any

from soulfra_monitor.events import BOUNDS, Kind
from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.late import when_imported
from soulfra_monitor.hooks.program import is_own
from soulfra_monitor.hooks.pulse import PERIOD, pulse
from soulfra_monitor.loading import pythons

if TYPE_CHECKING:
    from soulfra_monitor.cells import Underway

LOOP_LIMIT = 0.5
"""Seconds for which a loop may not answer."""

LOCK_LIMIT = 5.0
"""Seconds for which threads may stand at each other's locks."""

ALONE_LIMIT = 60.0
"""Seconds for which a thread may stand at a lock that somebody else may yet release."""

STACK_DEPTH = 50
"""Frames of a thread that are looked through for a lock."""

LATE = 3 * PERIOD
"""After a longer pause the thread itself was held up: the whole process, or the machine, stood still."""

HOGGED = 0.8
"""Share of such a pause that a thread must have computed, or stood in line, to have held up the process."""

USUAL_FACTOR = 10.0
USUAL_LEAST = 5.0
USUAL_CALLS = 100
QUANTILE = 0.999
"""A call without timeout is hung at 10 times the 99.9th percentile of its method, and not before 5 seconds;
after 100 calls there is one."""

LEARN_EVERY = 10.0


def install(reporter: Reporter) -> Undo:
    """Tell of hung calls, of threads that stand at a lock, and of blocked event loops."""
    calls, locks, loops = Calls(reporter), Locks(reporter), Loops(reporter)
    undos = [
        pulse.add(calls.look, reporter),
        pulse.add(locks.look, reporter),
        pulse.add(loops.look, reporter),
        when_imported("asyncio", loops.patch),
        loops.unpatch,
    ]

    def undo() -> None:
        for step in undos:
            step()

    return undo


# --- calls


class Calls:
    """Finds watched calls that do not come back."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._told: dict[int, Underway] = {}
        self._usual: dict[tuple[str, str], float] = {}
        self._learn_at = 0.0

    def look(self, now: float) -> None:
        """Tell of calls that are over their time, and of those that came back after all."""
        cells = sys.modules.get("soulfra_monitor.cells")
        if cells is None:  # nothing is watched
            return
        if now >= self._learn_at:
            self._learn_at = now + LEARN_EVERY
            self._usual = usual(cells)
        underway, clock = {call.key: call for call in cells.in_flight()}, cells.now()
        for key in self._told.keys() - underway.keys():
            self._back(self._told.pop(key), clock)
        for key, call in underway.items():
            limit = self._limit(call)
            if limit is not None and clock - call.started > limit and key not in self._told:
                self._told[key] = call
                self._tell(call, clock - call.started, limit)

    def _limit(self, call: "Underway") -> float | None:
        return call.timeout if call.timeout is not None else self._usual.get((call.service, call.method))

    def _tell(self, call: "Underway", seconds: float, limit: float) -> None:
        self._reporter.noted(
            Kind.HUNG,
            f"{call.method} has not come back for more than {limit:g} s",
            service=call.service,
            frame=None if call.task else sys._current_frames().get(call.thread),  # noqa: SLF001 - public enough
            facts={"method": call.method, "seconds": round(seconds, 3), "limit": round(limit, 3)},
            context={"caller": call.caller} if call.caller else None,
        )

    def _back(self, call: "Underway", clock: float) -> None:
        seconds = round(clock - call.started, 3)
        self._reporter.noted(
            Kind.SLOW,
            f"{call.method} came back after all",
            service=call.service,
            facts={"method": call.method, "seconds": seconds},
        )


def usual(cells: ModuleType) -> dict[tuple[str, str], float]:
    """Return for methods that were called often the seconds after which a call is hung."""
    found: dict[tuple[str, str], list[int]] = {}
    for cell in [cell for state in list(cells._live.values()) for cell in tuple(state.cells)]:  # noqa: SLF001
        sums = found.setdefault((cell.method.service, cell.method.name), [0] * (len(BOUNDS) + 1))
        for place, count in enumerate(cell.tally().buckets):
            sums[place] += count
    limits = {method: limit_of(buckets) for method, buckets in found.items()}
    return {method: limit for method, limit in limits.items() if limit is not None}


def limit_of(buckets: Iterable[int]) -> float | None:
    """Return the seconds after which a call of this distribution is hung; None if nobody can say."""
    counts = list(buckets)
    total = sum(counts)
    if total < USUAL_CALLS:
        return None
    seen = 0
    for bound, count in zip(BOUNDS, counts, strict=False):
        seen += count
        if seen >= QUANTILE * total:
            return max(USUAL_LEAST, USUAL_FACTOR * bound)
    return None


# --- locks


@dataclass(slots=True)
class Standing:
    """A thread that has not moved."""

    frame: int
    instruction: int
    since: float
    looked: float
    told: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """A thread that waits for a lock without a time limit, in the program's own code."""

    thread: threading.Thread
    frame: FrameType
    lock: object  # None where the code does not say


class Locks:
    """Finds threads that stand at a lock in the program's own code: most of all, at each other's."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._standing: dict[int, Standing] = {}

    def look(self, now: float) -> None:
        """Tell of each thread that has stood too long, once until it moves."""
        frames = sys._current_frames()  # noqa: SLF001 - public enough
        self._standing = {ident: self._standing[ident] for ident in self._standing.keys() & frames.keys()}
        due: list[int] = []
        for ident, frame in frames.items():
            known = self._standing.get(ident)
            if known is None or known.frame != id(frame) or known.instruction != frame.f_lasti:
                self._standing[ident] = Standing(id(frame), frame.f_lasti, now, now)
            elif not known.told and now - known.looked >= LOCK_LIMIT:
                known.looked = now
                due.append(ident)
        if any(_waits(ident, frames[ident]) for ident in due):
            waits = {ident: wait for ident, frame in frames.items() if (wait := _waits(ident, frame))}
            for ident in due:
                self._judge(ident, waits, now)

    def _judge(self, ident: int, waits: dict[int, Wait], now: float) -> None:
        known, wait = self._standing[ident], waits.get(ident)
        if wait is None:
            known.since = now
            return
        mutual, seconds = is_mutual(ident, waits), now - known.since
        if not mutual and seconds < ALONE_LIMIT:
            return
        known.told = True
        self._reporter.noted(
            Kind.HUNG,
            f"a thread waits for a lock: {wait.frame.f_code.co_qualname}",
            frame=wait.frame,
            facts={
                "seconds": round(seconds, 3),
                "limit": LOCK_LIMIT if mutual else ALONE_LIMIT,
                "lock": "mutual" if mutual else "alone",
            },
            context={"thread": wait.thread.name, "others": _others(ident)},
        )


def is_mutual(ident: int, waits: Mapping[int, Wait]) -> bool:
    """Tell whether a thread waits, over others that wait too, for itself.

    Locks do not say who holds them. A thread that waits for another lock, in code that knows this one, is
    taken for who holds it.
    """
    seen: set[int] = set()
    waiting = [ident]
    while waiting:
        lock = waits[waiting.pop()].lock
        for other, wait in waits.items():
            if lock is None or wait.lock is None or wait.lock is lock or not _knows(wait.frame, lock):
                continue
            if other == ident:
                return True
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return False


def _waits(ident: int, frame: FrameType) -> Wait | None:
    thread = threading._active.get(ident)  # type: ignore[attr-defined] # noqa: SLF001 - a look must not make one
    native = getattr(thread, "native_id", None) or 0
    offset = frame.f_lasti
    if not native or not is_own(frame.f_code.co_filename) or not waits_for_ever(native):
        return None
    if not takes_a_lock(frame.f_code, offset):
        return None
    return Wait(thread, frame, lock_at(frame, offset))


def lock_at(frame: FrameType, offset: int) -> object:
    """Return what is entered or acquired at *offset*: a variable, or attributes of one; None for others."""
    dis = pythons("dis")  # as below
    names: list[str] = []
    for instruction in dis.get_instructions(frame.f_code):
        name, operation = instruction.argval, instruction.opname
        if operation in _VARIABLES or operation.startswith("LOAD_FAST"):
            names = [str(name[-1] if isinstance(name, tuple) else name)]
        elif operation in _ATTRIBUTES:
            names.append(str(name))
        elif operation.startswith(("BINARY", "CALL")) and instruction.offset < offset:
            names = []  # what these give is in no variable
        if instruction.offset >= offset:
            break
    path = [name for name in names if name != "acquire" and "__enter__" not in name]
    if not path:
        return None
    found = frame.f_locals.get(path[0], frame.f_globals.get(path[0]))
    for name in path[1:]:
        found = _attribute(found, name)
    return found


def _attribute(owner: object, name: str) -> object:
    """Return an attribute without running any code of the program."""
    for place in (owner, *type(owner).__mro__):
        found = getattr(place, "__dict__", {}).get(name) if place is owner else vars(place).get(name)
        if found is not None:
            return found.__get__(owner) if isinstance(found, MemberDescriptorType) else found
    return None


def _knows(frame: FrameType | None, lock: object) -> bool:
    """Tell whether the program's own code on a stack has a lock in a variable, or in an attribute of one."""
    for _ in range(STACK_DEPTH):
        if frame is None:
            return False
        if is_own(frame.f_code.co_filename):
            names = frame.f_code.co_names
            values = list(frame.f_locals.values())
            known = [*values, *(frame.f_globals.get(name) for name in names)]
            if any(one is lock for one in known):
                return True
            if any(_attribute(one, name) is lock for one in values for name in names):
                return True
        frame = frame.f_back
    return False


_VARIABLES = frozenset({"LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD", "LOAD_SPECIAL"})


def waits_for_ever(native: int) -> bool:
    """Tell whether a thread waits for a lock without a time limit, as the kernel sees it."""
    try:
        with open(f"/proc/self/task/{native}/syscall", encoding="ascii") as file:
            parts = file.read().split()
    except OSError:  # it has ended, or the kernel tells nobody: then it is not known to wait
        return False
    return len(parts) > _FUTEX_TIMEOUT and parts[0] in _FUTEX and int(parts[_FUTEX_TIMEOUT], 16) == 0


def takes_a_lock(code: CodeType, offset: int) -> bool:
    """Tell whether the instruction at *offset* enters a ``with`` or calls something's ``acquire``."""
    dis = pythons("dis")  # heavy, and seldom needed
    names: list[str] = []
    for instruction in dis.get_instructions(code):
        if instruction.opname in {"LOAD_METHOD", "LOAD_ATTR", "LOAD_SPECIAL"}:
            names.append(str(instruction.argval))
        if instruction.offset == offset:
            last = names[-1] if names else ""
            return instruction.opname == "BEFORE_WITH" or "acquire" in last or "__enter__" in last
    return False


_FUTEX = {"202", "98", "240", "422"}  # the number of futex on x86-64, ARM 64, and 32-bit systems
_FUTEX_TIMEOUT = 4  # the place of its time limit in a line of /proc/.../syscall


def _others(ident: int) -> list[str]:
    """Say where the other threads are, in a line each."""
    frames = [frame for other, frame in sys._current_frames().items() if other != ident]  # noqa: SLF001
    return [
        f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}" for frame in frames[:20]
    ]


# --- loops


@dataclass(slots=True)
class Beat:
    """What is known of one running loop."""

    loop: Any
    thread: int
    native: int
    base: int  # identity of the frame that runs the loop
    sent: float = 0.0  # when the heartbeat was sent that is not answered; 0 while there is none
    lag: float = 0.0  # of the last answer
    told: bool = False
    worked: tuple[float, float] = (0.0, 0.0)  # at the last look, as ``_worked`` says

    def answer(self) -> None:
        """Run in the loop: it goes on."""
        if self.sent:
            self.lag = time.monotonic() - self.sent
        self.sent = 0.0


class Loops:
    """Knows the running loops and whether they answer."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._beats: dict[int, Beat] = {}  # by thread
        self._undo: list[Undo] = []
        self._looked = 0.0

    def patch(self, asyncio: ModuleType) -> None:
        """Learn of loops as they start and stop. No frame of ours stays below them."""
        events: Any = asyncio.events
        original = events._set_running_loop  # noqa: SLF001 - what every loop calls

        def _set_running_loop(loop: Any) -> None:
            original(loop)
            self._running(loop, sys._getframe(1))  # noqa: SLF001 - who runs the loop

        places: list[Any] = [asyncio, events]
        for place in places:
            place._set_running_loop = _set_running_loop  # noqa: SLF001

        def undo() -> None:
            for place in places:
                if place._set_running_loop is _set_running_loop:  # noqa: SLF001
                    place._set_running_loop = original  # noqa: SLF001

        self._undo.append(undo)
        if (uvloop := sys.modules.get("uvloop")) is not None:
            self._wrap(uvloop.Loop)

    def _wrap(self, kind: Any) -> None:
        """Learn of uvloop's loops where it was imported before, and has kept what ``patch`` replaces."""
        original = kind.run_forever

        def run_forever(loop: Any) -> None:
            self._running(loop, sys._getframe())  # noqa: SLF001 - in C there is no other
            try:
                original(loop)
            finally:
                self._running(None, None)

        kind.run_forever = run_forever

        def undo() -> None:
            if kind.run_forever is run_forever:
                kind.run_forever = original

        self._undo.append(undo)

    def unpatch(self) -> None:
        """Take no more notice of loops."""
        while self._undo:
            self._undo.pop()()
        self._beats = {}

    def look(self, now: float) -> None:
        """Send heartbeats to loops that are at work, and tell of those that did not answer."""
        gap, self._looked = now - (self._looked or now), now
        beats = list(self._beats.values())
        if not beats:
            return
        frames = sys._current_frames()  # noqa: SLF001 - public enough
        for beat in beats:
            frame = frames.get(beat.thread)
            if frame is None:
                self._beats.pop(beat.thread, None)
            else:
                self._judge(beat, frame, now, gap)

    def _judge(self, beat: Beat, frame: FrameType, now: float, gap: float) -> None:
        before, beat.worked = beat.worked, _worked(beat.native)
        if gap > LATE:
            computed, wanted = (now - then for now, then in zip(beat.worked, before, strict=True))
            if computed >= LOOP_LIMIT and wanted >= HOGGED * gap:
                self._tell(beat, frame, gap)  # it held the interpreter, so that nobody could look meanwhile
            elif beat.sent:
                beat.sent = now - PERIOD  # the machine stood still; that is nobody's fault
            beat.lag = 0.0
        if beat.sent:
            self._wait(beat, frame, now)
        elif beat.lag >= LOOP_LIMIT and not beat.told:
            self._tell(beat, None, beat.lag)
        beat.lag = 0.0
        if not beat.sent:
            beat.told = False
            self._send(beat, frame, now)

    def _wait(self, beat: Beat, frame: FrameType, now: float) -> None:
        if now - beat.sent >= LOOP_LIMIT and not beat.told and not _is_idle(frame, beat.base):
            self._tell(beat, frame, now - beat.sent)

    def _send(self, beat: Beat, frame: FrameType, now: float) -> None:
        if _is_idle(frame, beat.base):
            return
        beat.sent = now
        try:
            beat.loop.call_soon_threadsafe(beat.answer)
        except RuntimeError:  # closed meanwhile
            self._beats.pop(beat.thread, None)

    def _tell(self, beat: Beat, frame: FrameType | None, seconds: float) -> None:
        beat.told = True
        where = "" if frame is None else f" in {frame.f_code.co_qualname}"
        self._reporter.noted(
            Kind.LOOP_BLOCKED,
            f"the event loop is blocked{where}",
            frame=frame,
            facts={"seconds": round(seconds, 3), "limit": LOOP_LIMIT},
        )

    def _running(self, loop: Any, frame: FrameType | None) -> None:
        ident = threading.get_ident()
        if loop is None or frame is None:
            self._beats.pop(ident, None)
            return
        native = threading.get_native_id()
        self._beats[ident] = Beat(loop, ident, native, id(frame), worked=_worked(native))


def _is_idle(frame: FrameType, base: int) -> bool:
    """Tell whether a loop waits for events: in its selector, or in C with nothing of Python on top."""
    if id(frame) == base:
        return True
    code, caller = frame.f_code, frame.f_back
    in_selector = code.co_name == "select" and code.co_filename.endswith("selectors.py")
    return in_selector and caller is not None and caller.f_code.co_name == "_run_once"


def _worked(native: int) -> tuple[float, float]:
    """Return the seconds that a thread has computed, and those with what it stood in line; 0 if unknown."""
    try:
        with open(f"/proc/self/task/{native}/schedstat", encoding="ascii") as file:
            computed, waited, *_ = file.read().split()
    except (OSError, ValueError):  # it has ended, or the kernel keeps no such figures
        return 0.0, 0.0
    return int(computed) / 1e9, (int(computed) + int(waited)) / 1e9
