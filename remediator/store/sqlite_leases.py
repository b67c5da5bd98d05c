"""Who may act on a target: its lease, inside a transaction of the store's."""

import sqlite3

from remediator.run import Outcome, Run
from remediator.signals import Error


def lease_of(connection: sqlite3.Connection, target: str) -> tuple[str, float] | None:
    """Return the token that has the target's lease, and when it is over."""
    found: tuple[str, float] | None = connection.execute(
        "SELECT token, lease_until FROM leases WHERE target = ?", (target,)
    ).fetchone()
    return found


def holds(connection: sqlite3.Connection, run: Run) -> bool:
    """Whether *run* has the lease of its target still."""
    return (
        connection.execute(
            "SELECT 1 FROM leases WHERE target = ? AND token = ? AND run_id = ?",
            (run.target, run.token, run.id),
        ).fetchone()
        is not None
    )


def write_lease(connection: sqlite3.Connection, run: Run) -> None:
    """Give *run* the lease of its target."""
    connection.execute(
        "INSERT OR REPLACE INTO leases (target, token, run_id, lease_until) VALUES (?, ?, ?, ?)",
        (run.target, run.token, run.id, run.lease_until),
    )


def supersede(connection: sqlite3.Connection, run: Run, error: Error | None) -> None:
    """End what ran on the target under a lease that is over, and have its error looked at.

    The error that *run* is for is in the hands of the caller already.
    """
    connection.execute(
        "UPDATE errors SET check_at = ?, version = version + 1 WHERE open = 1 AND check_at IS NULL "
        "AND id IS NOT ? AND id IN (SELECT error_id FROM runs WHERE target = ? AND outcome IS NULL)",
        (run.started_at, error.id if error else None, run.target),
    )
    connection.execute(
        "UPDATE runs SET outcome = ?, ended_at = ?, detail = ? WHERE target = ? AND outcome IS NULL",
        (Outcome.INTERRUPTED, run.started_at, f"its lease was over when {run.id} began", run.target),
    )
