"""Restarts a service as its configuration says: ends what runs, gracefully first, and starts its command."""

import os
import select
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from remediator.actions import ActionContext, ActionError
from remediator.actions.spawn import recorded_process, start_service
from remediator.actions.stop import Seen, stop
from remediator.places import log_of
from remediator.tail import tail

if TYPE_CHECKING:
    from remediator.playbook import RestartArgs

FIRST_MOMENT = 0.3
"""A process that fails within this many seconds has not started."""

_LOG_LINES = 5


def run(args: "RestartArgs", context: ActionContext, timeout: float) -> str:
    """End the process that the exporter saw and the one that was last started; start the command."""
    name = args.service
    service = context.services[name]
    if service.restart is None:
        raise ActionError(f"services.{name} has no restart section", permanent=True)
    deadline = time.monotonic() + timeout
    ended = [
        f"{seen.pid} {stop(name, seen, service.restart.grace, deadline - time.monotonic() - FIRST_MOMENT)}"
        for seen in _running(name, context)
    ]
    log = log_of(name, service, context.config_folder, context.data_folder)
    size = log.stat().st_size if log.is_file() else 0
    process = start_service(
        name,
        service,
        config_folder=context.config_folder,
        data_folder=context.data_folder,
        withheld=context.withheld,
    )
    _watch_first_moment(name, process, log, size)
    return f"started {process.pid}; {'; '.join(ended) or 'nothing was running'}"


def _running(name: str, context: ActionContext) -> list[Seen]:
    """Return what may be running, the process that was started first: what is seen may be a worker of it.

    A process that hangs before it listens is on record only.
    """
    reported = Seen.of(context.processes.get(name))
    recorded = Seen.of(recorded_process(name, context.data_folder))
    if reported is None or recorded is None or reported.pid == recorded.pid:
        return [seen for seen in (reported or recorded,) if seen is not None]
    return [replace(recorded, unresponsive=reported.unresponsive), reported]


def _watch_first_moment(name: str, process: subprocess.Popen[bytes], log: Path, size: int) -> None:
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        ended = True  # and reaped by the engine already
    else:
        try:
            waiter = select.poll()
            waiter.register(handle, select.POLLIN)
            ended = bool(waiter.poll(FIRST_MOMENT * 1000))
        finally:
            os.close(handle)
    code = process.wait() if ended else None
    if code:
        told = f"ended by signal {-code}" if code < 0 else f"exited with code {code}"
        raise ActionError(f"{name} {told} at once{_last_words(log, size)}")


def _last_words(log: Path, size: int) -> str:
    try:
        lines = tail(log, _LOG_LINES, start=size)
    except OSError as error:
        return f"; its log cannot be read: {error.strerror}"
    return f": {' | '.join(lines)}" if lines else " and printed nothing"
