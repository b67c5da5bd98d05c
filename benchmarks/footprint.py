"""Memory and CPU of exporter and remediator with the example platform watched, and the time to ready.

    python -m benchmarks.footprint [--seconds 60]

Memory is the proportional set size (PSS), which counts shared pages once; CPU is measured over the
given time while the load generator is at work. Goals: under 100 MB, under 5 % of one core for both
together, ready in under 5 s.
"""

import argparse
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.harness import DemoStack, demo_config, write_result

_OURS = ("exporter", "remediator")


def megabytes(processes: list[psutil.Process]) -> float:
    """Return the proportional set size of several processes."""
    return float(sum(process.memory_full_info().pss for process in processes)) / 1e6


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Return the CPU time that several processes have spent."""
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="footprint-") as name:
        config, _ = demo_config()
        with DemoStack(folder=Path(name), config=config) as stack:
            print(f"ready in {stack.seconds_to_ready:.2f} s")
            parts = stack.parts()
            before = {part: cpu_seconds(processes) for part, processes in parts.items()}
            time.sleep(asked.seconds)
            result = {
                part: {
                    "processes": len(processes),
                    "pss_mb": megabytes(processes),
                    "cpu_percent": 100 * (cpu_seconds(processes) - before[part]) / asked.seconds,
                }
                for part, processes in parts.items()
            }
            for part, numbers in result.items():
                print(
                    f"{part:<13} {numbers['pss_mb']:6.1f} MB PSS  {numbers['cpu_percent']:5.2f} % of a core"
                )
            memory = sum(result[part]["pss_mb"] for part in _OURS)
            cpu = sum(result[part]["cpu_percent"] for part in _OURS)
            print(f"exporter and remediator together: {memory:.1f} MB PSS, {cpu:.2f} % of a core")
            write_result("footprint", {"ready_seconds": stack.seconds_to_ready, **result})


if __name__ == "__main__":
    main()
