"""The command ``soulfra exporter``."""

import asyncio
import errno
import gc
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.fields import check_address, is_loopback
from exporter.loading import load_config

if TYPE_CHECKING:
    from exporter.app import Exporter

log = logging.getLogger("exporter")

USAGE_ERROR = 2


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
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
)
def exporter(config_file: Path, listen: str | None, log_level: str) -> None:
    """Probe services and expose what was seen, on /metrics and /state."""
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    try:
        config = load_config(config_file, WatchConfig)
    except ConfigError as error:
        _refuse(str(error))
    for warning in config.warnings():
        log.warning("%s: %s", config_file, warning)
    address = _listen_address(listen or config.exporter.listen)
    # Here, because --help and mistakes in the configuration need none of it.
    import uvloop  # noqa: PLC0415

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config_file, config, address))


def _listen_address(address: str) -> str:
    try:
        check_address(address)
    except ValueError as error:
        _refuse(f"--listen: {error}")
    host = address.rpartition(":")[0].strip("[]")
    if not is_loopback(host):
        _refuse(
            f"refused to listen on {address}: whoever reaches this port could reload the configuration"
            " and make the exporter probe; this version has no protection for that, so listen on 127.0.0.1"
        )
    return address


async def _serve(config_file: Path, config: WatchConfig, address: str) -> None:
    from aiohttp import web  # noqa: PLC0415 - as above

    from exporter.app import Exporter, make_app  # noqa: PLC0415 - as above

    watch = Exporter(config_file, config, address)
    runner = web.AppRunner(make_app(watch), access_log=None)
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        await web.TCPSite(runner, host.strip("[]"), int(port)).start()
    except OSError as error:
        await runner.cleanup()
        if error.errno == errno.EADDRINUSE:
            _refuse(f"cannot listen on {address}: another process listens there already")
        _refuse(f"cannot listen on {address}: {error.strerror}")
    ended = asyncio.Event()
    reloads = _on_signals(watch, ended)
    await watch.start()
    log.info("listening on http://%s, watching %d services", address, len(config.services))
    gc.freeze()  # what start-up made stays: the collector need not walk through it again
    await ended.wait()
    log.info("stopping")
    for task in reloads:
        task.cancel()
    await watch.stop()
    await runner.cleanup()


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
