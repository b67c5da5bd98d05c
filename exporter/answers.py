"""The JSON of ``/state`` and ``/check``. Times are epoch seconds, durations seconds."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from time import time
from typing import Any

from exporter.observation import Observation, ProcessFacts, Reason
from exporter.reasons import trouble_of
from exporter.state import ProbeState, ServiceState, Trouble, WorldState
from soulfra_monitor import __version__

Json = dict[str, Any]


def state_of(world: WorldState, only: str | None = None) -> Json:
    """Everything that is known, or what is known of one target."""
    state: Json = json.loads("".join(state_pieces(world, only)))
    return state


def state_pieces(world: WorldState, only: str | None = None) -> Iterator[str]:
    """Write the JSON of ``/state`` in quickly made pieces, one for each service and integration."""
    services = [service for name, service in world.services.items() if only in (None, name)]
    edges = [(ends, state) for ends, state in world.edges.items() if only is None or only in ends]
    head = {
        "at": time(),
        "started_at": world.started_at,
        "ready": world.ready,
        "prober_blind": world.blind,
        "version": __version__,
    }
    yield f'{json.dumps(head)[:-1]}, "services": {{'
    for number, service in enumerate(services):
        yield f"{', ' if number else ''}{json.dumps(service.target)}: {json.dumps(_service(service))}"
    yield '}, "integrations": ['
    for number, (ends, state) in enumerate(edges):
        yield f"{', ' if number else ''}{json.dumps(_edge(*ends, state))}"
    yield "]}"


def check_of(world: WorldState, seen: Mapping[str, Mapping[str, Observation] | None]) -> Json:
    """Tell what the checks of this moment saw; None stands for a target that nobody knows."""
    return {
        "at": time(),
        "ready": world.ready,
        "prober_blind": world.blind,
        "results": {
            target: {"known": False, "healthy": False}
            if observations is None or target not in world.services
            else _checked(world.services[target], observations)
            for target, observations in seen.items()
        },
    }


def _checked(service: ServiceState, seen: Mapping[str, Observation]) -> Json:
    # A reload may have taken a probe away while it was asked.
    seen = {name: observation for name, observation in seen.items() if name in service.probes}
    troubles = list(_troubles(service, seen))
    telling = {trouble.probe for trouble in troubles}
    failures = {name: one for name, one in seen.items() if not one.healthy and name not in telling}
    evidence = [one for one in failures.values() if one.reason is not Reason.INTERNAL]
    failed = next(iter([*evidence, *failures.values()]), None)
    return {
        "known": True,
        "healthy": bool(seen) and not evidence and _vouched(service, seen, failures.keys()),
        "trouble": _trouble(next(iter(troubles), None)),
        "status": service.verdict,
        "since": service.since,
        "recovered_at": service.recovered_at,
        "slow": service.slow,
        "reason": failed.reason if failed else None,
        "detail": failed.outcome.detail if failed else "" if seen else "nothing watches this service",
        "response_time": service.response_time,
        "process": _process(service.process),
    }


def _troubles(service: ServiceState, seen: Mapping[str, Observation]) -> Iterator[Trouble]:
    for name, observation in seen.items():
        problem = trouble_of(service.probes[name].kind, observation.reason)
        if problem is not None:
            yield Trouble(problem=problem, probe=name, observation=observation)


def _vouched(
    service: ServiceState, seen: Mapping[str, Observation], sightless: Collection[str]
) -> bool | None:
    """Say whether those that saw something may speak for the *sightless*; None when they may not.

    Somebody has to have an answer of this moment over the network, and no probe that saw the outage may be
    without sight now: what nobody saw end has not ended.
    """
    if not sightless:
        return True
    answered = any(service.probes[name].is_remote for name in seen if name not in sightless)
    outage_seen = any(service.probes[name].broken for name in sightless)
    return True if answered and not outage_seen else None


def _trouble(trouble: Trouble | None) -> Json | None:
    if trouble is None:
        return None
    return {
        "problem": trouble.problem,
        "probe": trouble.probe,
        "reason": trouble.observation.reason,
        "detail": trouble.observation.outcome.detail,
    }


def _service(service: ServiceState) -> Json:
    failing = service.failing
    return {
        "status": service.verdict,
        "since": service.since,
        "slow": service.slow,
        "response_time": service.response_time,
        "failing": failing
        and {
            "probe": failing.probe,
            "reason": failing.observation.reason,
            "detail": failing.observation.outcome.detail,
            "since": failing.since,
        },
        "trouble": _trouble(service.trouble),
        "process": _process(service.process),
        "probes": {name: _probe(state) for name, state in service.probes.items()},
    }


def _probe(state: ProbeState) -> Json:
    return {
        "healthy": state.last.healthy if state.last else None,
        "interval": state.settings.interval,
        "last": _observation(state.last),
        "last_success": _observation(state.last_success),
        "last_failure": _observation(state.last_failure),
        "recent": [_observation(observation) for observation in state.recent],
        "failures": [_observation(observation) for observation in state.failed],
    }


def _edge(source: str, destination: str, state: ProbeState) -> Json:
    last = state.last
    return {
        "source": source,
        "destination": destination,
        "healthy": last.healthy if last else None,
        "reason": last.reason if last else None,
        "detail": last.outcome.detail if last else "",
        "response_time": last.seconds if last else None,
        "at": last.at if last else None,
    }


def _observation(observation: Observation | None) -> Json | None:
    if observation is None:
        return None
    return {
        "at": observation.at,
        "healthy": observation.healthy,
        "seconds": observation.seconds,
        "reason": observation.reason,
        "detail": observation.outcome.detail,
    }


PROCESS_KEYS = (
    *("pid", "start_time", "status", "cpu_seconds", "resident_bytes", "open_fds", "max_fds", "threads"),
)
"""What /state tells of a process; the metrics tell more."""


def _process(facts: ProcessFacts | None) -> Json | None:
    if facts is None:
        return None
    values = asdict(facts)
    return {key: values[key] for key in PROCESS_KEYS}
