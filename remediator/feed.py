"""One line for people per thing that happens: alert, decision, run, outcome."""

import sys
from datetime import datetime
from typing import Protocol

from soulfra_monitor.redaction import harmless, redact


class Feed(Protocol):
    """Say one thing; never raises."""

    def __call__(self, kind: str, text: str) -> None: ...


def print_line(kind: str, text: str) -> None:
    """Print to standard output, which ``soulfra up`` relays; a closed output is nobody listening."""
    line = harmless(redact(" ".join(text.split())))
    try:
        sys.stdout.write(f"{datetime.now().astimezone():%H:%M:%S}  {kind:<9} {line}\n")
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        # Nobody reads the feed any more; the store has all of it.
        return
