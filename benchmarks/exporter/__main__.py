"""What the exporter costs, holds and tells, with blackbox_exporter beside it in the same run.

    python -m benchmarks.exporter [cost] [hang] [many] [truth] [--rounds 2] [--seconds 60] [--newer DIR]

cost   CPU time per check of exporter plus Prometheus and of blackbox_exporter plus Prometheus, on the same
       1,000 targets (nginx) every 5 s, plain and TLS, in turns. Goal: a quarter (spec L3).
hang   1,000 targets of which 50 never answer and 50 never take the connection: do the others keep their
       intervals? Goal: p99 under 1 s late.
many   5,000 targets in one process. Goals: under 250 MB, a scrape under 500 ms.
truth  how far measured latencies are off on an idle and on a loaded machine.

The programs on the PATH are measured, and those in DIR too when it is given. Everything talks to this
machine only and ends by itself.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import requests

from benchmarks.exporter import parts
from benchmarks.exporter.parts import Generation
from benchmarks.harness import free_ports, wait_until, write_result

Result = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line asked for."""

    generations: list[Generation]
    rounds: int
    warm_up: float
    seconds: float
    targets: int


def cpu_of(process: psutil.Process) -> float:
    """Return the CPU seconds a process has spent."""
    times = process.cpu_times()
    return float(times.user + times.system)


def pss_of(process: psutil.Process) -> float:
    """Return a process's proportional set size in megabytes."""
    return float(process.memory_full_info().pss) / 1e6


def urls_of(count: int, base: str) -> list[str]:
    """Return so many addresses below *base*."""
    return [f"{base}/t/{number}" for number in range(count)]


def measure(
    prober: psutil.Process, database: psutil.Process, count: Callable[[], int], seconds: float
) -> Result:
    """Return what prober and Prometheus spend per check while *seconds* pass."""
    checks, prober_cpu, database_cpu = count(), cpu_of(prober), cpu_of(database)
    time.sleep(seconds)
    done = count() - checks
    return {
        "checks": done,
        "prober_us": 1e6 * (cpu_of(prober) - prober_cpu) / done,
        "prometheus_us": 1e6 * (cpu_of(database) - database_cpu) / done,
        "prober_mb": pss_of(prober),
        "prometheus_mb": pss_of(database),
    }


def cost(asked: Asked) -> Result:
    """Measure both sides in turns, plain and TLS."""
    results: Result = {}
    with tempfile.TemporaryDirectory(prefix="exporter-cost-") as name, ExitStack() as stack:
        folder = Path(name)
        plain, tls, ours, box, database = free_ports(5)
        ca_file = stack.enter_context(parts.nginx(folder, plain, tls))
        found: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
        for _ in range(asked.rounds):
            for generation in asked.generations:
                for kind, base, ca in (
                    ("plain", f"http://127.0.0.1:{plain}", None),
                    ("tls", f"https://127.0.0.1:{tls}", ca_file),
                ):
                    urls = urls_of(asked.targets, base)
                    with (
                        parts.exporter(folder, ours, urls, ca_file=ca) as prober,
                        parts.prometheus(generation, folder, database, parts.scrape_ours(ours)) as prometheus,
                    ):
                        time.sleep(asked.warm_up)
                        found[generation.name, kind, "ours"].append(
                            measure(prober, prometheus, lambda: parts.requests_of(plain), asked.seconds)
                        )
                    scrape = parts.scrape_blackbox(box, urls)
                    with (
                        parts.blackbox(generation, folder, box, ca_file=ca) as prober,
                        parts.prometheus(generation, folder, database, scrape) as prometheus,
                    ):
                        time.sleep(asked.warm_up)
                        found[generation.name, kind, "blackbox"].append(
                            measure(prober, prometheus, lambda: parts.requests_of(plain), asked.seconds)
                        )
        for generation in asked.generations:
            print(f"\n{generation.name}: {generation.versions()}; medians of {asked.rounds} rounds")
            for kind in ("plain", "tls"):
                results[f"{generation.name} {kind}"] = print_cost(
                    kind, *(found[generation.name, kind, side] for side in ("ours", "blackbox"))
                )
    return results


def print_cost(kind: str, ours: list[Result], blackbox: list[Result]) -> Result:
    """Print one comparison and return it."""
    sides = {"soulfra exporter": middle(ours), "blackbox_exporter": middle(blackbox)}
    for name, side in sides.items():
        total = side["prober_us"] + side["prometheus_us"]
        print(
            f"  {kind:<5} {name:<18} {total:7.0f} µs per check ({side['prober_us']:.0f} + Prometheus"
            f" {side['prometheus_us']:.0f}), {side['prober_mb']:.0f} + {side['prometheus_mb']:.0f} MB,"
            f" {side['checks']:.0f} checks"
        )
    ratio = total_of(sides["soulfra exporter"]) / total_of(sides["blackbox_exporter"])
    print(f"  {kind:<5} ratio {ratio:.3f} (goal 0.25{'' if ratio <= 0.25 else ', missed'})")
    return {**sides, "ratio": ratio}


