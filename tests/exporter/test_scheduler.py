"""The rhythm of many probes: turns, slots, stalls, lag. Probes are stand-ins that take a known time."""

import asyncio
import gc
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from exporter import limits, plans
from exporter import scheduler as scheduling
from exporter.config import WatchConfig
from exporter.counters import Counters, Histogram
from exporter.observation import Outcome, Reason
from exporter.probes.context import Context, guarded
from exporter.scheduler import Scheduler
from exporter.slots import Slots
from exporter.state import Transition, Verdict, WorldState

Probe = Callable[[Any, Context], Awaitable[Outcome]]
RHYTHM = {"interval": "500ms", "interval_on_failure": "100ms", "timeout": "300ms", "fast_path": False}
HANGING = 7  # the port that hanging targets have


class Stage:
    """A scheduler with stand-in probes and all that it tells."""

    def __init__(self) -> None:
        self.world = WorldState(started_at=time.time())
        self.counters = Counters()
        self.transitions: list[Transition] = []
        self.started: Counter[str] = Counter()
        self.scheduler = Scheduler(
            world=self.world,
            counters=self.counters,
            on_transition=self.transitions.append,
            on_record=lambda: None,
        )

    def apply(self, targets: Mapping[str, int], **section: Any) -> None:
        probes = {name: {"probes": [{"tcp": f"127.0.0.1:{port}"}]} for name, port in targets.items()}
        config = {"exporter": {**RHYTHM, **section}, "services": probes}
        self.scheduler.apply(WatchConfig.model_validate(config))

    def attempts(self, target: str) -> int:
        return self.world.services[target].probes["tcp"].attempts


async def answers_or_hangs(config: Any, context: Context) -> Outcome:
    progress = context.progress()

    async def work() -> Outcome:
        await asyncio.sleep(60 if config.address()[1] == HANGING else 0.002)
        return progress.outcome()

    return await guarded(work(), progress, context.timeout)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Probe], None]:
    """Have this function stand in for all probes."""
    return lambda probe: monkeypatch.setattr(scheduling, "probe_function", lambda _: probe)


@pytest.fixture
async def stage(play: Callable[[Probe], None]) -> AsyncIterator[Stage]:
    play(answers_or_hangs)
    stage = Stage()
    stage.scheduler.start()
    yield stage
    await stage.scheduler.stop()


def share_within(lags: Histogram, bound: float) -> float:
    """Return the share of values that were at most *bound*, one of the histogram's bounds."""
    return sum(lags.counts[: lags.bounds.index(bound) + 1]) / sum(lags.counts)


