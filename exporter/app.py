"""The exporter as one thing: configuration, scheduler, fast path and the HTTP interface."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from time import time

from aiohttp import web

from exporter import answers
from exporter.access import DOOR, Door, add_headers, authenticate, refuse_foreign
from exporter.config import WatchConfig
from exporter.counters import Counters
from exporter.discovery import Discoverer
from exporter.document import ConfigError, Mistake
from exporter.http_sd import http_sd_text
from exporter.loading import load_config
from exporter.observation import Observation
from exporter.page import landing_page
from exporter.probing import Prober
from exporter.publisher import Publisher
from exporter.scheduler import Scheduler, load_probes
from exporter.scrape import Scrapes
from exporter.serving import NO_OVERRIDES, Overrides, note_request, unprotected
from exporter.state import WorldState
from exporter.streaming import stream
from exporter.webconfig import OPEN, WebConfig, load_web_config

CHECK_LIMIT = 50
JSON = "application/json; charset=utf-8"

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Exporter:
    """Observes what its configuration says; the configuration can change while it runs."""

    def __init__(
        self,
        file: Path,
        config: WatchConfig,
        listen: str,
        *,
        web_config: WebConfig = OPEN,
        overrides: Overrides = NO_OVERRIDES,
    ) -> None:
        self._file = file
        self._listen = listen
        self._overrides = overrides
        self._given = config  # as it was read; what is watched is more by discovery and less by shard
        self.config = config
        self.door = Door(web_config)
        self.discoverer = Discoverer(self._rediscovered, file.parent)
        self.world = WorldState(started_at=time())
        self.counters = Counters(reload_success_at=time())
        self.publisher = Publisher(self.counters, link=f"{web_config.scheme}://{listen}")
        self.scheduler = Scheduler(
            world=self.world,
            counters=self.counters,
            on_transition=self.publisher.on_transition,
            on_record=self.publisher.on_record,
        )
        self.publisher.scheduler = self.scheduler
        self.prober = Prober(self.scheduler, self.counters)
        self._reloading = asyncio.Lock()
        self._by_signal = asyncio.Lock()
        self._signalled = False  # whether a reload by a signal waits for its turn
        self._mistaken: set[str] = set()  # "configuration", "protection": what was last read and not usable

    async def start(self) -> None:
        """Begin to watch."""
        self.scheduler.start()
        async with self._reloading:
            await self._apply(self._given)

    async def stop(self) -> None:
        """Stop watching; nothing is said about the services any more."""
        await self.discoverer.stop()
        await self.publisher.stop()
        await self.scheduler.stop()
        await self.prober.stop()

    async def reload(self) -> None:
        """Read the configuration again. Raises ConfigError and changes nothing when it has mistakes."""
        async with self._reloading:
            try:
                config = await asyncio.to_thread(self._read, self._given)
                protection = await asyncio.to_thread(self._protection_of, config)
                # What may fail comes before anything has changed.
                await asyncio.to_thread(load_probes, config)
                await self.door.use(protection)
                await self.scheduler.renew()
                await self.prober.renew()
                await self._apply(config)
            except ConfigError:
                self._failed("configuration")
                raise
            except Exception:
                self._failed("configuration")
                self.counters.internal_errors["reload"] += 1
                raise
            self._mistaken.clear()
            self._succeeded()

    async def reload_by_signal(self) -> None:
        """Reload, with the mistakes in the log; signals that come before it has begun are one."""
        if self._signalled:
            return
        self._signalled = True
        async with self._by_signal:
            self._signalled = False
            await self._reload_and_tell()

    async def _reload_and_tell(self) -> None:
        try:
            await self.reload()
        except ConfigError as error:
            log.error("the configuration stays as it was:\n%s", error)  # noqa: TRY400 - mistakes, no traceback
        except Exception:  # counted by reload
            log.exception("the configuration could not be applied")
        else:
            log.info("the configuration was read again")

    async def reload_protection(self) -> None:
        """Read the web configuration and its files again; what cannot be used changes nothing."""
        try:
            async with self._reloading:
                await self.door.use(await asyncio.to_thread(self._protection_of, self._given))
        except ConfigError as error:
            self._failed("protection")
            log.error("the web configuration stays as it was:\n%s", error)  # noqa: TRY400 - no traceback
        except Exception:
            # The edge: new files are waited for, whatever is in these.
            self._failed("protection")
            self.counters.internal_errors["reload"] += 1
            log.exception("the web configuration could not be applied")
        else:
            self._mistaken.discard("protection")
            self._succeeded()
            log.info("the web configuration was read again")

    def _failed(self, what: str) -> None:
        self._mistaken.add(what)
        self.counters.reload_successful = False

    def _succeeded(self) -> None:
        """Tell of a success, unless a mistake in the other file still stands."""
        if not self._mistaken:
            self.counters.reload_successful = True
            self.counters.reload_success_at = time()

    def _read(self, before: WatchConfig) -> WatchConfig:
        """Return what the file says now, with the objects of *before* where that is the same.

        So what did not change costs the loop nothing: thousands of services take long to compare.
        """
        read = load_config(self._file, WatchConfig)
        services = {
            name: known if (known := before.services.get(name)) == service else service
            for name, service in read.services.items()
        }
        section = before.exporter if before.exporter == read.exporter else read.exporter
        return read.model_copy(update={"services": services, "exporter": section})

    def _protection_of(self, config: WatchConfig) -> WebConfig:
        protection = load_web_config(self._overrides.web_config_of(config, self._file))
        refusal = unprotected(self._listen, protection)
        if refusal is not None:
            raise ConfigError([Mistake(file=str(self._file), line=None, place="", message=refusal)])
        return protection

    async def _apply(self, config: WatchConfig) -> None:
        self._given = config
        await self.discoverer.apply(config)
        self.counters.discovery = self.discoverer.counts
        await self._watch()

    async def _rediscovered(self) -> None:
        async with self._reloading:
            await self._watch()

    async def _watch(self) -> None:
        """Watch what the configuration and the sources name, as far as it is of this shard."""
        config = self._overrides.shard_of(self._given).of(self.discoverer.merged(self._given))
        self.scheduler.apply(config)  # first, as it may fail, and so that no alert is raised of what has gone
        await self.publisher.apply(config)
        self.prober.apply(config)
        self.config = config

    async def check(self, targets: list[str]) -> Mapping[str, Mapping[str, Observation] | None]:
        """Run the probes of *targets* now; None for those that nobody knows."""

        async def one(target: str) -> Mapping[str, Observation] | None:
            return await self.scheduler.check(target) if target in self.world.services else None

        unique = list(dict.fromkeys(targets))
        return dict(zip(unique, await asyncio.gather(*map(one, unique)), strict=True))


EXPORTER = web.AppKey("EXPORTER", Exporter)


def make_app(exporter: Exporter) -> web.Application:
    """Return the HTTP interface of *exporter*."""
    app = web.Application(middlewares=[_count_faults, note_request, authenticate, refuse_foreign])
    app[EXPORTER] = exporter
    app[DOOR] = exporter.door
    app.on_response_prepare.append(add_headers)
    app.add_routes(
        [
            web.get("/", _index),
            web.get("/metrics", Scrapes(exporter.world, exporter.counters).answer),
            web.get("/state", _state),
            web.get("/check", _check),
            web.get("/probe", exporter.prober.answer),
            web.get("/logs", exporter.prober.logs),
            web.get("/http_sd", _http_sd),
            web.get("/-/healthy", _healthy),
            web.get("/-/ready", _ready),
            web.post("/-/reload", _reload),
        ]
    )
    return app


@web.middleware
async def _count_faults(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception:
        # The edge: one request fails, the watch goes on.
        request.app[EXPORTER].counters.internal_errors["request"] += 1
        # The path as it was sent: with its escapes undone it could have lines of its own.
        log.exception("%s %s failed", request.method, request.rel_url.raw_path)
        return web.json_response({"error": "internal error"}, status=500)


async def _index(request: web.Request) -> web.Response:
    exporter = request.app[EXPORTER]
    return web.Response(text=landing_page(exporter.world, exporter.prober.history), content_type="text/html")


async def _state(request: web.Request) -> web.StreamResponse:
    world = request.app[EXPORTER].world
    target = request.query.get("target")
    if target is not None and target not in world.services:
        return web.json_response({"error": "there is no such target"}, status=404)
    return await stream(request, answers.state_pieces(world, target), JSON)


async def _check(request: web.Request) -> web.Response:
    exporter = request.app[EXPORTER]
    targets = request.query.getall("target", [])
    if not 0 < len(targets) <= CHECK_LIMIT:
        return web.json_response({"error": f"name 1 to {CHECK_LIMIT} targets"}, status=400)
    checks = exporter.check(targets)
    if request.query.get("peers") == "true":
        seen, _ = await asyncio.gather(checks, exporter.scheduler.peers_answer(targets[0]))
    else:
        seen = await checks
    return web.json_response(answers.check_of(exporter.world, seen))


async def _http_sd(request: web.Request) -> web.Response:
    exporter = request.app[EXPORTER]
    text = await asyncio.to_thread(  # thousands of services take longer than the probes should wait
        http_sd_text,
        exporter.config.services,
        address=request.host,
        scheme=exporter.door.config.scheme,
        sources=exporter.discoverer.origins(),
    )
    return web.json_response(text=text)


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="healthy\n")


async def _ready(request: web.Request) -> web.Response:
    ready = request.app[EXPORTER].world.ready
    return web.Response(
        text="ready\n" if ready else "not every probe has run yet\n", status=200 if ready else 503
    )


async def _reload(request: web.Request) -> web.Response:
    try:
        await request.app[EXPORTER].reload()
    except ConfigError as error:
        return web.json_response({"mistakes": [str(mistake) for mistake in error.mistakes]}, status=400)
    return web.json_response({"reloaded": True})
