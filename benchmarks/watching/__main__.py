"""Print what watching costs, and what a host notices while nobody takes its errors.

python -m benchmarks.watching [calls] [applications] [away] [--quick]
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from benchmarks.watching import applications, away, calls

RESULTS = ROOT / "benchmarks" / "results" / "watching.json"
PARTS = ("calls", "applications", "away")
DEFAULT = PARTS[:2]  # the third takes its time


def main() -> int:
    """Run the parts that were asked for, or the first two."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watching")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: {' and '.join(DEFAULT)}")
    parser.add_argument("--quick", action="store_true", help="see that it runs; the figures mean little")
    parser.add_argument("--rounds", type=int, help="default: 150 of calls, 10 per launch of applications")
    parser.add_argument("--requests", type=int, help="per round; default: 400")
    parser.add_argument("--for", dest="seconds", type=float, help="that the remediator is away, each way")
    parser.add_argument("--kind", choices=applications.KINDS, default="flask", help="what is there then")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file for them, as JSON")
    asked = parser.parse_args()
    unknown = set(asked.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    result: dict[str, Any] = {"python": sys.version.split()[0], "quick": asked.quick}
    for part in asked.parts or DEFAULT:
        if part == "calls":
            result[part] = _calls(asked.rounds or (5 if asked.quick else 150))
        elif part == "away":
            result[part] = _away(asked.kind, asked.seconds or (1.0 if asked.quick else 600.0))
        else:
            launches = 1 if asked.quick else 5
            rounds = asked.rounds or (2 if asked.quick else 10)
            requests = asked.requests or (40 if asked.quick else 400)
            result[part] = _applications(launches, rounds, requests)
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    asked.results.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"written to {asked.results}")
    return 0


def _calls(rounds: int) -> dict[str, Any]:
    found, missing = calls.variants()
    calls.measure(found, rounds)
    print("## A call")
    print(f"(processor time, medians of {rounds} interleaved rounds, Python {sys.version.split()[0]})\n")
    print("| call | ns | quartiles | added ns | times plain |\n| --- | --- | --- | --- | --- |")
    result = {}
    for variant in found:
        plain = next(each for each in found if each.asynchronous is variant.asynchronous)
        result[variant.name] = {
            "ns": variant.median,
            "quartiles": variant.spread,
            "added": variant.median - plain.median,
            "ratio": variant.median / plain.median,
        }
        line = result[variant.name]
        low, high = variant.spread
        print(
            f"| {variant.name} | {line['ns']:.0f} | {low:.0f} to {high:.0f} | {line['added']:.0f}"
            f" | {line['ratio']:.1f} |"
        )
    for reason in missing:
        print(f"\n{reason}: not measured")
    print()
    return {"rounds": rounds, "variants": result, "missing": missing}


def _applications(launches: int, rounds: int, requests: int) -> dict[str, Any]:
    print("## A request with four watched calls")
    print(
        f"(processor time, medians of {launches} x {rounds} interleaved rounds of {requests} requests;"
        " in brackets the quartiles of what the rounds say)\n"
    )
    print("| application | plain µs | calls watched | whole library |\n| --- | --- | --- | --- |")
    result: dict[str, Any] = {"launches": launches, "rounds": rounds, "requests": requests}
    for kind in applications.KINDS:
        found = applications.measure(kind, launches, rounds, requests)
        plain = statistics.median(found["plain"])
        result[kind] = {"plain": {"microseconds": plain}}
        shown = []
        for mode in ("watched", "library"):
            low, more, high = applications.more(found["plain"], found[mode])
            result[kind][mode] = {
                "microseconds": statistics.median(found[mode]),
                "more": more,
                "quartiles": (low, high),
            }
            shown.append(f"{more:+.1%} ({low:+.1%} to {high:+.1%})")
        print(f"| {kind} | {plain:.0f} | {' | '.join(shown)} |", flush=True)
    print()
    return result


def _away(kind: str, seconds: float) -> dict[str, Any]:
    print("## The remediator away")
    print(f"({kind}, {away.RATE} requests a second, an error in every {away.ERRORS_EVERY}th)\n")
    found = away.measure(kind, seconds)
    print(
        "(ms: median, p99, longest; beside: the same application, whose remediator is there all the time)\n"
    )
    print("| remediator | s | ms | ms beside | memory MB | errors kept | spool kB |")
    print("| --- " * 7 + "|")
    for phase in found["phases"]:
        print(
            f"| {phase['name']} | {phase['seconds']:g}"
            f" | {phase['median']:.2f}, {phase['p99']:.2f}, {phase['longest']:.1f}"
            f" | {', '.join(f'{each:.2f}' for each in phase['beside'])}"
            f" | {phase['memory']:.1f} | {phase['kept']}"
            f" | {phase['spool'] / 1e3:.0f} |"
        )
    print(
        f"\nOf {found['seen']} errors {found['arrived']} have arrived, in {found['batches']} batches;",
        end=" ",
    )
    print(f"dropped: {json.dumps(found['dropped'])}.")
    for name, took in found["drained"].items():
        print(f"After {name} all that was kept had arrived {took:.1f} s after the remediator was back.")
    print()
    return found


if __name__ == "__main__":
    sys.exit(main())