@given(st.integers(1, 9), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_slots_are_never_too_many_and_doubtful_ones_leave_half_to_the_others(
    size: int, steps: list[tuple[bool, bool]]
) -> None:
    slots: Slots[int] = Slots(size)
    held: list[bool] = []
    waiting = 0
    for number, (come, doubtful) in enumerate(steps):
        if come and slots.take(doubtful=doubtful):
            held.append(doubtful)
        elif come:
            slots.wait(number, doubtful=doubtful)
            waiting += 1
        elif held:
            slots.give_back(doubtful=held.pop(0))
            while (admitted := slots.admit()) is not None:
                held.append(admitted[1])
                waiting -= 1
        assert slots.taken == len(held) <= size
        assert sum(held) <= max(1, size // 2)
        if waiting and len(held) < size:
            assert sum(held) == max(1, size // 2), "somebody waits beside a free place"


def test_those_in_line_are_served_in_order_and_neither_sort_is_left_out() -> None:
    slots: Slots[str] = Slots(2)
    assert slots.take(doubtful=False)
    assert slots.take(doubtful=False)
    for who, doubtful in (("d1", True), ("d2", True), ("w1", False), ("w2", False)):
        slots.wait(who, doubtful=doubtful)

    served = []
    for leaves in (False, False, True, False):
        slots.give_back(doubtful=leaves)
        served.append(slots.admit())

    assert served == [("d1", True), ("w1", False), ("d2", True), ("w2", False)]


async def test_every_probe_has_one_turn_per_interval_at_its_own_time(
    stage: Stage, until: Callable[..., Awaitable[Any]]
) -> None:
    names = [f"s{number}" for number in range(40)]
    stage.apply(dict.fromkeys(names, 1))
    await until(lambda: all(stage.attempts(name) >= 2 for name in names))
    before = {name: stage.attempts(name) for name in names}
    started = time.monotonic()
    await until(lambda: all(stage.attempts(name) - before[name] >= 4 for name in names))
    turns = (time.monotonic() - started) / 0.5

    assert max(stage.attempts(name) - before[name] for name in names) <= turns + 1.1
    phases = sorted(entry.phase for entry in stage.scheduler._entries.values())
    gaps = [after - earlier for earlier, after in pairwise(phases)]
    assert max(gaps) < 0.25, "the turns are spread over the interval"


def test_a_timer_that_is_early_gives_no_second_turn(play: Callable[[Probe], None]) -> None:
    # uvloop rounds to milliseconds; a probe that takes no time would run again for the rest of one.
    async def at_once(*_: object) -> Outcome:
        return Outcome()

    async def run() -> tuple[list[int], float]:
        stage = Stage()
        stage.scheduler.start()
        names = [f"s{number}" for number in range(50)]
        started = time.monotonic()
        stage.apply(dict.fromkeys(names, 1), interval="100ms")
        await asyncio.sleep(1.0)
        turns = (time.monotonic() - started) / 0.1
        await stage.scheduler.stop()
        return [stage.attempts(name) for name in names], turns

    play(at_once)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        attempts, turns = runner.run(run())

    assert max(attempts) <= turns + 2


@pytest.mark.parametrize(("hanging", "well"), [(100, 900), (600, 400)])
async def test_those_who_hang_leave_the_intervals_of_the_others_alone(
    stage: Stage, until: Callable[..., Awaitable[Any]], hanging: int, well: int
) -> None:
    targets = {f"hanging-{number}": HANGING for number in range(hanging)}
    targets |= {f"well-{number}": 1 for number in range(well)}
    stage.apply(targets, interval="1s", timeout="800ms", interval_on_failure="200ms", concurrency=200)
    await until(lambda: all(stage.attempts(name) for name in targets))  # who hangs is known
    lags = stage.counters.schedule_lag
    lags.counts = [0] * len(lags.counts)
    before = {name: stage.attempts(name) for name in targets}

    def ran() -> list[int]:
        return [stage.attempts(name) - before[name] for name in targets if name.startswith("well")]

    started = time.monotonic()
    await until(lambda: min(ran()) >= 3)

    assert time.monotonic() - started < 9, "three intervals, with room for a busy machine"
    assert share_within(lags, 1.0) > 0.9
    assert len(ran()) == well
    tried = sum(stage.attempts(name) - before[name] for name in targets if name.startswith("hanging"))
    assert tried > 100, "those who hang are looked at too"
    if hanging > 100:
        assert stage.counters.skipped["failing"] > 0


async def test_no_more_run_at_once_than_may_and_who_waited_past_a_turn_is_counted(
    stage: Stage, play: Callable[[Probe], None], until: Callable[..., Awaitable[Any]]
) -> None:
    at_once = most = 0

    async def slow(*_: object) -> Outcome:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.1)
        at_once -= 1
        return Outcome()

    play(slow)
    names = [f"s{number}" for number in range(30)]
    stage.apply(dict.fromkeys(names, 1), interval="200ms", concurrency=4)
    await until(lambda: all(stage.attempts(name) for name in names))
    before = [stage.attempts(name) for name in names]

    def ran() -> list[int]:
        return [stage.attempts(name) - earlier for name, earlier in zip(names, before, strict=True)]

    await until(lambda: min(ran()) >= 2 and stage.counters.skipped["concurrency"] > 0)

    assert most == 4
    assert max(ran()) - min(ran()) <= 2, "in line, nobody is before the others again and again"


async def test_after_a_stall_missed_turns_are_counted_and_not_made_up_for_at_once(
    stage: Stage, until: Callable[..., Awaitable[Any]]
) -> None:
    names = [f"s{number}" for number in range(200)]
    stage.apply(dict.fromkeys(names, 1), interval="500ms", timeout="5s")
    await asyncio.sleep(1.1)
    before = sum(stage.attempts(name) for name in names)

    time.sleep(2.0)  # noqa: ASYNC251 - the loop is to stand still
    ended = time.monotonic()
    await asyncio.sleep(0.05)
    turns = (time.monotonic() - ended) / 0.5

    assert _attempts(stage) - before < 100 + turns * len(names)
    assert stage.counters.skipped["stalled"] >= 300
    assert stage.counters.event_loop_lag > 1.9
    await until(lambda: _attempts(stage) - before >= len(names))  # all have their turn again


async def test_a_timeout_that_the_exporter_made_itself_is_no_evidence(
    stage: Stage, until: Callable[..., Awaitable[Any]]
) -> None:
    stage.apply({"hanging": HANGING}, interval="60s", timeout="1s", confirm=1)
    await until(lambda: stage.counters.in_progress == 1)

    time.sleep(1.5)  # noqa: ASYNC251 - the loop is to stand still
    await until(lambda: stage.attempts("hanging") == 1)
    held_up = stage.world.services["hanging"].probes["tcp"].last
    await until(lambda: stage.attempts("hanging") == 2)  # soon, not after the interval
    seen = stage.world.services["hanging"].probes["tcp"].last

    assert stage.counters.delayed == 1
    assert held_up is not None
    assert (held_up.reason, held_up.outcome.detail[:34]) == (
        Reason.INTERNAL,
        "the exporter itself stood still fo",
    )
    assert seen is not None
    assert seen.reason is Reason.CONNECT_TIMEOUT
    assert [change.after for change in stage.transitions if change.after is Verdict.DOWN] == [Verdict.DOWN]


async def test_a_short_stall_does_not_make_a_long_one_before_it_forgotten(
    stage: Stage, until: Callable[..., Awaitable[Any]]
) -> None:
    stage.apply({"hanging": HANGING}, interval="60s", timeout="2s", confirm=1)
    await until(lambda: stage.counters.in_progress == 1)

    time.sleep(1.0)  # noqa: ASYNC251 - the loop is to stand still
    await asyncio.sleep(0.1)
    time.sleep(0.2)  # noqa: ASYNC251 - as above
    await until(lambda: stage.attempts("hanging") == 1)

    held_up = stage.world.services["hanging"].probes["tcp"].last
    assert held_up is not None
    assert held_up.reason is Reason.INTERNAL
    assert "stood still for 1." in held_up.outcome.detail


@pytest.mark.parametrize("blocked", [0.15, 0.3])
async def test_a_loop_that_was_blocked_shows(
    stage: Stage, until: Callable[..., Awaitable[Any]], blocked: float
) -> None:
    await asyncio.sleep(0.03)

    time.sleep(blocked)  # noqa: ASYNC251 - the loop is to stand still

    await until(lambda: stage.counters.event_loop_lag > blocked - 0.06)
    assert stage.counters.event_loop_lag < blocked + 5.0


async def test_what_a_probe_keeps_stays_from_run_to_run(
    stage: Stage, play: Callable[[Probe], None], until: Callable[..., Awaitable[Any]]
) -> None:
    async def counts(_: object, context: Context) -> Outcome:
        context.recall["runs"] = context.recall.get("runs", 0) + 1
        return Outcome(detail=str(context.recall["runs"]))

    play(counts)
    stage.apply({"shop": 1}, interval="50ms")

    await until(lambda: stage.attempts("shop") >= 3)

    runs = [run.outcome.detail for run in stage.world.services["shop"].probes["tcp"].recent]
    assert runs[:3] == ["1", "2", "3"]


async def test_a_look_asked_for_shifts_no_turn(stage: Stage, until: Callable[..., Awaitable[Any]]) -> None:
    stage.apply({"shop": 1}, interval="1s")
    await until(lambda: stage.attempts("shop") == 2)
    started = time.monotonic()
    end = started + 3.0
    checks = 0
    while time.monotonic() < end:
        await stage.scheduler.check("shop")
        checks += 1
        await asyncio.sleep(0.2)

    turns = time.monotonic() - started
    assert stage.attempts("shop") - 2 - checks <= turns + 2
    assert stage.attempts("shop") - 2 - checks >= min(1.0, turns - 2)


async def test_a_sample_of_peers_is_small_without_the_asker_and_the_same_each_time(stage: Stage) -> None:
    stage.apply({f"s{number}": 1 for number in range(100)}, interval="60s")
    many = stage.scheduler._peers_of("s5")
    stage.apply({f"s{number}": 1 for number in range(4)}, interval="60s")

    assert len(many) == len(set(many)) == scheduling.PEERS
    assert "s5" not in many
    for number in range(4):
        peers = stage.scheduler._peers_of(f"s{number}")
        assert sorted(peers) == sorted({"s0", "s1", "s2", "s3"} - {f"s{number}"})


async def test_no_more_probes_run_at_once_than_open_files_suffice_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))

    stage.apply({}, concurrency=1000)

    assert stage.counters.concurrency == limits.concurrency_for(1000) == 308
    assert "only 308 probes run at once, not 1000" in caplog.text


