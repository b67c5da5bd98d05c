"""The state machine: observations go in; verdicts, transitions and counters come out.

No I/O and no clock: the times in the observations are all it knows.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from exporter.counters import Histogram
from exporter.observation import Observation, ProcessFacts, ProcessStatus, Reason, TlsFacts
from exporter.reasons import LOCAL_KINDS, trouble_of
from soulfra_monitor.problems import Problem

KEPT = 10
FAST_RECHECKS_FOR = 60.0  # seconds of failing after which a probe goes back to its usual interval
GUARD_FROM = 3  # with fewer services nothing can be said about most of them
FRESH_INTERVALS, FRESH_SECONDS = 3, 30.0  # as in the rule SoulfraProbeStale


class Verdict(StrEnum):
    """What is said about a service."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The rhythm of one probe, defaults filled in."""

    interval: float
    interval_on_failure: float
    timeout: float
    confirm: int

    @property
    def fresh_for(self) -> float:
        """Seconds after which what a run saw may no longer be true."""
        return max(FRESH_INTERVALS * self.interval, FRESH_SECONDS) + self.timeout


@dataclass(slots=True, kw_only=True)
class ProbeState:
    """What is known from one probe of a service, or from one integration edge."""

    kind: str
    settings: Settings
    down: bool | None = None  # None until a first success or a confirmed failure
    broken: bool = False  # was down and has not been seen well since
    streak: int = 0  # failures in a row that say the service is down
    troubles: int = 0  # failures in a row that only tell, see reasons.TROUBLES
    trouble: Problem | None = None  # what they tell, once it is confirmed
    trouble_began: Observation | None = None
    faults: int = 0  # looks in a row that failed by our own fault
    streak_began: Observation | None = None
    last: Observation | None = None
    last_success: Observation | None = None
    last_failure: Observation | None = None
    recent: deque[Observation] = field(default_factory=lambda: deque(maxlen=KEPT))
    failed: deque[Observation] = field(default_factory=lambda: deque(maxlen=KEPT))
    attempts: int = 0
    failures: Counter[Reason] = field(default_factory=Counter)
    unconfirmed: Counter[Reason] = field(default_factory=Counter)
    durations: Histogram = field(default_factory=Histogram)
    tls: TlsFacts | None = None  # what was seen last
    _streak_reasons: Counter[Reason] = field(default_factory=Counter)

    def record(self, observation: Observation) -> bool:
        """Take in *observation*. False, and nothing changes, when a later-begun one was already taken in.

        A slow failure that began before a repair must not speak against the success after it.
        """
        if self.last is not None and observation.started < self.last.started:
            return False
        self.attempts += 1
        self.durations.observe(observation.seconds)
        self.last = observation
        self.recent.append(_without_readings(observation))
        if observation.outcome.tls is not None:
            self.tls = observation.outcome.tls
        if observation.reason is None:
            self._succeed(observation)
        else:
            self._fail(observation, observation.reason)
        return True

    def _succeed(self, observation: Observation) -> None:
        self._answer()
        self._forget_trouble()
        self.last_success = observation

    def _answer(self) -> None:
        """Take in that the service is not down, whatever else may be wrong."""
        if self.streak:
            if not self.down:
                self.unconfirmed.update(self._streak_reasons)
            self.streak = 0
            self.streak_began = None
            self._streak_reasons.clear()
        self.down = self.broken = False
        self.faults = 0

    def _tell(self, observation: Observation, problem: Problem) -> None:
        """Take in a trouble of a service that answers."""
        self._answer()
        self.troubles += 1
        self.trouble_began = self.trouble_began or observation
        if self.troubles >= self.settings.confirm:
            self.trouble = problem

    def _forget_trouble(self) -> None:
        self.troubles = 0
        self.trouble = self.trouble_began = None

    def _fail(self, observation: Observation, reason: Reason) -> None:
        self.failures[reason] += 1
        self.last_failure = observation
        self.failed.append(_without_readings(observation))
        if reason is Reason.INTERNAL:
            self._lose_sight()
            return
        problem = trouble_of(self.kind, reason)
        if problem is not None:
            self._tell(observation, problem)
            return
        self._forget_trouble()
        self.faults = 0
        self._streak_reasons[reason] += 1
        self.streak += 1
        self.streak_began = self.streak_began or observation
        # That a process is gone is the kernel's word; a second look adds nothing but delay.
        if reason is Reason.GONE or self.streak >= self.settings.confirm:
            self.down = self.broken = True

    def _lose_sight(self) -> None:
        """Take in a fault of ours: it says nothing about the service; several mean that nothing is known."""
        self.faults += 1
        if self.is_faulty:
            self.down = None
            self._forget_trouble()

    def delay(self, now: float) -> float | None:
        """Seconds until a failing probe is to run again; None when it is on its usual schedule."""
        began = self.streak_began or self.trouble_began
        if began is None or now - began.started > FAST_RECHECKS_FOR:
            return None
        return min(self.settings.interval_on_failure, self.settings.interval)

    @property
    def is_remote(self) -> bool:
        """Whether its looks go over a network, so that they fail when the exporter is cut off."""
        return self.kind not in LOCAL_KINDS

    @property
    def is_faulty(self) -> bool:
        """Whether it cannot look by our own fault, confirmed as an outage is."""
        return self.faults >= self.settings.confirm

    @property
    def failing_now(self) -> bool:
        """Whether the last look over a network said that the service is down, confirmed or not."""
        return self.streak > 0 and self.is_remote

    @property
    def is_sightless(self) -> bool:
        """Whether it knows nothing by our own fault alone; one that saw an outage has to see its end."""
        return self.down is None and self.faults > 0 and self.streak == 0 and not self.broken

    def vouches(self, now: float) -> bool:
        """Whether it saw at monotonic *now*, or shortly before, that the service answers."""
        if self.last is None or not self.is_remote or now - self.last.started > self.settings.fresh_for:
            return False
        return self.down is False and self.streak == 0 and self.faults == 0


