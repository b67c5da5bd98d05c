"""Does nothing for a while."""

from typing import TYPE_CHECKING

from remediator.actions import ActionContext, ActionError

if TYPE_CHECKING:
    from remediator.playbook import WaitArgs


def run(args: "WaitArgs", context: ActionContext, timeout: float) -> str:
    """Wait; ends early, as a failure, when the remediator ends or the step's time is shorter."""
    if context.stop.wait(min(args.seconds, timeout)):
        raise ActionError("interrupted: the remediator is stopping")
    if args.seconds > timeout:
        raise ActionError(
            f"{args.seconds:g} s do not fit in the step's timeout of {timeout:g} s", permanent=True
        )
    return f"waited {args.seconds:g} s"
