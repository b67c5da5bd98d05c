"""What can be done to a service: one contract, one table.

An action does its effect once and returns one line about it; it raises ActionError when it could
not. It may be called again after a failure that was not permanent, so it starts from what it finds.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from exporter.config import Service
    from remediator.notify import Notifier


class ActionError(Exception):
    """The action could not be done; *permanent* means that trying again cannot help."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionContext:
    """What an action may use besides its arguments."""

    run_id: str
    target: str
    services: Mapping[str, "Service"]
    config_folder: Path  # relative paths of the configuration start here
    data_folder: Path  # logs/NAME.log are written below it
    processes: Mapping[str, Mapping[str, Any]]  # per service, what the exporter says of its process just now
    notifier: "Notifier"
    summary: Mapping[str, Any]  # error, playbook and run, for notifications
    withheld: frozenset[str] = frozenset()  # variables with our own secrets; no child inherits them
    stop: threading.Event = field(default_factory=threading.Event)  # set when the remediator ends


class Action(Protocol):
    """Do it once within *timeout* seconds; return one line; raise ActionError."""

    def __call__(self, args: Any, context: ActionContext, timeout: float) -> str: ...


ACTIONS: dict[str, str] = {
    "restart": "remediator.actions.restart:run",
    "http": "remediator.actions.http:run",
    "command": "remediator.actions.command:run",
    "hook": "remediator.actions.hook:run",
    "file": "remediator.actions.file:run",
    "wait": "remediator.actions.wait:run",
    "notify": "remediator.actions.notify:run",
}
"""Name -> where its function is; imported when first used, because memory is a feature."""


def find_action(name: str) -> Action:
    """Return the action of that name. Raises KeyError for a name that is not in the table."""
    module, _, function = ACTIONS[name].partition(":")
    found: Callable[..., str] = getattr(import_module(module), function)
    return found