@pytest.mark.parametrize(
    ("soft", "hard", "after"),
    [
        (1024, 4096, 4096),
        (1024, 2**30, limits.ENOUGH_FILES),
        (1024, resource.RLIM_INFINITY, limits.ENOUGH_FILES),
        (2**20, 2**20, 2**20),  # never lowered
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    ],
)
def test_open_files_are_raised_to_what_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, after: int
) -> None:
    now = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: now.__setitem__(slice(2), both))

    assert limits.raise_open_files() == after
    assert now == [after, hard]
    assert limits.concurrency_for(1000) == 1000


def test_five_thousand_probes_cost_little_and_keep_their_intervals(play: Callable[[Probe], None]) -> None:
    async def at_once(*_: object) -> Outcome:
        return Outcome()

    async def run() -> tuple[float, float, Stage]:
        stage = Stage()
        stage.scheduler.start()
        stage.apply({f"s{number}": 1 for number in range(5000)}, interval="2s")
        await asyncio.sleep(2.0)
        stage.counters.schedule_lag.counts = [0] * len(stage.counters.schedule_lag.counts)
        gc.collect()
        before, cpu, began = _attempts(stage), time.process_time(), time.monotonic()
        await asyncio.sleep(4.0)
        spent, runs = time.process_time() - cpu, _attempts(stage) - before
        due = 5000 * (time.monotonic() - began) / 2.0
        await stage.scheduler.stop()
        return spent / runs, runs / due, stage

    play(at_once)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        per_run, share, stage = runner.run(run())

    assert per_run < 150e-6  # measured: 25; wide, as other work on the machine counts in part
    assert share == pytest.approx(1.0, abs=0.3)
    assert share_within(stage.counters.schedule_lag, 1.0) > 0.9


