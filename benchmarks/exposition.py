"""What a scrape costs: lines, time, the largest hold of the event loop and memory, by number of targets.

    python benchmarks/exposition.py [--targets 100 1000 5000] [--scrapes 5] [--prometheus]

Every run is a process of its own, in which each target has a plain HTTP probe that ran since the last
scrape, so that nothing that was written before can be used again. It is asked by a real GET over
loopback; --prometheus also has a real Prometheus scrape it. prometheus_client writes the same series
beside it. Takes under a minute, with --prometheus under two.
"""

import argparse
import asyncio
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PROMETHEUS_SECONDS = 25
TICK = 0.0005


def main() -> None:
    """Run every size in a process of its own and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--targets", type=int, nargs="+", default=[100, 1000, 5000])
    arguments.add_argument("--scrapes", type=int, default=5)
    arguments.add_argument("--prometheus", action="store_true")
    arguments.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one:
        print(json.dumps(measure(given.targets[0], given.scrapes, with_prometheus=given.prometheus)))
        return
    for number, targets in enumerate(given.targets):
        options = ["--targets", str(targets), "--scrapes", str(given.scrapes)]
        more = ["--prometheus"] if given.prometheus else []
        done = subprocess.run(
            [sys.executable, __file__, "--one", *options, *more], check=True, capture_output=True, text=True
        )
        figures = json.loads(done.stdout)
        if number == 0:
            print(" | ".join(figures))
        print(" | ".join(str(value) for value in figures.values()))


def measure(targets: int, scrapes: int, *, with_prometheus: bool) -> dict[str, Any]:
    """Return the figures of one size."""
    import uvloop  # noqa: PLC0415 - the parent needs none of it

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(_measure(targets, scrapes, with_prometheus=with_prometheus))
    figures["generate_latest ms"] = _by_prometheus_client(targets)
    return figures


async def _measure(targets: int, scrapes: int, *, with_prometheus: bool) -> dict[str, Any]:
    from aiohttp import web  # noqa: PLC0415 - as above

    from exporter.counters import Counters  # noqa: PLC0415
    from exporter.scrape import Scrapes  # noqa: PLC0415

    world = _world(targets)
    app = web.Application()
    app.router.add_get("/metrics", Scrapes(world, Counters()).answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    gc.freeze()  # as the exporter does after its start
    scraper = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRAPER, f"http://127.0.0.1:{port}/metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    seen = []
    for _ in range(scrapes + 1):
        _run_all(world)
        seen.append(await _scrape(scraper))
    scraper.terminate()
    await scraper.wait()
    first, *later = seen
    seconds = sorted(one.seconds for one in later)
    cpu = sorted(one.cpu for one in later)[len(later) // 2]
    lines = first.lines
    figures = {
        "targets": targets,
        "lines": lines,
        "first scrape ms": round(1e3 * first.seconds, 1),
        "scrape ms (median)": round(1e3 * seconds[len(seconds) // 2], 1),
        "scrape ms (largest)": round(1e3 * seconds[-1], 1),
        "CPU us per line": round(1e6 * cpu / lines, 2),
        "loop held ms (largest)": round(1e3 * max(one.held for one in later), 1),
        "of that garbage collector": round(1e3 * max(one.collected for one in later), 1),
        "RSS MB": _resident_mb(),
    }
    if with_prometheus:
        figures |= await _by_prometheus(world, port)
    await runner.cleanup()
    return figures


@dataclass(frozen=True)
class Scrape:
    """What one scrape cost. ``held`` and ``collected`` are the longest stretches of each."""

    seconds: float
    lines: int
    cpu: float
    held: float
    collected: float


SCRAPER = """
import sys, time, urllib.request
for _ in sys.stdin:
    begun = time.monotonic()
    body = urllib.request.urlopen(sys.argv[1]).read()
    print(time.monotonic() - begun, body.count(b'\\n'), flush=True)
