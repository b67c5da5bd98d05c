"""The command ``soulfra probe``: look once, from here, and show every step. Needs no running exporter."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import click

from soulfra_monitor.redaction import harmless, redact

if TYPE_CHECKING:
    from exporter.config import WatchConfig
    from exporter.kinds import ProbeBase
    from exporter.looking import Look

UNHEALTHY = 1
USAGE_ERROR = 2
CANNOT_TELL = 2
DEFAULT_LIMIT = 10.0  # seconds; of a module that sets none


@click.command()
@click.argument("name")
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("soulfra.yml"),
    show_default=True,
    help="The configuration.",
)
@click.option("--probe", "only", metavar="PROBE", help="This probe of the service alone.")
@click.option("--module", metavar="MODULE", help="Ask NAME, an address then, as this module says.")
@click.option("--json", "as_json", is_flag=True, help="Print what was seen as JSON.")
def probe(name: str, config_file: Path, only: str | None, module: str | None, as_json: bool) -> None:
    """Run the probes of the service NAME once, from this machine, and show each step.

    Ends with status 0 when it is healthy, 1 when it is not, 2 when it cannot be asked or this
    machine cannot tell. Nothing is recorded, no alert is raised and nothing is repaired.
    """
    config = _read(config_file)
    if module is not None and only is not None:
        _refuse("--probe goes with a service, --module with an address: leave one of them out")
    chosen = _by_module(config, module, name) if module is not None else _of_service(config, name, only)
    looks = asyncio.run(_look(config, chosen))
    click.echo(_as_json(looks) if as_json else _for_people(name, looks))
    sys.exit({True: 0, False: UNHEALTHY, None: CANNOT_TELL}[_healthy(looks)])


def _healthy(looks: "list[Look]") -> bool | None:
    """Return the verdict; None when nothing failed, but some probe could not look."""
    from exporter.observation import Reason  # noqa: PLC0415 - with the others

    reasons = {one.observation.reason for one in looks if not one.observation.healthy}
    if not reasons:
        return True
    return None if reasons == {Reason.INTERNAL} else False


def _read(file: Path) -> "WatchConfig":
    # Here, because --help needs none of it.
    from exporter.config import WatchConfig  # noqa: PLC0415
    from exporter.document import ConfigError  # noqa: PLC0415
    from exporter.loading import load_config  # noqa: PLC0415

    try:
        return load_config(file, WatchConfig)
    except ConfigError as error:
        _refuse(str(error))


def _of_service(config: "WatchConfig", name: str, only: str | None) -> "dict[str, tuple[ProbeBase, float]]":
    from exporter.plans import settings_of  # noqa: PLC0415 - as above

    service = config.services.get(name)
    if service is None:
        known = ", ".join(config.services) or "there is none"
        found = ""
        if config.discovery:
            found = f"; a discovered one is asked at http://{config.exporter.listen}/probe?debug=true&target="
            found += quote(name)
        _refuse(f"there is no service {name!r} in the configuration; services: {known}{found}")
    probes = {
        key: (one, settings_of(one, config.exporter).timeout)
        for key, one in service.all_probes()
        if only in (None, key)
    }
    if not probes:
        known = ", ".join(key for key, _ in service.all_probes()) or "it has none"
        what = f"no probe {only!r}" if only is not None else "nothing that watches it"
        _refuse(f"{name} has {what}; probes: {known}")
    return probes


def _by_module(config: "WatchConfig", name: str, target: str) -> "dict[str, tuple[ProbeBase, float]]":
    from exporter.translation import TargetError, probe_of  # noqa: PLC0415 - as above

    module = config.exporter.modules.get(name)
    if module is None:
        known = ", ".join(config.exporter.modules) or "there is none"
        _refuse(f"there is no module {name!r} in the configuration; modules: {known}")
    obstacles = module.obstacles()
    if obstacles:
        _refuse(f"module {name} cannot be used: {'; '.join(obstacles)}")
    try:
        return {module.prober: (probe_of(module, target), module.timeout or DEFAULT_LIMIT)}
    except TargetError as error:
        _refuse(str(error))


async def _look(config: "WatchConfig", chosen: "dict[str, tuple[ProbeBase, float]]") -> "list[Look]":
    from exporter.looking import look  # noqa: PLC0415 - as above
    from exporter.probes.context import Context, Tools  # noqa: PLC0415

    tools = Tools()
    tools.resolver.source = config.exporter.resolver
    # Beside network probes a stopped process is told by their time-outs.
    alone = all(one.kind == "process" for one, _ in chosen.values())
    try:
        return [
            await look(
                name, one, Context(timeout=limit, tools=tools, notes=[], stopped_fails=alone), Counter()
            )
            for name, (one, limit) in chosen.items()
        ]
    finally:
        await tools.close()


def _for_people(name: str, looks: "list[Look]") -> str:
    from exporter.looking import told  # noqa: PLC0415 - as above

    failed = sum(not one.observation.healthy for one in looks)
    verdict = {
        True: "healthy",
        False: f"NOT healthy, {failed} of {len(looks)} probes failed",
        None: f"cannot tell, {failed} of {len(looks)} probes could not look; the service may be healthy",
    }[_healthy(looks)]
    return harmless(f"{told(looks)}\n\n{redact(name)}: {verdict}")


def _as_json(looks: "list[Look]") -> str:
    return json.dumps({"healthy": _healthy(looks), "probes": {one.name: _facts(one) for one in looks}})


def _facts(one: "Look") -> dict[str, Any]:
    from exporter.observation import Reason  # noqa: PLC0415 - with the others

    seen = one.observation
    tls = seen.outcome.tls
    return {
        "kind": one.kind,
        "healthy": None if seen.reason is Reason.INTERNAL else seen.healthy,
        "reason": seen.reason,
        "detail": seen.outcome.detail,
        "seconds": seen.seconds,
        "phases": dict(seen.outcome.phases),
        "address": seen.outcome.address or None,
        "status": seen.outcome.http.status if seen.outcome.http else None,
        "certificate": tls and {"not_after": tls.not_after, "verified": tls.verified, "version": tls.version},
        "steps": [{"seconds": note.seconds, "text": note.text} for note in one.notes],
    }


def _refuse(message: str) -> NoReturn:
    click.echo(harmless(message), err=True)
    sys.exit(USAGE_ERROR)
