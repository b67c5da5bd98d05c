"""Decides which changes go out by the fast path, and when."""

import asyncio
import logging
from collections import Counter
from time import time
from urllib.parse import quote

from exporter.config import ALERTMANAGER_LISTEN, WatchConfig
from exporter.counters import Counters
from exporter.fastpath import Alert, FastPath
from exporter.observation import shorten
from exporter.scheduler import Scheduler
from exporter.state import GUARD_FROM, ServiceState, Transition, Verdict

log = logging.getLogger(__name__)


def alertmanagers_of(config: WatchConfig) -> tuple[str, ...]:
    """Return where alerts go: as the exporter's section says, else to the stack's own Alertmanager."""
    if not config.exporter.fast_path:
        return ()
    if config.exporter.alertmanagers:
        return config.exporter.alertmanagers
    # The section is the remediator's; the exporter knows of it only where it listens.
    section = config.alertmanager
    listen = section.get("listen") if isinstance(section, dict) else None
    return (f"http://{listen if isinstance(listen, str) else ALERTMANAGER_LISTEN}",)


LINES = 20
"""A second for changes in the log. Thousands of services change at once when a network goes."""


class ShortLog:
    """Writes LINES lines a second at most, and at its end how many of which kind it has left out."""

    def __init__(self) -> None:
        self._written = 0
        self._left_out: Counter[tuple[int, str]] = Counter()
        self._second: asyncio.TimerHandle | None = None

    def write(self, level: int, kind: str, message: str, *values: object) -> None:
        """Write a line, or count it as one of *kind*."""
        if self._second is None:
            self._second = asyncio.get_running_loop().call_later(1.0, self.flush)
        if self._written < LINES:
            self._written += 1
            log.log(level, message, *values)
        else:
            self._left_out[level, kind] += 1

    def flush(self) -> None:
        """Say what was left out, and begin a new second."""
        if self._second is not None:
            self._second.cancel()
            self._second = None
        self._written = 0
        for (level, kind), number in self._left_out.items():
            log.log(level, "and %s more services in the same second: %s", f"{number:,}", kind)
        self._left_out.clear()


class Publisher:
    """Raises and resolves fast-path alerts; holds them back while the exporter seems blind."""

    def __init__(self, counters: Counters, link: str) -> None:
        self.scheduler: Scheduler | None = None
        self._counters = counters
        self._link = link
        self._path = FastPath((), refresh=1, counters=counters)
        self._shape: tuple[tuple[str, ...], float] | None = None
        self._published: dict[str, Alert] = {}
        self.withheld: set[str] = set()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._told = ShortLog()

    async def apply(self, config: WatchConfig) -> None:
        """Send to the Alertmanagers of *config* from now on, standing alerts too."""
        watched = {name for name, service in config.services.items() if service.all_probes()}
        for target in self._published.keys() - watched:
            self._resolve(target)
        self.withheld &= watched
        shape = (alertmanagers_of(config), config.exporter.refresh)
        if shape == self._shape:
            return
        old = self._path
        self._path = FastPath(shape[0], refresh=shape[1], counters=self._counters)
        self._shape = shape
        self._path.start()
        for alert in self._published.values():
            self._path.down(alert)
        log.info("fast path: alerts go to %s", ", ".join(self._path.names) or "nobody, it is switched off")
        await old.stop()

    async def stop(self) -> None:
        """Stop sending."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._told.flush()
        await self._path.stop()

    def on_transition(self, transition: Transition) -> None:
        """Take in a change of verdict."""
        target = transition.target
        change = f"{transition.after} (was {transition.before})"
        self._told.write(logging.INFO, change, "%s is %s%s", target, change, self._why(target))
        if transition.after is Verdict.DOWN:
            task = asyncio.create_task(self._publish(target))
            self._asking[target] = task
            task.add_done_callback(lambda done: self._asked(target, done))
        elif transition.after is Verdict.UP:
            self._resolve(target)
        # What is unknown has not recovered: its alert stands until somebody sees the service up.

    def on_record(self) -> None:
        """Let out what was held back, once the exporter sees again."""
        if self.withheld and not self._scheduler.world.blind:
            for target in sorted(self.withheld):
                self._raise(target)
            self.withheld.clear()

    @property
    def _scheduler(self) -> Scheduler:
        if self.scheduler is None:
            raise RuntimeError("the publisher is used before the scheduler is known")
        return self.scheduler

    async def _publish(self, target: str) -> None:
        """Raise the alert of *target*, unless the peers show that it is the exporter that is blind."""
        world = self._scheduler.world
        guarded = world.guarded >= GUARD_FROM
        if guarded and not await self._scheduler.peers_answer(target) and world.blind:
            self._told.write(
                logging.WARNING,
                "alerts held back",
                "most targets fail at once: the alert of %s is held back",
                target,
            )
            self.withheld.add(target)
            return
        self._raise(target)

    def _asked(self, target: str, task: "asyncio.Task[None]") -> None:
        if self._asking.get(target) is task:
            del self._asking[target]
        if not task.cancelled() and task.exception() is not None:
            self._counters.internal_errors["fast_path"] += 1
            log.error("the alert of %s was not published", target, exc_info=task.exception())

    def _raise(self, target: str) -> None:
        """Raise the alert, if the service is (still) down."""
        state = self._scheduler.world.services.get(target)
        if state is None or state.verdict is not Verdict.DOWN:
            return
        alert = Alert(
            target=target,
            description=describe(state),
            starts_at=state.since,
            link=f"{self._link}/state?target={quote(target)}",
        )
        self._published[target] = alert
        self._path.down(alert)

    def _resolve(self, target: str) -> None:
        self.withheld.discard(target)
        if self._published.pop(target, None) is not None:
            self._path.up(target)

    def _why(self, target: str) -> str:
        failing = self._scheduler.world.services[target].failing
        if failing is None:
            return ""
        return f": {failing.probe}: {failing.observation.reason}: {failing.observation.outcome.detail}"


def describe(state: ServiceState) -> str:
    """Say in a sentence what makes the service down."""
    failing = state.failing
    if failing is None:
        return f"{state.target} is down."
    seen = failing.observation
    for_seconds = max(0.0, time() - failing.since)
    return shorten(
        f"{state.target} is down: its probe {failing.probe} fails for {for_seconds:.1f} s"
        f" ({seen.reason}: {seen.outcome.detail})."
    )