def _attempts(stage: Stage) -> int:
    return sum(stage.attempts(name) for name in stage.world.services)


def test_probes_start_in_small_batches_spread_over_the_interval() -> None:
    tick = plans.tick_of([5.0] * 1000)
    phases = [plans.phase_of(("service", f"t-{number}", "http"), 5.0, tick) for number in range(1000)]

    batches = Counter(phases)
    assert tick == pytest.approx(0.02)
    assert all(phase / tick == pytest.approx(round(phase / tick)) for phase in phases)
    assert len(batches) > 200  # of 250 ticks
    assert max(batches.values()) < 20


def test_more_probes_start_on_finer_ticks_and_few_ones_on_the_longest() -> None:
    assert plans.tick_of([5.0] * 5000) == pytest.approx(0.004)
    assert plans.tick_of([5.0]) == plans.LONGEST_TICK
    assert plans.tick_of([]) == plans.LONGEST_TICK


def _returns_nothing() -> Any:
    return None


def _tells_no_reason() -> Any:
    return Outcome(reason="broken")  # type: ignore[arg-type] # as a plugin may


def _raises() -> Any:
    raise RuntimeError("broken")


def _leaks_a_cancellation() -> Any:
    raise asyncio.CancelledError


@pytest.mark.parametrize("broken", [_returns_nothing, _tells_no_reason, _raises, _leaks_a_cancellation])
async def test_a_probe_that_breaks_stays_watched_and_is_no_evidence(
    stage: Stage,
    play: Callable[[Probe], None],
    until: Callable[..., Awaitable[Any]],
    broken: Callable[[], Any],
) -> None:
    async def plugin(*_: object) -> Any:
        return broken() if stage.attempts("shop") else Outcome()

    play(plugin)
    stage.apply({"shop": 1}, interval="50ms", timeout="40ms", interval_on_failure="20ms")

    await until(lambda: stage.attempts("shop") >= 4)

    seen = stage.world.services["shop"].probes["tcp"].last
    assert seen is not None
    assert seen.reason is Reason.INTERNAL
    assert "failed by itself" in seen.outcome.detail
    assert stage.counters.internal_errors["probe"] >= 3
    assert Verdict.DOWN not in [change.after for change in stage.transitions]


