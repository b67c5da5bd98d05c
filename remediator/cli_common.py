"""What the commands share that ask a remediator: their options, and how an answer or a refusal is shown."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from remediator.client import Client, ClientError, RefusedError
from soulfra_monitor.redaction import harmless

_DEFAULT_URL = "http://127.0.0.1:3001"

UNREACHABLE = 1
REFUSED = 1

Command = TypeVar("Command", bound=Callable[..., Any])


class Remediator:
    """The remediator a command talks to, and how the command shows what it says."""

    def __init__(self, client: Client, *, as_json: bool) -> None:
        self._client = client
        self.as_json = as_json

    def get(self, path: str, **query: str | None) -> Any:
        """Return what stands at *path*, or end the command with the reason why not."""
        return self._or_exit(lambda: self._client.get(path, query))

    def post(self, path: str, **body: Any) -> Any:
        """Ask for a change, or end the command with the reason why it was refused."""
        given = {key: value for key, value in body.items() if value is not None}
        return self._or_exit(lambda: self._client.post(path, given))

    def show(self, answer: Any, tell: Callable[[Any], str]) -> None:
        """Print the answer: as it came for scripts, told by *tell* for people."""
        click.echo(json.dumps(answer) if self.as_json else harmless(tell(answer)))

    def _or_exit(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except RefusedError as error:
            if self.as_json:
                click.echo(json.dumps(error.answer))
            else:
                click.echo(harmless(str(error)), err=True)
            raise SystemExit(REFUSED) from error
        except ClientError as error:
            click.echo(harmless(str(error)), err=True)
            raise SystemExit(UNREACHABLE) from error


def asks_remediator(command: Command) -> Command:
    """Give a command the options of a client; it gets a Remediator as its first argument."""

    @click.option(
        "--url",
        envvar="SOULFRA_URL",
        default=_DEFAULT_URL,
        show_default=True,
        help="Where the remediator is.",
    )
    @click.option(
        "--token-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="File with the token. Default: the variable SOULFRA_TOKEN.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print the API's answer as it is, for scripts.")
    @functools.wraps(command)
    def run(*, url: str, token_file: Path | None, as_json: bool, **rest: Any) -> Any:
        client = Client(url, _token(token_file))
        return command(Remediator(client, as_json=as_json), **rest)

    return run  # type: ignore[return-value]  # click's decorators keep the callable's kind


def _token(file: Path | None) -> str | None:
    # Never an option of its own: everybody on the machine can read the arguments of a process.
    if file is None:
        return os.environ.get("SOULFRA_TOKEN") or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: the token cannot be read") from error