def _without_readings(observation: Observation) -> Observation:
    """Return what is worth keeping: only the newest readings are ever told, and there may be hundreds."""
    if not observation.outcome.readings:
        return observation
    return replace(observation, outcome=replace(observation.outcome, readings=()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change of a service's verdict."""

    target: str
    before: Verdict
    after: Verdict
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """The probe that makes a service down."""

    probe: str
    observation: Observation
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is wrong with a service that is not down for it."""

    problem: Problem
    probe: str
    observation: Observation


@dataclass(slots=True, kw_only=True)
class ServiceState:
    """What is known about one service."""

    target: str
    timeout_threshold: float
    error_threshold: int
    since: float
    host: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)  # the user's own
    verdict: Verdict = Verdict.UNKNOWN
    recovered_at: float | None = None  # when it was last up again after it had been down
    probes: dict[str, ProbeState] = field(default_factory=dict)
    process: ProcessFacts | None = None
    broken: bool = False  # was down and has not been seen up since; what is unknown has not recovered

    def record(self, probe: str, observation: Observation) -> Transition | None:
        """Take in what *probe* saw; tell when that changes the verdict."""
        state = self.probes[probe]
        before = state.down
        if not state.record(observation):
            return None
        if state.kind == "process":
            self.process = self._process_after(observation)
        # A probe without sight leans on its neighbours, which may go stale meanwhile.
        return self.rejudge(observation.at) if state.down is None or state.down is not before else None

    def rejudge(self, at: float) -> Transition | None:
        """Decide the verdict anew, after an observation or after probes came or went."""
        before, after = self.verdict, self._judge()
        if after is before:
            return None
        self.verdict, self.since = after, at
        if after is Verdict.DOWN:
            self.broken = True
        elif after is Verdict.UP and self.broken:
            self.recovered_at, self.broken = at, False
        return Transition(target=self.target, before=before, after=after, at=at)

    def _process_after(self, observation: Observation) -> ProcessFacts | None:
        facts = observation.outcome.process
        if facts is not None or observation.reason is not Reason.GONE or self.process is None:
            return facts
        known = self.process
        return ProcessFacts(pid=known.pid, start_time=known.start_time, status=ProcessStatus.GONE)

    def _judge(self) -> Verdict:
        probes = self.probes.values()
        if any(probe.down for probe in probes):
            return Verdict.DOWN
        unsure = [probe for probe in probes if probe.down is None]
        if not unsure:
            return Verdict.UP if probes else Verdict.UNKNOWN
        now = max((probe.last.started for probe in probes if probe.last), default=0.0)
        vouched = any(probe.vouches(now) for probe in probes)
        return Verdict.UP if vouched and all(probe.is_sightless for probe in unsure) else Verdict.UNKNOWN

    @property
    def failing(self) -> Failing | None:
        """The probe that has been down longest, with its last failure."""
        found = [
            Failing(probe=name, observation=state.last_failure, since=state.streak_began.at)
            for name, state in self.probes.items()
            if state.down and state.last_failure and state.streak_began
        ]
        return min(found, key=lambda failing: failing.since, default=None)

    @property
    def trouble(self) -> Trouble | None:
        """What has been confirmed to be wrong for longest, though no service is down for it."""
        found = [
            (
                state.trouble_began.at,
                Trouble(problem=state.trouble, probe=name, observation=state.last_failure),
            )
            for name, state in self.probes.items()
            if state.trouble and state.trouble_began and state.last_failure
        ]
        return min(found, key=lambda one: one[0])[1] if found else None

    @property
    def response_time(self) -> float | None:
        """Seconds the newest network probe took; how long this machine took to look is no answer's time."""
        runs = [state.last for state in self.probes.values() if state.last and state.is_remote]
        return max(runs, key=lambda run: run.started).seconds if runs else None

    @property
    def slow(self) -> bool:
        """Whether the last answer took longer than the service's threshold."""
        return self.response_time is not None and self.response_time > self.timeout_threshold

    @property
    def failing_now(self) -> bool:
        """Whether any last look over a network said that the service is down, confirmed or not."""
        return any(probe.failing_now for probe in self.probes.values())

    def fails_beside(self, state: ProbeState) -> bool:
        """Whether another probe than that of *state* is failing now."""
        return any(probe.failing_now for probe in self.probes.values() if probe is not state)

    @property
    def observed(self) -> bool:
        """Whether every probe has run at least once."""
        return all(probe.last is not None for probe in self.probes.values())


@dataclass(slots=True, kw_only=True)
class WorldState:
    """Everything the exporter knows; what is exposed is rendered from this alone.

    Services are set by ``watch`` and observed by ``record``: how many of them fail is counted there,
    because it is asked with every observation.
    """

    started_at: float
    services: dict[str, ServiceState] = field(default_factory=dict)
    edges: dict[tuple[str, str], ProbeState] = field(default_factory=dict)
    blind_ratio: float = 0.5
    blind_at_least: int = 3
    guarded: int = 0  # services that have probes which look over a network
    failing: int = 0  # those of them that are failing now, confirmed or not

    def watch(self, services: dict[str, ServiceState], edges: dict[tuple[str, str], ProbeState]) -> None:
        """Know these services and edges from now on, and no others."""
        self.services, self.edges = services, edges
        self.guarded = sum(
            any(probe.is_remote for probe in service.probes.values()) for service in services.values()
        )
        self.failing = sum(service.failing_now for service in services.values())

    def record(self, target: str, probe: str, observation: Observation) -> Transition | None:
        """Take in what *probe* of *target* saw; tell when that changes the verdict."""
        service = self.services[target]
        state = service.probes[probe]
        failed = state.failing_now
        transition = service.record(probe, observation)
        if state.failing_now is not failed and not service.fails_beside(state):
            self.failing += -1 if failed else 1
        return transition

    @property
    def blind(self) -> bool:
        """Whether so many targets fail at once that the prober itself is suspected."""
        return (
            self.guarded >= GUARD_FROM
            and self.failing >= self.blind_at_least
            and self.failing > self.blind_ratio * self.guarded
        )

    @property
    def ready(self) -> bool:
        """Whether every probe has run at least once."""
        return all(service.observed for service in self.services.values()) and all(
            edge.last is not None for edge in self.edges.values()
        )
