"""``/probe``: a service of the configuration, or any allowed target by a module, is asked now.

As with blackbox_exporter a failed probe is an answer with probe_success 0, never an error; what cannot
be asked at all is status 400, and a target that nobody has allowed is status 403.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import yaml
from aiohttp import web

from exporter.blackbox import Probed, blackbox_families
from exporter.config import ExporterSection, WatchConfig
from exporter.counters import Counters
from exporter.exposition import render
from exporter.gate import ForbiddenAddressError, Gate, gate_of
from exporter.history import History
from exporter.kinds import ProbeBase
from exporter.limits import concurrency_for
from exporter.looking import Look, look, told
from exporter.negotiation import negotiate
from exporter.observation import Reason, shorten
from exporter.plans import settings_of
from exporter.probes import probe_function
from exporter.probes.context import Context, Tools
from exporter.scheduler import Scheduler
from soulfra_monitor.redaction import MASK, redact, redact_value

if TYPE_CHECKING:
    from exporter.modules import Module

SCRAPE_OFFSET = 0.5  # seconds of Prometheus's scrape timeout that are left for the answer's way
PROBE_LIMIT = 30.0
SHARE = 4  # so many times fewer run at once than probes of the schedule, beside those
TARGET_SHOWN = 200  # characters
MADE_AT_MOST = 2048  # probes of free targets
DEFAULT_MODULE = "http_2xx"
_DIGITS = 18  # of the number of a probe
_LOGINS = ("auth", "pass", "login", "user", "authenticate", "sasl")

_TIMEOUT_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"


class RefusedError(Exception):
    """A question that is not asked of the target, and why."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What one request wants to know."""

    target: str
    module_name: str  # empty for a service of the configuration
    module: "Module | None"
    probes: Mapping[str, tuple[ProbeBase, float]]  # each with the seconds it may take
    gate: Gate
    limit: float
    recall: dict[str, Any] = field(default_factory=dict)  # what the probe of a module has made ready