"""


async def _scrape(scraper: asyncio.subprocess.Process) -> Scrape:
    """Have another process GET /metrics."""
    held = collected = began = 0.0

    async def watch() -> None:
        nonlocal held
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK)
            held = max(held, time.monotonic() - before - TICK)

    def on_collection(phase: str, _: object) -> None:
        nonlocal began, collected
        if phase == "start":
            began = time.monotonic()
        else:
            collected = max(collected, time.monotonic() - began)

    if scraper.stdin is None or scraper.stdout is None:
        raise RuntimeError("the scraper has no pipes")
    gc.callbacks.append(on_collection)
    watching, used = asyncio.create_task(watch()), time.process_time()
    scraper.stdin.write(b"\n")
    seconds, lines = (await scraper.stdout.readline()).split()
    cpu = time.process_time() - used
    watching.cancel()
    gc.callbacks.remove(on_collection)
    return Scrape(float(seconds), int(lines), cpu, held, collected)


async def _by_prometheus(world: Any, port: int) -> dict[str, Any]:
    """Have a real Prometheus scrape it for some seconds, while every target is probed once in 5 s."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scrapes = {"job_name": "x", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        config = {"global": {"scrape_interval": "5s", "scrape_timeout": "4s"}, "scrape_configs": [scrapes]}
        (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
        listen = _free_port()
        process = await asyncio.create_subprocess_exec(
            *("prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder}"),
            f"--web.listen-address=127.0.0.1:{listen}",
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            end = time.monotonic() + PROMETHEUS_SECONDS
            for service in _forever(list(world.services)):
                _run(world, service)
                await asyncio.sleep(5 / len(world.services))
                if time.monotonic() > end:
                    break
            most = await asyncio.to_thread(_ask, listen, "max_over_time(scrape_duration_seconds[1m])")
            seconds = await asyncio.to_thread(_ask, listen, "min_over_time(scrape_duration_seconds[1m])")
            samples = await asyncio.to_thread(_ask, listen, "scrape_samples_scraped")
        finally:
            process.terminate()
            await process.wait()
    return {
        "scrape_duration ms in Prometheus, first": round(1e3 * most, 1),
        "best": round(1e3 * seconds, 1),
        "samples": int(samples),
    }


def _forever(names: list[str]) -> Iterator[str]:
    while True:
        yield from names


def _ask(port: int, query: str) -> float:
    import requests  # noqa: PLC0415 - as above

    answer = requests.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=5).json()
    return float(answer["data"]["result"][0]["value"][1])


def _free_port() -> int:
    import socket  # noqa: PLC0415 - as above

    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


def _world(targets: int) -> Any:
    from exporter.state import ProbeState, ServiceState, Settings, WorldState  # noqa: PLC0415 - as above

    settings = Settings(interval=5.0, interval_on_failure=0.5, timeout=2.0, confirm=2)
    services = {
        name: ServiceState(
            target=name,
            timeout_threshold=1.0,
            error_threshold=3,
            since=0.0,
            probes={"http": ProbeState(kind="http", settings=settings)},
        )
        for name in (f"service-{number:05d}" for number in range(targets))
    }
    world = WorldState(started_at=time.time())
    world.watch(services, {})
    for _ in range(10):  # what /state keeps of each is full
        _run_all(world)
    return world


def _run_all(world: Any) -> None:
    for name in world.services:
        _run(world, name)


def _run(world: Any, name: str) -> None:
    from exporter.observation import HttpFacts, Observation, Outcome  # noqa: PLC0415 - as above

    chosen = random.random
    parts = {"resolve": 1e-4, "connect": 1e-3, "processing": 1e-2, "transfer": 1e-3}
    outcome = Outcome(
        http=HttpFacts(status=200), phases={name: most * chosen() for name, most in parts.items()}
    )
    seen = Observation(started=time.monotonic(), at=time.time(), seconds=0.02 * chosen(), outcome=outcome)
    world.record(name, "http", seen)


def _by_prometheus_client(targets: int) -> float:
    """Milliseconds of prometheus_client's generate_latest for as many series of the same kinds."""
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest  # noqa: PLC0415

    registry, at = CollectorRegistry(), ("target", "probe")
    gauges = [Gauge(f"gauge_{number}", "", at, registry=registry) for number in range(17)]
    counters = [Counter(f"counter_{number}", "", at, registry=registry) for number in range(20)]
    histogram = Histogram("duration_seconds", "", at, registry=registry)
    for number in range(targets):
        labels = f"service-{number:05d}", "http"
        for gauge in gauges:
            gauge.labels(*labels).set(random.random())
        for counter in counters:
            counter.labels(*labels).inc(random.random())
        histogram.labels(*labels).observe(random.random())
    begun = time.perf_counter()
    generate_latest(registry)
    return round(1e3 * (time.perf_counter() - begun), 1)


def _resident_mb() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 // 1_000_000


if __name__ == "__main__":
    main()
