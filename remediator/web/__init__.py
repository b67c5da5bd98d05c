"""The HTTP interface: parse, one call, answer."""

from remediator.web.app import Surroundings, create_app

__all__ = ["Surroundings", "create_app"]
