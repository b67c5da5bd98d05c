"""Calls a repair hook that a service offers, for example reconnect_redis."""

from typing import TYPE_CHECKING

from remediator.actions import ActionContext, ActionError
from remediator.actions.http import run as call_address
from remediator.playbook import HttpArgs

if TYPE_CHECKING:
    from remediator.playbook import HookArgs


def run(args: "HookArgs", context: ActionContext, timeout: float) -> str:
    """Post to the hook's address in the inventory, with the run's id; any 2xx of HttpArgs is success."""
    address = context.services[args.service].hooks.get(args.hook)
    if address is None:
        raise ActionError(f"services.{args.service} has no hook {args.hook!r}", permanent=True)
    body = {"hook": args.hook, "run": context.run_id, "target": context.target}
    return call_address(HttpArgs(url=address, json_=body), context, timeout)
