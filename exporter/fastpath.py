"""Tells Alertmanagers at once that a service is down, without the seconds that scrape and rule cost.

Every Alertmanager has its own sender, so that a dead one holds up no other. A standing alert is
sent again every ``refresh``; when the exporter dies it ends by itself after three of them.
"""

import asyncio
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from time import time
from typing import Any

import aiohttp
from yarl import URL

from exporter.counters import Counters

RUNBOOK = "https://github.com/Soulfra/soulfra-monitor/blob/main/docs/runbooks/SoulfraServiceDown.md"
POST_TIMEOUT = 2.0
RESOLVE_SENDS = 3  # a resolve that gets lost would linger until the alert's end
FIRST_RETRY = 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One service that is down, or was until ``resolved_at``."""

    target: str
    description: str
    starts_at: float
    link: str
    resolved_at: float | None = None
    sends_left: int = RESOLVE_SENDS


def payload_of(alert: Alert, now: float, refresh: float) -> dict[str, Any]:
    """Return the alert as Alertmanager's API v2 takes it: none whose end lies before its start.

    It would, for a while, when the clock has been set back meanwhile.
    """
    ends_at = now + 3 * refresh if alert.resolved_at is None else alert.resolved_at
    return {
        "labels": {
            "alertname": "SoulfraServiceDown",
            "target": alert.target,
            "problem": "service_down",
            "severity": "critical",
            "origin": "exporter",
        },
        "annotations": {
            "summary": "A service is down.",
            "description": alert.description,
            "runbook_url": RUNBOOK,
        },
        "startsAt": _rfc3339(min(alert.starts_at, now, ends_at)),
        "endsAt": _rfc3339(ends_at),
        "generatorURL": alert.link,
    }


class FastPath:
    """The alerts that stand, and a sender for every Alertmanager."""

    def __init__(self, alertmanagers: Iterable[str], *, refresh: float, counters: Counters) -> None:
        self._senders = [_Sender(url, refresh, counters) for url in alertmanagers]

    @property
    def names(self) -> tuple[str, ...]:
        """The addresses alerts go to, without what is secret in them."""
        return tuple(sender.name for sender in self._senders)

    def start(self) -> None:
        """Start the senders."""
        for sender in self._senders:
            sender.start()

    async def stop(self) -> None:
        """Stop the senders. Standing alerts are not resolved: nothing has recovered."""
        await asyncio.gather(*(sender.stop() for sender in self._senders))

    def down(self, alert: Alert) -> None:
        """Raise *alert* everywhere, in place of what was said about its target."""
        for sender in self._senders:
            sender.put(alert)

    def up(self, target: str) -> None:
        """Resolve the alert of *target*; nothing happens when there is none."""
        now = time()
        for sender in self._senders:
            standing = sender.alerts.get(target)
            if standing is not None and standing.resolved_at is None:
                sender.put(replace(standing, resolved_at=now))


class _Sender:
    """Sends to one Alertmanager, and tries again until it has the truth."""

    def __init__(self, url: str, refresh: float, counters: Counters) -> None:
        self.alerts: dict[str, Alert] = {}
        self._url = URL(url) / "api" / "v2" / "alerts"
        self.name = str(URL(url).with_user(None).with_query(None))
        self._refresh = refresh
        self._counters = counters
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        counters.posts[self.name] += 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def put(self, alert: Alert) -> None:
        self.alerts[alert.target] = alert
        self._wake.set()

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=POST_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            delay: float | None = None
            retry = FIRST_RETRY
            while True:
                await self._wait(delay)
                if not self.alerts:
                    delay = None
                elif await self._send(session):
                    delay, retry = self._refresh, FIRST_RETRY
                else:
                    delay, retry = min(retry, self._refresh), retry * 2

    async def _send(self, session: aiohttp.ClientSession) -> bool:
        """Send all alerts, and tell whether they were taken. Never raises."""
        batch = list(self.alerts.values())
        try:
            failure = await self._post(session, batch)
        except Exception as error:
            # The edge: a fault of ours in one post must not end all those after it.
            self._counters.internal_errors["fast_path"] += 1
            failure = f"failed by itself: {type(error).__name__}"
            log.exception("fast path: a post to %s failed by itself", self.name)
        if failure is None:
            self._settle(batch)
        else:
            self._counters.post_failures[self.name] += 1
        self._log(failure)
        return failure is None

    async def _wait(self, delay: float | None) -> None:
        try:
            async with asyncio.timeout(delay):
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._wake.clear()

    async def _post(self, session: aiohttp.ClientSession, batch: list[Alert]) -> str | None:
        """Post *batch* once; return None when it was taken, else why not."""
        now = time()
        self._counters.posts[self.name] += 1
        body = [payload_of(alert, now, self._refresh) for alert in batch]
        try:
            # A redirect would be followed by a GET, whose success says nothing about the alerts.
            async with session.post(self._url, json=body, allow_redirects=False) as answer:
                return None if answer.status == HTTPStatus.OK else f"status {answer.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return _told(error)

    def _log(self, failure: str | None) -> None:
        """Log the change, not every post."""
        if failure is not None and not self._failing:
            log.warning("fast path: %s does not take alerts: %s", self.name, failure)
        if failure is None and self._failing:
            log.info("fast path: %s takes alerts again", self.name)
        self._failing = failure is not None

    def _settle(self, batch: list[Alert]) -> None:
        """Count down the resolves that were sent; an alert that changed meanwhile stays as it is."""
        for sent in batch:
            if sent.resolved_at is None or self.alerts.get(sent.target) is not sent:
                continue
            if sent.sends_left > 1:
                self.alerts[sent.target] = replace(sent, sends_left=sent.sends_left - 1)
            else:
                del self.alerts[sent.target]


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="milliseconds")


def _told(error: Exception) -> str:
    """Say why nobody answered, in words."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate cannot be verified"
        case aiohttp.ClientConnectorDNSError():
            return "its name leads to no address"
        case aiohttp.ClientConnectorError() if error.os_error.errno:
            return os.strerror(error.os_error.errno).lower()
        case TimeoutError():
            return "no answer in time"
        case _:
            return type(error).__name__
