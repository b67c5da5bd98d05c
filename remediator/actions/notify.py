"""Tells channels something as a step of a playbook."""

from typing import TYPE_CHECKING

from remediator.actions import ActionContext, ActionError
from remediator.notify import Notification
from soulfra_monitor.problems import Problem, Severity

if TYPE_CHECKING:
    from remediator.playbook import NotifyArgs


def run(args: "NotifyArgs", context: ActionContext, timeout: float) -> str:  # noqa: ARG001 - the notifier has its own
    """Tell the channels; one that takes it is enough."""
    summary = context.summary
    results = context.notifier.send(
        args.channels,
        Notification(
            subject=f"{context.target}: {summary.get('playbook', 'a playbook')}",
            text=args.message,
            severity=Severity.of_alert(summary.get("severity")),
            target=context.target,
            problem=Problem.of(summary.get("problem")),
            error_id=summary.get("error"),
            run_id=context.run_id,
        ),
    )
    failed = [f"{channel}: {reason}" for channel, reason in results.items() if reason is not None]
    if not context.notifier.reached_people(results):
        raise ActionError("nobody was told: " + "; ".join(failed))
    told = ", ".join(channel for channel, reason in results.items() if reason is None)
    return f"told {told}" + (f"; not told: {'; '.join(failed)}" if failed else "")
