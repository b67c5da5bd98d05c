"""The commands that run something: ``up`` and ``remediator``."""

from pathlib import Path

import click

from remediator.cli_check import WRONG, load_or_exit
from remediator.stack.shipped import shipped_platform

_DATA = Path("soulfra-data")
_CONFIG = Path("soulfra.yml")
_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--demo", is_flag=True, help="Start the example platform too, with a load on it.")
@click.option(
    "--config", type=_FILE, help="Configuration. Default: ./soulfra.yml; with --demo the example platform's."
)
@click.option("--data", type=_FOLDER, default=_DATA, show_default=True, help="Folder for all data and logs.")
def up(*, demo: bool, config: Path | None, data: Path) -> None:
    """Run everything from one configuration, in the foreground.

    Starts Prometheus, Alertmanager, exporter and remediator, and starts them again when they end. With
    --demo it also starts each service that has a restart command, once. Ctrl-C ends all of it.
    """
    from remediator.stack.up import StackError  # noqa: PLC0415 - after the configuration, which may be wrong
    from remediator.stack.up import up as run  # noqa: PLC0415

    loaded = load_or_exit(config or (shipped_platform() / "soulfra.yml" if demo else _CONFIG))
    try:
        run(loaded, data, demo=demo)
    except StackError as error:
        click.echo(str(error), err=True)
        raise SystemExit(WRONG) from error


@click.command()
@click.option("--config", type=_FILE, default=_CONFIG, show_default=True, help="Configuration.")
@click.option(
    "--data", type=_FOLDER, default=_DATA, show_default=True, help="Folder of the store and of logs."
)
@click.option("--listen", metavar="HOST:PORT", help="Address to listen on. Default: remediator.listen.")
def remediator(*, config: Path, data: Path, listen: str | None) -> None:
    """Run the remediator alone: it takes alerts, decides, repairs and proves."""
    loaded = load_or_exit(config)
    from exporter.document import ConfigError  # noqa: PLC0415 - as in load_or_exit
    from remediator.server import StartError, serve  # noqa: PLC0415 - flask: after the mistakes

    try:
        serve(loaded, data, listen)
    except (StartError, ConfigError, OSError) as error:
        click.echo(str(error), err=True)
        raise SystemExit(WRONG) from error
