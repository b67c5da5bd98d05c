"""Runs the probes in their rhythm and feeds what they see into the state.

Every probe has its own phase of the interval, from a hash of its name, so that a thousand probes
do not start in the same moment and a restart of the exporter does not shift them. Between runs a
probe costs one timer and no task. A turn that could not be taken is counted and not made up for.
"""

import asyncio
import logging
from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic, time
from typing import Any
from zlib import crc32

from exporter.config import ExporterSection, Service, WatchConfig
from exporter.counters import Counters
from exporter.limits import concurrency_for
from exporter.observation import Observation, Outcome, ProcessFacts, ProcessStatus, Reason
from exporter.plans import LONGEST_TICK, Key, Plan, edge_key, phase_of, plans_of, tick_of
from exporter.probes import ProbeFunction, probe_function
from exporter.probes.context import Context, Tools
from exporter.probes.ending import ProcessEnd
from exporter.probes.patience import beside
from exporter.probes.resolver import Resolver
from exporter.slots import Slots
from exporter.state import ProbeState, ServiceState, Transition, WorldState

FIRST_APART = 0.002  # seconds between the first runs of new probes
JOIN_WITHIN = 0.25  # seconds; a check asked for joins a run that began no longer ago
RUNS_OF_ONE = 4  # at once of one probe, however often somebody asks; whoever hangs is asked no more
LAG_EVERY = 0.05  # seconds; a blocked loop is seen but for so much
LAG_KEPT = 200
HELD_UP = 0.25  # share of a timeout; a loop that stood still for longer makes time-outs of its own
SAME_TURN = 0.005  # seconds; timers are a little early at times
PEERS = 20

log = logging.getLogger(__name__)

