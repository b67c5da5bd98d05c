"""Calls an address; the status decides."""

from typing import TYPE_CHECKING

from remediator.actions import ActionContext, ActionError
from remediator.calls import CallError, call
from soulfra_monitor.redaction import redact

if TYPE_CHECKING:
    from remediator.playbook import HttpArgs

_BODY_LIMIT = 64 * 1024
_TOLD_LIMIT = 300


def run(args: "HttpArgs", context: ActionContext, timeout: float) -> str:  # noqa: ARG001 - the contract
    """Call once, say what it answered. Safe to repeat only if the address is; the playbook decides."""
    headers = {"Accept": "*/*", **args.headers}
    try:
        answer = call(
            args.method,
            args.url,
            timeout=timeout,
            json_body=args.json_,
            headers=headers,
            limit=_BODY_LIMIT,
        )
    except CallError as error:
        raise ActionError(str(error), permanent=error.permanent) from error
    # Redacted before it is shortened: half a secret has lost what gives it away.
    told = redact(answer.text(_BODY_LIMIT))[:_TOLD_LIMIT]
    line = f"status {answer.status}{f': {told}' if told else ''}"
    if answer.status not in args.expect:
        raise ActionError(line, permanent=answer.refused)
    return line
