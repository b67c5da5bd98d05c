"""How many kinds of silent errors are caught, how fast, and with how many false alarms.

    python -m benchmarks.silent_errors [KIND ...] [--without-sentry] [--at-once 2]

Runs every program of ``corpus/`` as it stands, with its fault and without: under
``python -m soulfra_monitor``, under sentry-sdk as it comes, and under sentry-sdk with its asyncio and
unraisable integrations. All report to one real remediator, sentry-sdk by its DSN. Goals: 30 of 32 kinds
caught, in the errors API within 1 s (p99) of the fault, and no error of any program without its fault.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import requests
import yaml

from benchmarks.harness import free_ports, wait_until, write_result
from benchmarks.silent_errors import peers

CORPUS = Path(__file__).parent / "corpus"
LAUNCHER = Path(__file__).parent / "under_sentry.py"
LIMIT = 60.0  # seconds that one program may take
SETTLE = 1.5  # seconds after a program's end in which its errors may still come in

LIBRARY, SENTRY, SENTRY_MORE = "soulfra-monitor", "sentry-sdk", "sentry-sdk + 2"
WATCHERS = (LIBRARY, SENTRY, SENTRY_MORE)

EXTRA = frozenset(
    {
        *("killed", "refused_async", "permission_denied", "connection_reset"),
        *("raw_refused", "raw_refused_async", "ignored_system", "ready_answer"),
    }
)
"""Kinds beyond the 32 that the goal is about."""


PATIENCE = {"deadlock": 5.0}
"""Seconds that something has to last before it is an error at all; the clock starts then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One program under one watcher, with its fault or without."""

    kind: str
    watcher: str
    clean: bool

    @property
    def service(self) -> str:
        """Return the name that its errors have."""
        return f"{self.kind}.{WATCHERS.index(self.watcher)}.{'clean' if self.clean else 'fault'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a run: the problems of its errors, and seconds from the fault to the first of them."""

    run: Run
    problems: tuple[str, ...]
    seconds: float | None
    status: int
    output: str


@contextmanager
def remediator(folder: Path) -> Iterator[str]:
    """Run a real remediator that watches nothing; yields its address."""
    listen, nobody = free_ports(2)
    file = folder / "soulfra.yml"
    plenty = {"per_second": 10_000, "burst": 100_000}
    config = {
        "exporter": {"listen": f"127.0.0.1:{nobody}"},
        "remediator": {
            "listen": f"127.0.0.1:{listen}",
            "alertmanagers": [f"http://127.0.0.1:{nobody}"],
            "events": {"per_sender": plenty, "per_service": plenty},
        },
        "services": {},
    }
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "remediator.cli", "remediator", "--config", str(file)]
    with (
        (folder / "remediator.log").open("wb") as log,
        peers.running([*command, "--data", str(folder / "data")], log),
    ):
        url = f"http://127.0.0.1:{listen}"
        wait_until("the remediator", lambda: requests.get(f"{url}/readyz", timeout=5).ok, 60)
        yield url


def carry_out(run: Run, url: str, ports: Mapping[str, str], folder: Path) -> Result:
    """Run one program and see what the errors API says of it."""
    place = folder / run.service
    place.mkdir()
    marked = place / "mark"
    environment = {
        **os.environ,
        **ports,
        "CORPUS_MARK": str(marked),
        "PYTHONPATH": os.pathsep.join(str(path) for path in (Path.cwd(), CORPUS)),
        "SOULFRA_URL": url,
        "SOULFRA_SPOOL": str(place / "spool"),
        "CORPUS_DSN": f"{url.replace('://', '://key@')}/{run.service}/1",
        "CORPUS_MORE": "yes" if run.watcher == SENTRY_MORE else "",
    }
    program = [str(CORPUS / f"{run.kind}.py"), *(["clean"] if run.clean else [])]
    command = (
        [sys.executable, "-m", "soulfra_monitor", "--service", run.service, *program]
        if run.watcher == LIBRARY
        else [sys.executable, str(LAUNCHER), *program]
    )
    output = place / "output"
    with output.open("wb") as out:
        ended = subprocess.run(
            command, env=environment, stdout=out, stderr=out, cwd=place, timeout=LIMIT, check=False
        )
    wanted = not run.clean
    deadline = time.monotonic() + SETTLE
    while time.monotonic() < deadline and not (wanted and errors_of(url, run.service)):
        time.sleep(0.05)
    found = errors_of(url, run.service)
    fault = float(marked.read_text()) + PATIENCE.get(run.kind, 0.0) if marked.exists() else None
    first = min((datetime.fromisoformat(one["firstSeen"]).timestamp() for one in found), default=None)
    return Result(
        run=run,
        problems=tuple(sorted(one["type"] for one in found)),
        seconds=None if first is None or fault is None else first - fault,
        status=ended.returncode,
        output=output.read_text(errors="replace")[-2000:],
    )


