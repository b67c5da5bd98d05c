"""The commands that change something at a running remediator."""

import getpass
import time
from typing import Any

import click

from remediator.cli_common import REFUSED, Remediator, asks_remediator
from remediator.cli_story import run_story
from remediator.cli_tables import pause_text

_POLL = 0.25  # seconds between two looks at a run that is waited for


@click.command()
@click.argument("action")
@click.argument("target")
@click.option("--force", is_flag=True, help="Skip cooldown, budget and pause.")
@click.option("--wait", is_flag=True, help="Wait for the outcome; exit status 0 only when recovered.")
@asks_remediator
def recover(remediator: Remediator, *, action: str, target: str, force: bool, wait: bool) -> None:
    """Ask for a recovery now.

    ACTION is restart_service, reconnect_redis, retry_failed or another that a playbook matches; TARGET is
    a service.
    """
    begun = remediator.post("/recover", action=action, target=target, force=force, by=login_name())
    if not wait:
        remediator.show(
            begun, lambda answer: f"run {answer['run']} has begun: soulfra explain {answer['run']}"
        )
        return
    run = remediator.get(f"/runs/{begun['run']}")
    while run.get("outcome") is None:
        time.sleep(_POLL)
        run = remediator.get(f"/runs/{begun['run']}")
    remediator.show(run, run_story)
    raise SystemExit(0 if run["outcome"] == "recovered" else REFUSED)


@click.command()
@click.argument("error", metavar="ERROR")
@asks_remediator
def approve(remediator: Remediator, *, error: str) -> None:
    """Let a recovery run that waits for approval."""
    answer = remediator.post(f"/errors/{error.replace('/', '')}/approve", by=login_name())
    remediator.show(answer, lambda _: f"{error}: approved")


@click.command()
@click.argument("error", metavar="ERROR")
@asks_remediator
def reject(remediator: Remediator, *, error: str) -> None:
    """Refuse a recovery that waits for approval."""
    answer = remediator.post(f"/errors/{error.replace('/', '')}/reject", by=login_name())
    remediator.show(answer, lambda _: f"{error}: rejected")


@click.command()
@click.argument("target", required=False)
@click.option("--reason", required=True, help="Why; others read it.")
@click.option("--for", "for_", metavar="DURATION", help="End by itself after this time, as 2h.")
@asks_remediator
def pause(remediator: Remediator, *, target: str | None, reason: str, for_: str | None) -> None:
    """Hold automatic recoveries back: of TARGET, or of everything.

    A recovery that a person asks for with --force runs all the same.
    """
    body: dict[str, Any] = {"scope": target or "everything", "reason": reason, "owner": login_name()}
    remediator.show(remediator.post("/pause", **body, **{"for": for_}), pause_text)


@click.command()
@click.argument("target", required=False)
@asks_remediator
def resume(remediator: Remediator, *, target: str | None) -> None:
    """Let automatic recoveries run again: of TARGET, or of everything."""
    scope = target or "everything"
    answer = remediator.post("/resume", scope=scope)
    remediator.show(
        answer, lambda told: f"{scope}: " + ("resumed" if told.get("ended", 1) else "was not paused")
    )


def login_name() -> str:
    """Return who asks, as the operating system knows them."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"  # a user id without a name, as in some containers
