"""How views reach what they work with."""

from typing import TYPE_CHECKING, Any

from flask import current_app, request

if TYPE_CHECKING:
    from remediator.web.access import Gate
    from remediator.web.app import Surroundings


def surroundings() -> "Surroundings":
    """Return what the running application works with."""
    found: Surroundings = current_app.extensions["surroundings"]
    return found


def gate() -> "Gate":
    """Return the running application's gate."""
    found: Gate = current_app.extensions["gate"]
    return found


def json_body() -> Any:
    """Return the body read as JSON, whatever it calls itself; None when it is none, or nested too deep."""
    try:
        return request.get_json(force=True, silent=True)
    except RecursionError:
        return None