def total_of(side: Result) -> float:
    """Return the CPU of prober and Prometheus per check."""
    return float(side["prober_us"] + side["prometheus_us"])


def middle(results: list[Result]) -> Result:
    """Return the median of every number."""
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


@contextmanager
def target_server(folder: Path, port: int, *options: str) -> Iterator[Path]:
    """Run the recording server; its record can be read once it has ended."""
    record = folder / f"record-{time.monotonic_ns()}.jsonl"
    command = [sys.executable, "-m", "benchmarks.exporter.targets", str(port), str(record), *options]
    with parts.running(command, folder, "targets"):
        parts.answers(f"http://127.0.0.1:{port}/ready")
        yield record


def read_record(record: Path, prefix: str) -> dict[str, list[Result]]:
    """Return the requests of every path that begins with *prefix*."""
    found: dict[str, list[Result]] = defaultdict(list)
    for line in record.read_text(encoding="utf-8").splitlines():
        request = json.loads(line)
        if request["path"].startswith(prefix):
            found[request["path"]].append(request)
    return found


def quantiles(values: Iterable[float]) -> Result:
    """Return median, p95, p99 and the largest."""
    ordered = sorted(values)
    cuts = statistics.quantiles(ordered, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": ordered[-1], "count": len(ordered)}


def hang(asked: Asked) -> Result:
    """Let a tenth of the targets hang and look how late the others are asked, as the server saw it."""
    hanging = asked.targets // 10
    with tempfile.TemporaryDirectory(prefix="exporter-hang-") as name:
        folder = Path(name)
        port, mute, ours = free_ports(3)
        base = f"http://127.0.0.1:{port}"
        urls = [f"{base}/t/{number}" for number in range(asked.targets)]
        urls[: hanging // 2] = [f"{base}/hang/{number}" for number in range(hanging // 2)]
        urls[hanging // 2 : hanging] = [f"http://127.0.0.1:{mute}/{n}" for n in range(hanging - hanging // 2)]
        with (
            parts.deaf(mute),
            target_server(folder, port, "--hang", "/hang/") as record,
            parts.exporter(folder, ours, urls) as prober,
        ):
            time.sleep(asked.warm_up)
            begun, cpu = time.monotonic(), cpu_of(prober)
            time.sleep(asked.seconds)
            ended, share = time.monotonic(), (cpu_of(prober) - cpu) / asked.seconds
            skipped = lines_of(ours, "soulfra_exporter_probes_skipped_total")
        late = []
        for seen in read_record(record, "/t/").values():
            times = [request["at"] for request in seen if begun <= request["at"] <= ended]
            late += [abs(after - before - 5.0) for before, after in pairwise(times)]
    result = {**quantiles(late), "cpu_percent": 100 * share, "skipped": skipped}
    median, p99, most = (1000 * result[key] for key in ("p50", "p99", "max"))
    print(
        f"\n{hanging} of {asked.targets} targets hang: the others' intervals are off by {median:.1f} ms"
        f" (median), {p99:.1f} ms (p99), {most:.0f} ms at most (goal: p99 under 1 s);"
        f" {100 * share:.1f} % of a core; skipped: {skipped}"
    )
    return result


def lines_of(port: int, metric: str) -> dict[str, float]:
    """Return the samples of one of our metrics, by their labels."""
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    samples = (line.rpartition(" ") for line in text.splitlines() if line.startswith(metric))
    return {name[len(metric) :]: float(value) for name, _, value in samples}


def many(asked: Asked) -> Result:
    """Watch five times as many targets in one process."""
    count = 5 * asked.targets
    generation = asked.generations[-1]
    with tempfile.TemporaryDirectory(prefix="exporter-many-") as name, ExitStack() as stack:
        folder = Path(name)
        plain, tls, ours, database = free_ports(4)
        stack.enter_context(parts.nginx(folder, plain, tls))
        urls = urls_of(count, f"http://127.0.0.1:{plain}")
        begun = time.monotonic()
        prober = stack.enter_context(parts.exporter(folder, ours, urls))
        started = time.monotonic() - begun
        wait_until("ready", lambda: requests.get(f"http://127.0.0.1:{ours}/-/ready", timeout=5).ok, 60)
        prometheus = stack.enter_context(
            parts.prometheus(generation, folder, database, parts.scrape_ours(ours))
        )
        time.sleep(asked.warm_up)
        spent = measure(prober, prometheus, lambda: parts.requests_of(plain), asked.seconds)
        window = f"[{asked.seconds:.0f}s]"
        scrapes = [
            float(value)
            for series in parts.query(database, f"scrape_duration_seconds{window}")
            for _, value in series["values"]
        ]
        samples = parts.query(database, "scrape_samples_scraped")[0]["value"][1]
        lag = lines_of(ours, "soulfra_exporter_event_loop_lag_seconds")
        sent = statistics.median(seconds_of_a_get(f"http://127.0.0.1:{ours}/metrics") for _ in range(9))
    scrape = quantiles(scrapes)
    result = {**spent, "scrape": scrape, "get": sent, "samples": samples, "loop_lag": lag, "start": started}
    print(
        f"\n{count} targets: {spent['prober_mb']:.0f} MB (goal 250), {samples} samples in a scrape of"
        f" {1000 * scrape['p50']:.0f} ms (median), {1000 * scrape['max']:.0f} ms at most (goal 500), of which"
        f" sending takes {1000 * sent:.0f}; {spent['prober_us']:.0f} + Prometheus"
        f" {spent['prometheus_us']:.0f} µs per check; event-loop lag {1000 * max(lag.values()):.1f} ms;"
        f" listening after {started:.1f} s"
    )
    return result


def seconds_of_a_get(url: str) -> float:
    """Return how long an answer takes to come, with nobody reading what is in it."""
    begun = time.monotonic()
    requests.get(url, timeout=30).raise_for_status()
    return time.monotonic() - begun


def truth(asked: Asked) -> Result:
    """Hold measured latencies against the server's own clock, the machine idle and loaded."""
    results: Result = {}
    generation = asked.generations[-1]
    for load in (0, os.cpu_count() or 1):
        with tempfile.TemporaryDirectory(prefix="exporter-truth-") as name, ExitStack() as burning:
            folder = Path(name)
            for _ in range(load):
                burning.enter_context(parts.running([sys.executable, "-c", _BURN], folder, "load"))
            results[f"{load} busy processes"] = measure_truth(asked, generation, folder, load)
    return results


_BURN = "import time\nend = time.monotonic() + 600\nwhile time.monotonic() < end: pass"


def measure_truth(asked: Asked, generation: Generation, folder: Path, load: int) -> Result:
    """Return how far the latencies of both sides are from the server's."""
    port, ours, box, database = free_ports(4)
    urls = urls_of(asked.targets // 10, f"http://127.0.0.1:{port}")
    seconds = min(asked.seconds, 45.0)
    measured: dict[str, tuple[list[float], Path]] = {}
    with target_server(folder, port, "--delay", "0.05") as record, parts.exporter(folder, ours, urls):
        time.sleep(seconds)
        state = requests.get(f"http://127.0.0.1:{ours}/state", timeout=30).json()
        recent = [
            run["seconds"]
            for service in state["services"].values()
            for run in service["probes"]["http"]["recent"]
        ]
    measured["soulfra exporter"] = recent, record
    with (
        target_server(folder, port, "--delay", "0.05") as record,
        parts.blackbox(generation, folder, box),
        parts.prometheus(generation, folder, database, parts.scrape_blackbox(box, urls)),
    ):
        time.sleep(seconds)
        series = parts.query(database, f"probe_duration_seconds[{seconds:.0f}s]")
        durations = [float(value) for found in series for _, value in found["values"]]
    measured["blackbox_exporter"] = durations, record
    print(f"\nmeasured latency less the server's own, {load} busy processes, targets that take 50 ms:")
    result: Result = {}
    for side, (latencies, record) in measured.items():
        real = [r["seconds"] for rs in read_record(record, "/t/").values() for r in rs if r["seconds"]]
        seen, true = quantiles(latencies), quantiles(real)
        off = {key: 1000 * (seen[key] - true[key]) for key in ("p50", "p95", "p99")}
        result[side] = {"off_ms": off, "seen": seen, "true": true}
        print(f"  {side:<18} " + ", ".join(f"{key} {value:+.1f} ms" for key, value in off.items()))
    return result


SCENARIOS: dict[str, Callable[[Asked], Result]] = {"cost": cost, "hang": hang, "many": many, "truth": truth}


def generations(newer: Path | None) -> list[Generation]:
    """Return the programs on the PATH and those of *newer*. Exits when one is missing."""
    folders: list[tuple[str, Path | None]] = [("installed", None)]
    if newer is not None:
        folders.append(("newer", newer))
    found = []
    for name, folder in folders:
        programs = {}
        for program in ("prometheus", "blackbox_exporter"):
            names = [program, f"prometheus-{program.replace('_', '-')}"]
            path = next(filter(None, (shutil.which(n, path=folder and str(folder)) for n in names)), None)
            if path is None:
                sys.exit(f"{program} is not {'installed' if folder is None else f'in {folder}'}")
            programs[program] = path
        found.append(
            Generation(name=name, prometheus=programs["prometheus"], blackbox=programs["blackbox_exporter"])
        )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], default=[])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--warm-up", type=float, default=15.0, help="seconds before each measurement")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--newer", type=Path, help="a folder with other prometheus and blackbox_exporter")
    given = parser.parse_args()
    asked = Asked(
        generations=generations(given.newer),
        rounds=given.rounds,
        warm_up=given.warm_up,
        seconds=given.seconds,
        targets=given.targets,
    )
    model = subprocess.run(["uname", "-srm"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{os.cpu_count()} cores, {model}, Python {sys.version.split()[0]}")
    result = {name: SCENARIOS[name](asked) for name in given.scenarios or SCENARIOS}
    print(f"\nwritten to {write_result('exporter', result)}")


if __name__ == "__main__":
    main()