_TIMED_OUT = (Reason.TIMEOUT, Reason.CONNECT_TIMEOUT, Reason.DNS)


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One probe in the schedule."""

    key: Key
    plan: Plan
    run: ProbeFunction
    state: ProbeState
    context: Context
    phase: float
    timer: asyncio.TimerHandle | None = None
    due: float = 0.0  # when the timer goes off
    turn: float = 0.0  # the time that was due when it last went off
    waiting: bool = False  # in line for a slot
    stalled: bool = False  # its last turn was let go because the exporter had stood still
    runs: "dict[asyncio.Task[Observation], float]" = field(default_factory=dict)
    ending: ProcessEnd | None = None
    closed: bool = False

    @property
    def fails(self) -> bool:
        """Whether its last run was no success."""
        return self.state.last is not None and not self.state.last.healthy


def load_probes(config: WatchConfig) -> None:
    """Import what *config* needs, so that ``apply`` finds it. Raises what an import raises."""
    for kind in {plan.config.kind for _, plan in plans_of(config)}:
        probe_function(kind)


def _is_same(plan: Plan | None, before: Plan) -> bool:
    return plan is before or plan == before


class Scheduler:
    """Keeps all probes running; ``on_transition`` and ``on_record`` are told what came of it."""

    def __init__(
        self,
        *,
        world: WorldState,
        counters: Counters,
        on_transition: Callable[[Transition], None],
        on_record: Callable[[], None],
    ) -> None:
        self.world = world
        self._counters = counters
        self._on_transition = on_transition
        self._on_record = on_record
        self._config = WatchConfig()  # what is watched now
        self._entries: dict[Key, Entry] = {}
        self._running: set[asyncio.Task[Any]] = set()  # runs, also of what is watched no more
        self._tools = Tools(resolver=Resolver(counters.dns))
        self._slots: Slots[Entry] = Slots(1)
        self._ring: list[tuple[int, str]] = []  # services with probes, by the hash of their names
        self._tick = LONGEST_TICK  # probes start on multiples of it
        self._lags: deque[float] = deque(maxlen=LAG_KEPT)
        # When the loop went on after it had stood still, and for how long.
        self._stalls: deque[tuple[float, float]] = deque(maxlen=LAG_KEPT)
        self._lag_timer: asyncio.TimerHandle | None = None
        self._peer_checks: dict[asyncio.Task[bool], float] = {}

    def start(self) -> None:
        """Begin to measure the loop's delay; probes start with ``apply``."""
        self._measure_lag(monotonic())

    async def stop(self) -> None:
        """Stop all probes and wait until they have let go of their connections."""
        if self._lag_timer is not None:
            self._lag_timer.cancel()
        for entry in self._entries.values():
            self._close(entry)
        for task in self._peer_checks:
            task.cancel()
        tasks = {*self._running, *self._peer_checks}
        if tasks:
            await asyncio.wait(tasks)
        await self._tools.close()

    def apply(self, config: WatchConfig) -> None:
        """Watch what *config* says. What did not change keeps its state; the rest runs at once.

        Services that are the same objects as before cost next to nothing. Raises what importing a kind of
        probe raises, and then nothing has changed.
        """
        plans = dict(self._plans(config))
        gone = [key for key, entry in self._entries.items() if not _is_same(plans.get(key), entry.plan)]
        kept = self._entries.keys() - gone
        tick = tick_of(plan.settings.interval for plan in plans.values())
        fresh = [self._made(key, plan, tick) for key, plan in plans.items() if key not in kept]
        # From here on nothing can fail.
        self._tick = tick
        self._limit(config.exporter)
        self._tools.resolver.source = config.exporter.resolver
        for key in gone:
            self._close(self._entries.pop(key))
        self._entries.update((entry.key, entry) for entry in fresh)
        transitions = self._lay_out(config)
        for place, entry in enumerate(fresh):
            self._begin(entry, min(FIRST_APART, entry.plan.settings.interval / len(fresh)) * place)
        for transition in transitions:
            self._on_transition(transition)

    def _plans(self, config: WatchConfig) -> Iterator[tuple[Key, Plan]]:
        """Return everything that is to be run, the plans of services that did not change as they are."""
        alike = self._config.exporter == config.exporter
        known = self._config.services if alike else {}
        changed = {}
        for target, service in config.services.items():
            if known.get(target) is service:
                for name in self.world.services[target].probes:
                    key = ("service", target, name)
                    yield key, self._entries[key].plan
            else:
                changed[target] = service
        yield from plans_of(config.model_copy(update={"services": changed}))

    async def renew(self) -> None:
        """Read certificate files and ask for addresses anew from now on."""
        await self._tools.renew()

    def _limit(self, section: ExporterSection) -> None:
        self._slots.size = self._counters.concurrency = concurrency_for(section.concurrency)
        if self._slots.size < section.concurrency:
            log.warning(
                "only %d probes run at once, not %d: the limit of open files allows no more",
                *(self._slots.size, section.concurrency),
            )

    async def check(self, target: str, within: float | None = None) -> Mapping[str, Observation]:
        """Run all probes of *target* now and return what each saw, of those that saw it *within* seconds."""
        runs = {asyncio.create_task(self._run_now(entry)): entry.key[2] for entry in self._of(target)}
        if not runs:
            return {}
        try:
            done, _ = await asyncio.wait(runs, timeout=within)
            # Cancelled is the run of a probe that went with a reload meanwhile.
            return {name: run.result() for run, name in runs.items() if run in done and not run.cancelled()}
        finally:
            for task in runs:
                task.cancel()  # ends the waiting; what was begun goes on and is recorded

    def recall_beside(self, target: str, name: str) -> dict[str, Any]:
        """Return a recall for a look beside the schedule; where the probe's own look hangs it waits too."""
        entry = self._entries.get(("service", target, name))
        return beside(entry.context.recall) if entry is not None else {}

    async def peers_answer(self, target: str) -> bool:
        """Ask a sample of other services now; True as soon as at least half of them are healthy.

        One sample serves all who ask in the same moment: when everything fails at once, that
        must not make every failure probe everything.
        """
        now = monotonic()
        for task, started in self._peer_checks.items():
            if now - started < JOIN_WITHIN:
                return await asyncio.shield(task)
        task = asyncio.create_task(self._sample(target))
        self._peer_checks[task] = now
        task.add_done_callback(self._peer_checks.pop)
        return await asyncio.shield(task)

    async def _sample(self, target: str) -> bool:
        peers = self._peers_of(target)
        healthy = 0
        checks = [asyncio.create_task(self.check(name)) for name in peers]
        try:
            for check in asyncio.as_completed(checks):
                healthy += all_healthy((await check).values())
                if 2 * healthy >= len(peers):
                    return True
        finally:
            for task in checks:
                task.cancel()
            if checks:
                await asyncio.wait(checks)
        return False

    def _peers_of(self, target: str) -> list[str]:
        """Return those whose hashes follow that of *target*: chance chooses, and always the same."""
        start = bisect(self._ring, (crc32(target.encode()), target))
        following = (
            self._ring[start:] if start + PEERS <= len(self._ring) else self._ring[start:] + self._ring
        )
        return list(dict.fromkeys(name for _, name in following[: PEERS + 1] if name != target))[:PEERS]

    def _of(self, target: str) -> list[Entry]:
        service = self.world.services.get(target)  # None: it went with a reload meanwhile
        return [self._entries["service", target, name] for name in service.probes] if service else []

    def _made(self, key: Key, plan: Plan, tick: float) -> Entry:
        """Make an entry that nothing knows of yet. Raises what importing the kind of probe raises."""
        return Entry(
            key=key,
            plan=plan,
            run=probe_function(plan.config.kind),
            state=self._state_for(key, plan),
            context=Context(
                timeout=plan.settings.timeout,
                tools=self._tools,
                gate=plan.gate,
                stopped_fails=plan.stopped_fails,
            ),
            phase=phase_of(key, plan.settings.interval, tick),
        )

    def _state_for(self, key: Key, plan: Plan) -> ProbeState:
        """Return what is known of the same probe in another rhythm, else nothing yet."""
        known = self._entries.get(key)
        if known is None or known.plan.config != plan.config:
            return ProbeState(kind=plan.config.kind, settings=plan.settings)
        return replace(known.state, settings=plan.settings)

    def _lay_out(self, config: WatchConfig) -> list[Transition]:
        """Make the world's services and edges those of the configuration, in its order."""
        now = time()
        old, known = self.world.services, self._config.services
        alike = self._config.exporter == config.exporter
        self._config = config
        self.world.watch(
            {
                name: old[name]
                if alike and known.get(name) is service
                else self._service(name, service, old.get(name), now)
                for name, service in config.services.items()
            },
            {(edge.from_, edge.to): self._entries[edge_key(edge)].state for edge in config.integrations},
        )
        self._ring = sorted(
            (crc32(name.encode()), name) for name, service in self.world.services.items() if service.probes
        )
        self.world.blind_ratio = config.exporter.blind.ratio
        self.world.blind_at_least = config.exporter.blind.at_least
        changes = [service.rejudge(now) for service in self.world.services.values()]
        return [change for change in changes if change is not None]

    def _service(self, name: str, service: Service, known: ServiceState | None, now: float) -> ServiceState:
        state = ServiceState(
            target=name,
            host=service.host,
            labels=service.labels,
            timeout_threshold=service.timeout_threshold,
            error_threshold=service.error_threshold,
            since=now,
            probes={probe: self._entries["service", name, probe].state for probe, _ in service.all_probes()},
        )
        if known is not None:
            state.verdict, state.since = known.verdict, known.since
            state.recovered_at, state.broken = known.recovered_at, known.broken
            state.process = known.process if service.process is not None else None
        return state

    def _begin(self, entry: Entry, delay: float) -> None:
        """Run *entry* for the first time: soon, but not a thousand at once, who would slow each other."""
        entry.due = monotonic() + delay
        entry.timer = asyncio.get_running_loop().call_later(delay, self._fire, entry)

    def _fire(self, entry: Entry) -> None:
        """Run *entry* because its time has come."""
        entry.timer = None
        entry.turn = entry.due
        late = max(0.0, monotonic() - entry.due)
        doubtful = entry.state.last is None or entry.fails
        if entry.runs:
            self._skip(entry, "in_flight")
        elif late >= entry.plan.settings.interval and not entry.stalled:
            # All that was due meanwhile would run at once: each waits for its own time instead.
            self._counters.schedule_lag.observe(late)
            entry.stalled = True
            self._skip(entry, "stalled", _turns(late, entry))
        elif self._slots.take(doubtful=doubtful):
            self._take_turn(entry, doubtful=doubtful)
        else:
            self._counters.skipped["failing"] += entry.fails
            entry.waiting = True
            self._slots.wait(entry, doubtful=doubtful)

    def _skip(self, entry: Entry, reason: str, turns: int = 1) -> None:
        self._counters.skipped[reason] += turns
        self._plan_next(entry)

    def _take_turn(self, entry: Entry, *, doubtful: bool) -> None:
        """Run *entry* on the slot that it has got."""
        if not entry.fails:
            late = max(0.0, monotonic() - entry.turn)
            self._counters.schedule_lag.observe(late)
            if entry.waiting:
                self._counters.skipped["concurrency"] += _turns(late, entry)
        entry.waiting = entry.stalled = False
        self._start(entry, slot=doubtful)

    def _admit(self) -> None:
        """Let those in line run as far as there are slots."""
        while (admitted := self._slots.admit()) is not None:
            entry, doubtful = admitted
            if not entry.closed and not entry.runs:
                self._take_turn(entry, doubtful=doubtful)
                continue
            self._slots.give_back(doubtful=doubtful)
            entry.waiting = False
            if not entry.closed:  # somebody asked for it meanwhile
                self._skip(entry, "in_flight")

    def _start(self, entry: Entry, slot: bool | None = None) -> "asyncio.Task[Observation]":
        """Begin a run, on a slot of the doubtful (True) or the well (False), or beside them (None)."""
        self._counters.in_progress += 1
        task = asyncio.get_running_loop().create_task(self._run(entry, slot))
        entry.runs[task] = monotonic()
        self._running.add(task)
        return task

    async def _run_now(self, entry: Entry) -> Observation:
        """Run *entry* now, or join the newest run: one that has just begun, or when too many hang already."""
        newest = next(reversed(entry.runs.items()), None)
        if newest and (monotonic() - newest[1] < JOIN_WITHIN or len(entry.runs) >= RUNS_OF_ONE):
            return await asyncio.shield(newest[0])
        return await asyncio.shield(self._start(entry))

    async def _run(self, entry: Entry, slot: bool | None) -> Observation:
        try:
            observation, soon = await self._observe(entry)
        finally:
            self._finish(entry, slot)
        if not entry.closed:
            self._take_in(entry, observation, soon=soon)
        return observation

    async def _observe(self, entry: Entry) -> tuple[Observation, bool]:
        """Run the probe; tell also whether it is to be run again soon because the exporter was held up."""
        started = monotonic()
        try:
            outcome = _checked(await entry.run(entry.plan.config, entry.context))
        except (Exception, asyncio.CancelledError) as error:
            # The edge: a fault of ours in one probe must not end the watch over the others, or over its own.
            if entry.closed or _is_cancelled():
                raise
            self._counters.internal_errors["probe"] += 1
            log.exception("probe %s of %s failed by itself", entry.key[2], entry.key[1])
            outcome = Outcome(
                reason=Reason.INTERNAL, detail=f"the probe failed by itself: {type(error).__name__}"
            )
        stall = self._longest_stall(started) if outcome.reason in _TIMED_OUT else 0.0
        held_up = stall > HELD_UP * entry.plan.settings.timeout
        if held_up:
            self._counters.delayed += 1
            detail = f"the exporter itself stood still for {stall:.1f} s"
            outcome = replace(outcome, reason=Reason.INTERNAL, detail=detail)
        seconds = monotonic() - started
        return Observation(started=started, at=time(), seconds=seconds, outcome=outcome), held_up

    def _longest_stall(self, started: float) -> float:
        """Return for how long the loop stood still since: an answer in time may have gone unread."""
        return max((seconds for ended, seconds in self._stalls if ended > started), default=0.0)

    def _finish(self, entry: Entry, slot: bool | None) -> None:
        self._counters.in_progress -= 1
        task = asyncio.current_task()
        if task is not None:
            entry.runs.pop(task, None)
            self._running.discard(task)
        if slot is not None:
            self._slots.give_back(doubtful=slot)
            self._admit()

    def _take_in(self, entry: Entry, observation: Observation, *, soon: bool) -> None:
        """Record what was seen; whatever becomes of that, the next run is planned."""
        try:
            self._record(entry, observation, soon=soon)
        except Exception:
            # The edge: a probe that nobody plans again would leave its service "up" for ever.
            self._counters.internal_errors["scheduler"] += 1
            log.exception("what probe %s of %s saw was not taken in whole", entry.key[2], entry.key[1])
            if entry.timer is None:
                self._set_timer(entry, entry.plan.settings.interval)

    def _record(self, entry: Entry, observation: Observation, *, soon: bool) -> None:
        transition = None
        last = entry.state.last
        kind, target, name = entry.key
        if last is not None and observation.started < last.started:
            self._counters.skipped["overtaken"] += 1
        elif kind == "service":
            transition = self.world.record(target, name, observation)
        else:
            entry.state.record(observation)
        if soon:
            self._set_timer(entry, entry.plan.settings.interval_on_failure)
        else:
            self._plan_next(entry)
        if transition is not None:
            self._on_transition(transition)
        if observation.outcome.process is not None:
            self._watch_end(entry, observation.outcome.process)
        self._on_record()

    def _plan_next(self, entry: Entry) -> None:
        now = monotonic()
        delay = entry.state.delay(now)
        if delay is None:
            interval = entry.plan.settings.interval
            after = max(now, entry.turn)  # a timer may be early: the turn it was for is taken
            rest = interval - (after - entry.phase) % interval
            delay = after - now + (rest if rest > SAME_TURN else rest + interval)
        self._set_timer(entry, delay)

    def _set_timer(self, entry: Entry, delay: float) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if not entry.waiting:
            entry.due = monotonic() + delay
            entry.timer = asyncio.get_running_loop().call_later(delay, self._fire, entry)

    def _watch_end(self, entry: Entry, facts: ProcessFacts) -> None:
        """Let the kernel tell when the process ends; a zombie has ended already."""
        if entry.ending is not None:
            if entry.ending.is_of(facts):
                return
            entry.ending.close()
            entry.ending = None
        if facts.status is ProcessStatus.ZOMBIE:
            return
        try:
            entry.ending = ProcessEnd(facts, lambda: self._ended(entry))
        except OSError as error:
            # The interval still finds it; only the immediate notice is lost.
            self._counters.internal_errors["scheduler"] += 1
            log.warning("no immediate notice of the end of %s: %s", entry.key[1], error.strerror)

    def _ended(self, entry: Entry) -> None:
        entry.ending = None
        if not entry.closed:
            self._start(entry)

    def _close(self, entry: Entry) -> None:
        entry.closed = True
        if entry.timer is not None:
            entry.timer.cancel()
        if entry.ending is not None:
            entry.ending.close()
            entry.ending = None
        for task in entry.runs:
            # Not now: a task that is cancelled before its first step gives no slot back.
            asyncio.get_running_loop().call_soon(task.cancel)

    def _measure_lag(self, due: float) -> None:
        now = monotonic()
        late = max(0.0, now - due)
        self._lags.append(late)
        self._counters.event_loop_lag = max(self._lags)
        if late > LAG_EVERY:
            self._stalls.append((now, late))
        loop = asyncio.get_running_loop()
        self._lag_timer = loop.call_later(LAG_EVERY, self._measure_lag, now + LAG_EVERY)


def _checked(outcome: object) -> Outcome:
    """Return what a probe returned. Raises TypeError when that is no outcome: plugins are strangers' code."""
    if not isinstance(outcome, Outcome):
        raise TypeError(f"a probe returns an Outcome, not {type(outcome).__name__}")
    if not isinstance(outcome.reason, Reason | None):
        raise TypeError(f"a reason is one of Reason, not {type(outcome.reason).__name__}")
    return outcome


def _is_cancelled() -> bool:
    """Whether this task itself is to end; a cancellation that leaks out of a library is another thing."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _turns(late: float, entry: Entry) -> int:
    """Return how many turns of *entry* have gone by."""
    return int(late / entry.plan.settings.interval)


def all_healthy(observations: Iterable[Observation]) -> bool:
    """Whether there is at least one observation and none failed: no evidence is not health."""
    seen = list(observations)
    return bool(seen) and all(observation.healthy for observation in seen)
