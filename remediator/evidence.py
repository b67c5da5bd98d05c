"""Takes what a restart would destroy: log tails, the process, the host, the last observations.

Bounded in time and size. A part that cannot be had says why in its place.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from exporter.config import Service
from remediator.places import log_of, place
from remediator.tail import tail
from soulfra_monitor.redaction import redact, redact_command, redact_value

log = logging.getLogger(__name__)

SIZE_LIMIT = 32 * 1024
_LOG_LINES = 40
_LOG_SIZE = 6 * 1024
_LOGS = 4
_OBSERVATIONS = 10
_OBSERVATIONS_SIZE = 8 * 1024
_TEXT_LIMIT = 300

SIGHT_LIMIT = 16 * 1024
"""Bytes of JSON that are kept of what was seen when an error was opened."""

Part = Callable[[], Any]


def gather(
    *,
    target: str,
    service: Service | None,
    state: Mapping[str, Any],
    data_folder: Path,
    config_folder: Path,
    on_fault: Callable[[], None],
    deadline_seconds: float = 2.0,
) -> dict[str, Any]:
    """Return the evidence as JSON values, redacted. Never raises.

    It takes at most *deadline_seconds* and 32 KiB. *state* is the exporter's answer for the target, or
    under ``unreachable`` why there is none. *on_fault* is told of each part that failed by itself.
    """
    began = time.time()
    seen = _service_state(state, target)
    parts: dict[str, Part] = {
        "observations": lambda: _observations(state, seen),
        "process": lambda: _process(seen.get("process")),
        "host": lambda: _host(data_folder),
    }
    if service is not None:
        for path in _logs(target, service, config_folder, data_folder):
            parts[f"log {path.name}"] = partial(_log, path)
    found = _in_time(parts, deadline_seconds, on_fault)
    return _fit({"at": began, "seconds": round(time.time() - began, 3), **found})


def last_seen(services: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return what the exporter had seen of these services, redacted; at most SIGHT_LIMIT bytes."""
    found: dict[str, Any] = {}
    for name in names:
        seen = _service_state({"services": services}, name)
        process = seen.get("process")
        told = {**_observations({}, seen), **({"process": redact_value(process)} if process else {})}
        if len(json.dumps({**found, name: told}, default=str)) > SIGHT_LIMIT:
            told = {"missing": f"left out: more than {SIGHT_LIMIT} bytes", "status": str(seen.get("status"))}
        found[name] = told
    return {"services": found}


def _in_time(parts: Mapping[str, Part], seconds: float, on_fault: Callable[[], None]) -> dict[str, Any]:
    """Take the parts one after the other on a thread that is left behind when it hangs, as on a dead disk."""
    found: dict[str, Any] = {name: {"missing": "not read in time"} for name in parts}

    def work() -> None:
        for name, part in parts.items():
            try:
                found[name] = _attempt(part)
            except Exception as error:  # the edge of the thread: the other parts are taken all the same
                on_fault()
                log.exception("the evidence has no %s", name)
                why = redact(str(error))[:_TEXT_LIMIT]
                found[name] = {"missing": f"cannot be read: {type(error).__name__}: {why}"}

    worker = threading.Thread(target=work, name="evidence", daemon=True)
    worker.start()
    worker.join(seconds)
    return dict(found)


def _attempt(part: Part) -> Any:
    try:
        return part()
    except psutil.NoSuchProcess:
        return {"missing": "the process is gone"}
    except psutil.AccessDenied:
        return {"missing": "permission denied"}
    except OSError as error:
        return {"missing": error.strerror or str(error)}


def _service_state(state: Mapping[str, Any], target: str) -> Mapping[str, Any]:
    services = state.get("services")
    found = services.get(target) if isinstance(services, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _observations(state: Mapping[str, Any], seen: Mapping[str, Any]) -> Any:
    if not seen:
        return {
            "missing": str(state.get("unreachable") or "the exporter does not know the target")[:_TEXT_LIMIT]
        }
    kept = {key: value for key, value in seen.items() if key not in ("probes", "process")}
    probes = seen.get("probes") or {}
    for count in (_OBSERVATIONS, 3, 1):
        told = {**kept, "probes": {name: _recent(probe, count) for name, probe in probes.items()}}
        clean = _shortened(redact_value(told))
        if len(json.dumps(clean)) <= _OBSERVATIONS_SIZE:
            return clean
    return {"missing": f"more than {_OBSERVATIONS_SIZE} bytes", "status": str(seen.get("status"))}


def _recent(probe: Mapping[str, Any], count: int) -> dict[str, Any]:
    lists = {key: list(probe.get(key) or [])[-count:] for key in ("recent", "failures")}
    return {"last": probe.get("last"), **lists}


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    return value[:_TEXT_LIMIT] if isinstance(value, str) else value


def _process(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    if not facts or not facts.get("pid"):
        return {"missing": "the exporter found no process"}
    process = psutil.Process(int(facts["pid"]))
    with process.oneshot():
        if abs(process.create_time() - float(facts.get("start_time") or 0.0)) > 1.5:  # noqa: PLR2004 - as in stop
            return {"missing": f"process {process.pid} is another one by now"}
        memory = process.memory_info()
        return {
            "pid": process.pid,
            "status": process.status(),
            "command": redact_command(process.cmdline())[:1000],
            "started": process.create_time(),
            "parent": process.ppid(),
            "rss_bytes": memory.rss,
            "vms_bytes": memory.vms,
            "cpu_seconds": sum(process.cpu_times()[:2]),
            "threads": process.num_threads(),
            "handles": _attempt(process.num_fds),
            "waits_in": _attempt(lambda: _kernel_function(process.pid)),
            "children": len(process.children()),
        }


def _kernel_function(pid: int) -> str:
    found = Path(f"/proc/{pid}/wchan").read_text(encoding="ascii", errors="replace").strip()
    return "" if found == "0" else found  # "0": not known, or not in the kernel


def _host(data_folder: Path) -> dict[str, Any]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {
        "cpus": os.cpu_count(),
        "load": list(os.getloadavg()),
        "memory_total_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "swap_used_bytes": swap.used,
        "disk_free_bytes": _attempt(lambda: psutil.disk_usage(str(data_folder)).free),
        "disk_used_percent": _attempt(lambda: psutil.disk_usage(str(data_folder)).percent),
        "booted": psutil.boot_time(),
    }


def _logs(name: str, service: Service, config_folder: Path, data_folder: Path) -> list[Path]:
    own = [place(log, config_folder, data_folder) for log in service.logs]
    return list(dict.fromkeys([log_of(name, service, config_folder, data_folder), *own]))[:_LOGS]


def _log(path: Path) -> dict[str, Any]:
    lines = tail(path, _LOG_LINES)
    while lines and sum(len(line) + 4 for line in lines) > _LOG_SIZE:
        lines.pop(0)
    return {"path": str(path), "written": path.stat().st_mtime, "lines": lines}


def _fit(evidence: dict[str, Any]) -> dict[str, Any]:
    """Leave whole parts out, the largest first, until it fits."""
    while len(json.dumps(evidence)) > SIZE_LIMIT:
        largest = max(evidence, key=lambda name: len(json.dumps(evidence[name])))
        evidence[largest] = {"missing": f"left out: the evidence was more than {SIZE_LIMIT} bytes"}
    return evidence