class Prober:
    """Answers ``/probe``, at most so many at once, and keeps what it saw for the landing page."""

    def __init__(self, scheduler: Scheduler, counters: Counters) -> None:
        self.history = History()
        self._faults = counters.internal_errors
        self._scheduler = scheduler
        self._config = WatchConfig()
        self._section: ExporterSection | None = None
        self._gate = gate_of(())
        self._tools = Tools()
        self._free = asyncio.Semaphore(1)
        self._made: dict[tuple[str, str, str], tuple[ProbeBase, dict[str, Any]]] = {}

    def apply(self, config: WatchConfig) -> None:
        """Ask as *config* says from now on."""
        self._config = config
        if config.exporter is self._section:  # other services alone
            return
        self._section = config.exporter
        self._gate = gate_of(config.exporter.allow_targets)
        self._made.clear()
        at_once = concurrency_for(config.exporter.concurrency) // SHARE
        self._free = asyncio.Semaphore(max(1, at_once))
        for module in config.exporter.modules.values():
            if not module.obstacles():
                probe_function(module.prober)  # loaded now, so that no first probe waits for it
        self._tools.resolver.source = config.exporter.resolver

    async def renew(self) -> None:
        """Read certificate files and ask for addresses anew from now on."""
        await self._tools.renew()

    async def stop(self) -> None:
        """Let go of everything."""
        await self._tools.close()

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request."""
        try:
            question = self._question(request)
            if request.query.get("debug") == "true":
                return _text(await self._debug(question))
            probed = await self._probe(question)
        except RefusedError as refused:
            return _text(f"{refused.message}\n", refused.status)
        written = negotiate(request.headers.get("Accept", ""))
        text = render(blackbox_families(probed), openmetrics=written.openmetrics)
        return web.Response(body=text.encode(), headers={"Content-Type": written.content_type})

    async def logs(self, request: web.Request) -> web.Response:
        """Show the debug output of a probe that is kept."""
        number = request.query.get("id", "")
        known = number.isdecimal() and len(number) <= _DIGITS
        past = self.history.find(int(number)) if known else None
        if past is None:
            return _text("this probe is not kept any more\n", HTTPStatus.NOT_FOUND)
        return _text(past.tell())

    def _question(self, request: web.Request) -> Question:
        target = request.query.get("target", "")
        limit = _limit(request.headers.get(_TIMEOUT_HEADER, ""))
        name = request.query.get("module", "")
        if not target:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "Target parameter is missing")
        if not name and target in self._config.services:
            return self._of_service(target, limit)
        return self._of_module(name or DEFAULT_MODULE, target, request.query.get("hostname", ""), limit)

    def _of_service(self, target: str, limit: float) -> Question:
        section = self._config.exporter
        service = self._config.services[target]
        probes = {
            name: (probe, min(settings_of(probe, section).timeout, limit))
            for name, probe in service.all_probes()
        }
        return Question(
            target=target, module_name="", module=None, probes=probes, gate=service.gate, limit=limit
        )

    def _of_module(self, name: str, target: str, hostname: str, limit: float) -> Question:
        module = self._config.exporter.modules.get(name)
        if module is None:
            known = ", ".join(sorted(self._config.exporter.modules)) or "there is none in the configuration"
            raise RefusedError(
                HTTPStatus.BAD_REQUEST,
                f'there is no service {target!r}, and without one a module is needed: Unknown module "{name}"'
                f" (modules: {known})",
            )
        obstacles = module.obstacles()
        if obstacles:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, f"module {name} cannot be used: {'; '.join(obstacles)}"
            )
        probe, recall = self._made_of(name, module, target, hostname)
        limit = min(module.timeout or limit, limit)
        return Question(
            target=target,
            module_name=name,
            module=module,
            probes={module.prober: (probe, limit)},
            gate=self._gate,
            limit=limit,
            recall=recall,
        )

    def _made_of(
        self, name: str, module: "Module", target: str, hostname: str
    ) -> tuple[ProbeBase, dict[str, Any]]:
        """Return the probe of a module and an allowed target, made when it was first asked for."""
        key = (name, target, hostname)
        known = self._made.get(key)
        if known is not None:
            return known
        # Here, because those who have no modules should not pay for them.
        from exporter.translation import TargetError, probe_of  # noqa: PLC0415

        try:
            made: tuple[ProbeBase, dict[str, Any]] = probe_of(module, target, hostname), {}
        except TargetError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        self._admit(target, made[0])
        if len(self._made) >= MADE_AT_MOST:
            self._made.clear()
        self._made[key] = made
        return made

    def _admit(self, target: str, probe: ProbeBase) -> None:
        """Refuse what nobody has allowed. What a name leads to is looked at when it is connected to."""
        host, port = probe.address() or ("", 0)
        try:
            self._gate.admit(host, port)
        except ForbiddenAddressError as error:
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            service = f"; {target} is a service: leave module out" if target in self._config.services else ""
            raise RefusedError(
                HTTPStatus.FORBIDDEN,
                f"{error}; write its address, network or name there, for example"
                f" allow_targets: ['{place}']{service}",
            ) from error

    async def _probe(self, question: Question) -> Probed:
        if question.module is None:
            async with self._slot(question.limit) as left:
                started = monotonic()
                seen = await self._scheduler.check(question.target, within=left)
            missing = tuple(name for name in question.probes if name not in seen)
            return Probed(
                observations=seen,
                missing=missing,
                seconds=monotonic() - started,
                limit=question.limit,
                kinds=_kinds(question),
            )
        probed, looks = await self._look(question)
        self._keep(question, probed, looks)
        return probed

    async def _debug(self, question: Question) -> str:
        probed, looks = await self._look(question)
        self._keep(question, probed, looks)
        return _debug_text(question, probed, looks)

    async def _look(self, question: Question) -> tuple[Probed, list[Look]]:
        """Run the probes with every step noted; not part of what is known about a service."""
        async with self._slot(question.limit) as left:
            started = monotonic()
            looks = await asyncio.gather(
                *(
                    look(name, probe, self._context(question, name, min(limit, left)), self._faults)
                    for name, (probe, limit) in question.probes.items()
                )
            )
        probed = Probed(
            observations={one.name: one.observation for one in looks},
            missing=(),
            seconds=monotonic() - started,
            limit=question.limit,
            kinds=_kinds(question),
        )
        return probed, looks

    def _context(self, question: Question, name: str, limit: float) -> Context:
        # Beside network probes a stopped process is told by their time-outs.
        alone = all(probe.kind == "process" for probe, _ in question.probes.values())
        recall = question.recall if question.module else self._scheduler.recall_beside(question.target, name)
        return Context(
            timeout=limit,
            tools=self._tools,
            gate=question.gate,
            notes=[],
            recall=recall,
            stopped_fails=alone,
        )

    @asynccontextmanager
    async def _slot(self, limit: float) -> AsyncIterator[float]:
        """Hold a place and tell how many of the *limit* seconds are left with it."""
        free, asked = self._free, monotonic()
        try:
            async with asyncio.timeout(limit):  # wait_for could lose a place that a cancelled one just got
                await free.acquire()
        except TimeoutError as error:
            message = "too many probes run at once; raise exporter.concurrency or ask less often"
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, message) from error
        try:
            yield max(0.001, limit - (monotonic() - asked))
        finally:
            free.release()

    def _keep(self, question: Question, probed: Probed, looks: list[Look]) -> None:
        reason = next(iter(probed.failures.values()), None)
        self.history.add(
            at=time(),
            seconds=probed.seconds,
            module=question.module_name,
            target=shorten(redact(question.target), TARGET_SHOWN),
            reason="" if probed.success else reason or Reason.INTERNAL,
            tell=partial(_debug_text, question, probed, looks),
        )


def _text(text: str, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    # It repeats what strangers have said; no browser is to find markup in that.
    sure = {"X-Content-Type-Options": "nosniff"}
    return web.Response(text=text, status=status, content_type="text/plain", headers=sure)


def _kinds(question: Question) -> Mapping[str, str]:
    return {name: probe.kind for name, (probe, _) in question.probes.items()}


def _debug_text(question: Question, probed: Probed, looks: list[Look]) -> str:
    by = f"module {question.module_name}" if question.module else "its own probes"
    word = "succeeded" if probed.success else "FAILED"
    took = f"{probed.seconds:.3f} s (limit {question.limit:g} s)"
    parts = [
        f"{redact(question.target)}, asked by {by}: {word} after {took}\n\n",
        f"Logs for the probe:\n{told(looks)}\n\n",
        f"Metrics that would have been returned:\n{render(blackbox_families(probed), openmetrics=False)}\n",
    ]
    if question.module is not None:
        parts.append(f"Module configuration:\n{module_text(question.module)}")
    return "".join(parts)


def module_text(module: "Module") -> str:
    """Write a module as it stands in its file, what is not set left out and secrets masked."""
    given = module.model_dump(mode="json", exclude_unset=True, include={"prober", "timeout", module.prober})
    if "timeout" in given and given["timeout"] is not None:
        given["timeout"] = f"{given['timeout']:g}s"
    text: str = yaml.safe_dump(redact_value(_without_logins(given)), sort_keys=False, width=100)
    return text


def _without_logins(given: dict[str, Any]) -> dict[str, Any]:
    """Mask what is sent over TCP to log in: no key tells that it is secret."""
    tcp = given.get("tcp")
    if not tcp or not tcp.get("query_response"):
        return given
    steps = [
        {**step, "send": MASK} if (step.get("send") or "").lower().startswith(_LOGINS) else step
        for step in tcp["query_response"]
    ]
    return {**given, "tcp": {**tcp, "query_response": steps}}


def _limit(header: str) -> float:
    """Return the seconds a scrape leaves us. Raises RefusedError when the header is not a number."""
    if not header:
        return PROBE_LIMIT
    try:
        seconds = float(header)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{_TIMEOUT_HEADER} is not a number")
    offset = SCRAPE_OFFSET if seconds > 2 * SCRAPE_OFFSET else 0.0
    return min(seconds - offset, PROBE_LIMIT)
