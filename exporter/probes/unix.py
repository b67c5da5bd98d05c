"""Open a socket file, and talk as the configuration says."""

import errno
import os
import stat

from exporter.kinds.unix import UnixProbe
from exporter.observation import Outcome, Reason
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.dial import dial_unix, secured


async def probe(config: UnixProbe, context: Context) -> Outcome:
    """Open the socket once, take the steps and close it. Never raises: a failure is the outcome."""
    progress = context.progress()
    return await guarded(_open(config, context, progress), progress, context.timeout)


async def _open(config: UnixProbe, context: Context, progress: Progress) -> Outcome:
    progress.note("connecting to %s", config.unix)
    try:
        reader, writer = await dial_unix(config.unix, progress=progress)
    except OSError as error:
        known = failure_of_path(config.unix, error)
        if known is None:
            raise
        return progress.outcome(*known)
    if not config.exchange:
        writer.transport.abort()
        return progress.outcome()
    # Imported late: RE2 costs 3 MB, and most only want to know whether the socket is open.
    from exporter.probes.exchange import Talk, held  # noqa: PLC0415

    secure = None
    if config.tls is not None:
        secure = await secured(config.tls, "", context)
    return await held(Talk(reader, writer, progress, secure), config.exchange)


def failure_of_path(path: str, error: OSError) -> tuple[Reason, str] | None:
    """Say what is wrong with the socket file; None when nobody answers behind a good one."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Reason.MISSING, f"there is no {path}"
    if isinstance(error, PermissionError):
        # The exporter's own user may not look: that says nothing about the service.
        return Reason.INTERNAL, f"{path} may not be opened by the exporter's user"
    if isinstance(error, BlockingIOError):
        return Reason.CONNECT_FAILED, "its queue of connections is full"
    if error.errno in (errno.ECONNREFUSED, errno.ENOTSOCK) and not _is_socket(path):
        return Reason.CONNECT_FAILED, f"{path} is not a socket"
    return None


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116 - one call of the kernel
    except OSError:
        return True  # it went away meanwhile; then refused is the better word