def errors_of(url: str, service: str) -> list[dict[str, Any]]:
    """Return the errors that the API lists of a service."""
    asked = {"service": service, "since": "1h"}
    answer = requests.get(f"{url}/api/monitoring/errors", params=asked, timeout=10)
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()["errors"]
    return found


def tell(kinds: Sequence[str], watchers: Sequence[str], results: Mapping[Run, Result]) -> dict[str, Any]:
    """Print the table and what it comes to; return the latter."""
    print(f"\n{'kind':<22}" + "".join(f"{watcher:<36}" for watcher in watchers))
    for kind in kinds:
        cells = [cell(results, kind, watcher) for watcher in watchers]
        print(f"{kind:<22}" + "".join(f"{text:<36}" for text in cells))
    return {watcher: summary(kinds, watcher, results) for watcher in watchers}


def cell(results: Mapping[Run, Result], kind: str, watcher: str) -> str:
    """Say in a few words what one watcher made of one kind."""
    fault = results[Run(kind=kind, watcher=watcher, clean=False)]
    clean = results[Run(kind=kind, watcher=watcher, clean=True)]
    alarm = f" FALSE ALARM {', '.join(clean.problems)}" if clean.problems else ""
    if not fault.problems:
        return f"-{alarm}"
    seconds = "" if fault.seconds is None else f" {fault.seconds:.2f} s"
    return f"{', '.join(dict.fromkeys(fault.problems))}{seconds}{alarm}"


def summary(kinds: Sequence[str], watcher: str, results: Mapping[Run, Result]) -> dict[str, Any]:
    """Print and return what a watcher comes to."""
    mine = [result for run, result in results.items() if run.watcher == watcher]
    faults = [result for result in mine if not result.run.clean]
    caught = [result for result in faults if result.problems]
    of_32 = [result for result in faults if result.run.kind not in EXTRA]
    alarms = [result.run.kind for result in mine if result.run.clean and result.problems]
    times = sorted(result.seconds for result in caught if result.seconds is not None)
    worst = times[-1] if times else 0.0
    p99 = statistics.quantiles(times, n=100, method="inclusive")[98] if len(times) > 1 else worst
    missed = sorted(result.run.kind for result in faults if not result.problems)
    print(
        f"\n{watcher}: {sum(bool(one.problems) for one in of_32)} of {len(of_32)} kinds caught"
        f" ({len(caught)} of {len(kinds)} with those beyond); false alarms: {len(alarms)} {alarms or ''}"
    )
    if times:
        print(
            f"  from fault to API: median {statistics.median(times):.2f} s, p99 {p99:.2f} s,"
            f" worst {worst:.2f} s"
        )
    if missed:
        print(f"  missed: {', '.join(missed)}")
    return {
        "caught": len(caught),
        "caught_of_32": sum(bool(one.problems) for one in of_32),
        "false_alarms": alarms,
        "missed": missed,
        "p99": p99,
        "worst": worst,
    }


def main() -> None:
    """Run the corpus and print."""
    known = sorted(path.stem for path in CORPUS.glob("*.py") if path.stem != "stopwatch")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", choices=[*known, []], default=[])
    parser.add_argument("--without-sentry", action="store_true")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="a folder for what the programs print")
    asked = parser.parse_args()
    kinds = asked.kinds or known
    watchers = WATCHERS[:1] if asked.without_sentry else WATCHERS
    print(f"{len(kinds)} kinds, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="silent-errors-")))
        folder.chmod(0o755)  # programs may give up their rights
        ports = stack.enter_context(peers.ports(folder))
        url = stack.enter_context(remediator(folder))
        pool = stack.enter_context(ThreadPoolExecutor(asked.at_once))
        runs = [
            Run(kind=kind, watcher=watcher, clean=clean)
            for kind, watcher, clean in product(kinds, watchers, (False, True))
        ]
        done = list(pool.map(lambda run: carry_out(run, url, ports, folder), runs))
        if asked.keep:
            shutil.copytree(folder, asked.keep, dirs_exist_ok=True)
    results = {result.run: result for result in done}
    told = tell(kinds, watchers, results)
    details = [{**asdict(result), "run": asdict(result.run)} for result in done]
    print(f"\nwritten to {write_result('silent-errors', {'summary': told, 'runs': details})}")
    mine = told[LIBRARY]
    sys.exit(1 if mine["false_alarms"] or mine["caught_of_32"] < min(30, len(kinds)) else 0)


if __name__ == "__main__":
    main()
