"""The command ``soulfra exporter``."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.fields import check_address, check_shard, is_loopback, split_address
from exporter.limits import hold_standard_files, raise_open_files, return_memory
from exporter.loading import load_config

if TYPE_CHECKING:
    from exporter.app import Exporter

log = logging.getLogger("exporter")

USAGE_ERROR = 2
FULL_PASSES_AFTER = 50  # passes over the younger generations; Python's own is 10


@click.command()
@click.option(
    "--config",
    "config_file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration, for example soulfra.yml.",
)
@click.option("--listen", metavar="HOST:PORT", help="Default: exporter.listen of the configuration.")
@click.option(
    "--web.config.file",
    "web_config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TLS, client certificates and users, as for Prometheus's exporters. Default: exporter.web_config.",
)
@click.option("--shard", metavar="INDEX/COUNT", help="Watch this part of the services only, for example 0/3.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
)
def exporter(
    config_file: Path, listen: str | None, web_config_file: Path | None, shard: str | None, log_level: str
) -> None:
    """Probe services and expose what was seen, on /metrics and /state."""
    hold_standard_files()
    hung_up = _note_hangups()
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    try:
        config = load_config(config_file, WatchConfig)
    except ConfigError as error:
        _refuse(str(error))
    for warning in config.warnings():
        log.warning("%s: %s", config_file, warning)
    address = _checked("--listen", check_address, listen or config.exporter.listen)
    if shard is not None:
        _checked("--shard", check_shard, shard)
    # Here, because --help and mistakes in the configuration need none of it.
    import uvloop  # noqa: PLC0415

    raise_open_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config_file, config, address, web_config_file, shard, hung_up=hung_up))


def _checked(option: str, check: Callable[[str], str], text: str) -> str:
    try:
        return check(text)
    except ValueError as error:
        _refuse(f"{option}: {error}")


def _note_hangups() -> list[int]:
    """Keep SIGHUPs in a list that is returned: they would end who is asked to reload while it starts."""
    seen: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _: seen.append(number))
    return seen


async def _serve(
    config_file: Path,
    config: WatchConfig,
    address: str,
    web_config_file: Path | None,
    shard: str | None,
    *,
    hung_up: list[int],
) -> None:
    from exporter.app import Exporter, make_app  # noqa: PLC0415 - as above
    from exporter.serving import Listener, Overrides, listen_failure, unprotected  # noqa: PLC0415
    from exporter.shard import Shard  # noqa: PLC0415
    from exporter.webconfig import load_web_config  # noqa: PLC0415

    overrides = Overrides(web_config=web_config_file, shard=Shard.parse(shard) if shard else None)
    try:
        protection = load_web_config(overrides.web_config_of(config, config_file))
    except ConfigError as error:
        _refuse(str(error))
    refusal = unprotected(address, protection)
    if refusal is not None:
        _refuse(refusal)
    if protection.sends_passwords_in_clear and not is_loopback(split_address(address)[0]):
        log.warning("passwords come in clear text over the network: give tls_server_config too")
    watch = Exporter(config_file, config, address, web_config=protection, overrides=overrides)
    listener = Listener(make_app(watch), address, watch.door)
    try:
        await listener.start(watch.reload_protection)
    except OSError as error:
        await listener.stop()
        _refuse(listen_failure(address, error))
    ended = asyncio.Event()
    reloads = _on_signals(watch, ended)
    await watch.start()
    if hung_up:
        await watch.reload_by_signal()
    log.info(
        "listening on %s://%s, watching %d services", protection.scheme, address, len(watch.config.services)
    )
    return_memory()
    gc.freeze()  # what start-up made stays: the collector need not walk through it again
    # A full pass over what 5,000 probes keep takes 150 ms, in which nothing is read: a fifth as many.
    gc.set_threshold(*gc.get_threshold()[:2], FULL_PASSES_AFTER)
    await ended.wait()
    log.info("stopping")
    for task in reloads:
        task.cancel()
    await watch.stop()
    await listener.stop()


def _on_signals(watch: "Exporter", ended: asyncio.Event) -> "set[asyncio.Task[None]]":
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(watch.reload_by_signal())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    return reloads


def _refuse(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(USAGE_ERROR)