@pytest.mark.parametrize("where", ["transition", "record", "world"])
async def test_a_fault_while_recording_is_counted_and_ends_no_watch(
    stage: Stage, until: Callable[..., Awaitable[Any]], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    runs = 0

    def fails(*_: object) -> None:
        nonlocal runs
        runs += 1
        raise RuntimeError("broken")

    if where == "world":
        monkeypatch.setattr(WorldState, "record", fails)
    else:
        monkeypatch.setattr(stage.scheduler, f"_on_{where}", fails)
    stage.apply({"shop": 1, "other": HANGING}, interval="50ms", timeout="40ms", interval_on_failure="20ms")

    await until(lambda: runs >= (2 if where == "transition" else 6))

    assert stage.counters.internal_errors["scheduler"] >= runs - 1
    assert all(entry.timer or entry.runs for entry in stage.scheduler._entries.values())


async def test_peers_that_vanish_by_a_reload_are_no_fault_and_no_evidence(stage: Stage) -> None:
    stage.apply(dict.fromkeys("abcd", 1), interval="60s")
    asking = asyncio.create_task(stage.scheduler.peers_answer("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the peers are chosen and not yet asked

    stage.apply({"a": 1}, interval="60s")

    assert await asking is False


async def test_a_probe_that_is_watched_no_more_lets_go_at_once(
    stage: Stage, until: Callable[..., Awaitable[Any]]
) -> None:
    stage.apply({"hangs": HANGING, "well": 1}, timeout="60s", interval="90s")
    await until(lambda: stage.counters.in_progress == 1 and stage.attempts("well") == 1)
    asked = asyncio.create_task(stage.scheduler.check("hangs"))
    await asyncio.sleep(0)

    stage.apply({"well": 1}, timeout="60s", interval="90s")

    await until(lambda: stage.counters.in_progress == 0)
    assert await asked == {}
    assert stage.scheduler._slots.taken == 0
    assert not stage.scheduler._running


async def test_a_probe_that_is_taken_out_before_its_first_step_keeps_no_slot(stage: Stage) -> None:
    stage.apply({"hangs": HANGING}, interval="90s")
    entry = next(iter(stage.scheduler._entries.values()))
    assert entry.timer is not None
    entry.timer.cancel()
    stage.scheduler._fire(entry)  # its run has not begun yet

    stage.apply({}, interval="90s")
    await asyncio.gather(*stage.scheduler._running, return_exceptions=True)

    assert stage.scheduler._slots.taken == 0
    assert stage.counters.in_progress == 0


async def test_however_often_somebody_asks_for_one_that_hangs_few_runs_of_it_are_under_way(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Awaitable[Any]]
) -> None:
    monkeypatch.setattr(scheduling, "JOIN_WITHIN", 0.0)
    stage.apply({"hangs": HANGING}, timeout="60s", interval="90s")
    await until(lambda: stage.counters.in_progress == 1)

    asking = [asyncio.create_task(stage.scheduler.check("hangs", within=0.1)) for _ in range(50)]

    assert await asyncio.gather(*asking) == [{}] * 50
    assert stage.counters.in_progress == scheduling.RUNS_OF_ONE
