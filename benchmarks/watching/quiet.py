"""A reporter of nothing: what a watched call costs is asked, not what becomes of an error."""

from typing import Any


class Quiet:
    """Takes everything and tells nobody."""

    def raised(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def noted(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def broke(self, *_: Any, **__: Any) -> None:
        """Do nothing."""
