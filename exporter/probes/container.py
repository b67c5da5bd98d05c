"""Ask a Docker engine how a container is, what it uses, and how often it was killed for memory.

The engine's word about a container counts like the kernel's about a process. Whatever keeps us from
asking the engine says nothing about the container, so it is ``internal``.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

from exporter.kinds.container import ComposeContainer, ContainerProbe
from exporter.observation import REASONS, Measure, Outcome, Reading, Reason
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.engine import Engine, EngineError, NotFoundError, engine_of, filters, mapping, number
from exporter.probes.oom import count_kills, run_of, seconds_of
from exporter.probes.usage import Usage, engine_usage, kernel_usage

_USAGE = "usage"  # key of what is recalled
_MEASURED_EVERY = 1.0  # seconds; engines before 23 measure no more often, and who asks sooner waits
_PATIENCE = 0.5  # of the timeout, for what a container uses
_LABEL = "com.docker.compose."
_ID = re.compile(r"[0-9a-f]{64}")

_RUNNING = Measure(name="container_running", help="Whether the container runs.")
_RESTARTS = Measure(
    name="container_restarts",
    help="Restarts by the engine, by the container's restart policy.",
    type="counter",
)
_OOM_KILLS = Measure(
    name="container_oom_kills",
    help="Processes of the container killed for want of memory, of those seen by this exporter.",
    type="counter",
)
_START_TIME = Measure(name="container_start_time_seconds", help="When the container last started.")
_WORKING_SET = Measure(
    name="container_memory_working_set_bytes", help="Memory in use that cannot be reclaimed at once."
)
_MEMORY_LIMIT = Measure(
    name="container_memory_limit_bytes", help="The container's own limit; absent when it has none."
)
_CPU = Measure(name="container_cpu_seconds", help="Processor time used since the start.", type="counter")
_PIDS = Measure(name="container_pids", help="Processes and threads in the container.")

_STATES: Mapping[str, tuple[Reason, str]] = {
    "created": (Reason.STOPPED, "was never started"),
    "paused": (Reason.STOPPED, "is paused"),
    "restarting": (Reason.RESTARTING, "is restarting"),
    "removing": (Reason.MISSING, "is being removed"),
    "exited": (Reason.GONE, "has ended"),
    "dead": (Reason.GONE, "is dead"),
}
"""What each state of the engine but ``running`` says."""


async def probe(config: ContainerProbe, context: Context) -> Outcome:
    """Ask the engine, once. Never raises: a failure is the outcome."""
    progress = context.progress()
    outcome = await guarded(_ask(config, context, progress), progress, context.timeout)
    if outcome.reason is None or outcome.reason in REASONS["container"]:
        return outcome
    # What the network did to us on the way to the engine.
    return replace(outcome, reason=Reason.INTERNAL, detail=f"the engine cannot be asked: {outcome.detail}")


async def _ask(config: ContainerProbe, context: Context, progress: Progress) -> Outcome:
    try:
        async with engine_of(config, context, progress) as engine:
            return await _look(engine, config, context, progress)
    except NotFoundError:
        # Docker Compose removes a container and makes it anew: a second look decides.
        return progress.outcome(
            Reason.MISSING, "there is no such container", readings=(Reading(_RUNNING, 0),)
        )
    except PermissionError:
        return progress.outcome(Reason.INTERNAL, "the engine's socket may not be opened by this user")
    except EngineError as error:
        return progress.outcome(Reason.INTERNAL, f"the engine cannot be asked: {error}")


async def _look(engine: Engine, config: ContainerProbe, context: Context, progress: Progress) -> Outcome:
    name = await _name(engine, config.container)
    facts = mapping(await engine.ask(f"/containers/{name}/json"))
    progress.reach("processing")
    state = mapping(facts.get("State"))
    status = str(state.get("Status", ""))
    identity = str(facts.get("Id", ""))
    if not _ID.fullmatch(identity) or (status != "running" and status not in _STATES):
        raise EngineError("its answer about the container cannot be understood")
    progress.note("%s is %s, health %s", facts.get("Name"), status, _health(state) or "unknown")
    pid = int(number(state.get("Pid")) or 0)
    usage = kernel_usage(pid, identity) if pid else Usage()
    run = run_of(identity, state, None if usage is None else usage.oom_kills)
    kills = await count_kills(engine, run, context.recall, progress)
    if usage is None:
        usage = await _told_usage(engine, identity, context, progress)
    progress.reach("transfer")
    readings = (Reading(_OOM_KILLS, kills.total), *_readings(facts, state, usage))
    reason, detail = _judge(config, state, readings, starved=kills.counted > 0) or (None, _told(state))
    return progress.outcome(reason, detail, readings=readings)


async def _told_usage(engine: Engine, identity: str, context: Context, progress: Progress) -> Usage:
    """Return what the engine says the container uses; nothing when it is slow, which is no verdict.

    After that nothing more can be asked over this connection.
    """
    last: tuple[str, float, Usage] | None = context.recall.get(_USAGE)
    if last is not None and last[0] == identity and monotonic() - last[1] < _MEASURED_EVERY:
        return last[2]
    try:
        async with asyncio.timeout(context.timeout * _PATIENCE):
            path = f"/containers/{identity}/stats"
            answer = await engine.ask(path, stream="false", **{"one-shot": "true"})
    except TimeoutError:
        progress.note("the engine does not tell in time what the container uses")
        return Usage()
    usage = engine_usage(mapping(answer))
    context.recall[_USAGE] = identity, monotonic(), usage
    return usage


async def _name(engine: Engine, container: str | ComposeContainer) -> str:
    """Return name or id of the container. Raises NotFoundError."""
    if isinstance(container, str):
        return container
    labels = {
        "project": container.project,
        "service": container.service,
        "container-number": str(container.number),
        "oneoff": "False",  # not one of `compose run`
    }
    wanted = filters(label=[f"{_LABEL}{key}={value}" for key, value in labels.items()])
    found = await engine.ask("/containers/json", all="true", filters=wanted)
    # While Compose makes a container anew there may be two; the newest comes first.
    for entry in found if isinstance(found, list) else []:
        identity = str(mapping(entry).get("Id", ""))
        if _ID.fullmatch(identity):
            return identity
    raise NotFoundError("it has no such container")


def _health(state: Mapping[str, Any]) -> str:
    return str(mapping(state.get("Health")).get("Status", ""))


def _told(state: Mapping[str, Any]) -> str:
    health = _health(state)
    return f"running, {health}" if health and health != "none" else "running"


def _judge(
    config: ContainerProbe, state: Mapping[str, Any], readings: tuple[Reading, ...], *, starved: bool
) -> tuple[Reason, str] | None:
    status = str(state.get("Status"))
    if status in _STATES:
        reason, detail = _STATES[status]
        return reason, detail + _ending(state, status, starved=starved)
    # One that is still starting is not unhealthy: the engine says so once its start period is over.
    if _health(state) == "unhealthy":
        return Reason.UNHEALTHY, f"is unhealthy by its own check, which {_last_check(state)}"
    if config.max_memory is None:
        return None
    values = {seen.measure.name: seen.value for seen in readings}
    used, limit = values.get(_WORKING_SET.name), values.get(_MEMORY_LIMIT.name)
    if used is None:
        return Reason.INTERNAL, "the engine does not tell the memory, so the limit cannot be judged"
    if limit is None or used / limit <= config.max_memory:
        return None
    return (
        Reason.LIMIT,
        f"memory: {used:.0f} of {limit:.0f}, allowed are {100 * config.max_memory:g}%",
    )


def _ending(state: Mapping[str, Any], status: str, *, starved: bool) -> str:
    if status not in ("exited", "dead", "restarting"):
        return ""
    killed = ", after a kill for want of memory" if starved else ""
    return f", exit code {number(state.get('ExitCode')) or 0:.0f}{killed}"


def _last_check(state: Mapping[str, Any]) -> str:
    log = mapping(state.get("Health")).get("Log")
    last = mapping(log[-1]) if isinstance(log, list) and log else {}
    streak = number(mapping(state.get("Health")).get("FailingStreak")) or 0
    # Its output stays out: it is the container's own text and may be anything.
    return f"failed {streak:.0f} times, last with exit code {number(last.get('ExitCode')) or 0:.0f}"


def _readings(facts: Mapping[str, Any], state: Mapping[str, Any], usage: Usage) -> Iterator[Reading]:
    yield Reading(_RUNNING, int(state.get("Status") == "running"))
    values = (
        (_RESTARTS, number(facts.get("RestartCount"))),
        (_START_TIME, seconds_of(state.get("StartedAt"))),
        (_MEMORY_LIMIT, number(mapping(facts.get("HostConfig")).get("Memory")) or None),
        (_WORKING_SET, usage.working_set),
        (_CPU, usage.cpu_seconds),
        (_PIDS, usage.pids),
    )
    yield from (Reading(measure, value) for measure, value in values if value is not None)
