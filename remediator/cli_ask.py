"""The commands that read from a running remediator."""

import click

from remediator.cli_common import Remediator, asks_remediator
from remediator.cli_story import error_story, run_story
from remediator.cli_tables import errors_text, health_text, heartbeats_text, runs_text

DEGRADED = 3
CRITICAL = 4

_EXIT = {"healthy": 0, "degraded": DEGRADED, "critical": CRITICAL}


@click.command()
@asks_remediator
def health(remediator: Remediator) -> None:
    """Show the health of all services.

    Exit status: 0 healthy, 3 degraded, 4 critical, 1 when the remediator cannot be asked.
    """
    answer = remediator.get("/health")
    remediator.show(answer, health_text)
    raise SystemExit(_EXIT.get(answer.get("status"), DEGRADED))


@click.command()
@click.option("--since", default="24h", show_default=True, help="Last seen within this time, as 30m or 7d.")
@click.option("--service", help="Of this service only.")
@click.option("--type", "type_", help="Of this type only, as service_down.")
@click.option("--severity", help="critical, high, medium or low.")
@click.option("--state", help="pending, recovered or failed.")
@click.option("--limit", type=int, help="At most so many. Default: 100.")
@click.option("--after", help="The next page, as the page before names it.")
@asks_remediator
def errors(remediator: Remediator, *, type_: str | None, limit: int | None, **query: str | None) -> None:
    """List errors and what became of them."""
    answer = remediator.get("/errors", type=type_, limit=_text(limit), **query)
    remediator.show(answer, errors_text)


@click.command()
@click.option("--since", default="24h", show_default=True, help="Started within this time, as 30m or 7d.")
@click.option("--service", help="Of this service only.")
@click.option("--outcome", help="recovered, failed, unverified, interrupted, cancelled or shadowed.")
@click.option("--limit", type=int, help="At most so many. Default: 100.")
@asks_remediator
def recoveries(remediator: Remediator, *, limit: int | None, **query: str | None) -> None:
    """List runs and their outcomes, newest first."""
    remediator.show(remediator.get("/runs", limit=_text(limit), **query), runs_text)


@click.command()
@click.argument("identity", metavar="ID")
@asks_remediator
def explain(remediator: Remediator, *, identity: str) -> None:
    """Tell the story of one error (SE_...) or run (R_...).

    What came in, the state it happened in, what is suggested, what was decided and why, what was done, how
    it was proved, and what happens next.
    """
    path = identity.replace("/", "")
    if identity.startswith("R_"):
        remediator.show(remediator.get(f"/runs/{path}"), run_story)
    else:
        remediator.show(remediator.get(f"/errors/{path}"), error_story)


@click.command()
@asks_remediator
def heartbeats(remediator: Remediator) -> None:
    """Show the jobs that must report, and whether they do.

    Exit status: 0, or 3 when one failed or was missed, 1 when the remediator cannot be asked.
    """
    answer = remediator.get("/heartbeats")
    remediator.show(answer, heartbeats_text)
    bad = {item.get("status") for item in answer["heartbeats"]} & {"failed", "missed"}
    raise SystemExit(DEGRADED if bad else 0)


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
