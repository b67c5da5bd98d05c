"""Runs a program: an argument list, never a shell, in a session of its own."""

import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from remediator.actions import ActionContext, ActionError
from remediator.actions.spawn import cannot_start, child_environment
from remediator.places import place
from remediator.tail import last_lines

if TYPE_CHECKING:
    from remediator.playbook import CommandArgs

_OUTPUT_LIMIT = 4096
_CHUNK = 65536
_TOLD_LINES = 10


def run(args: "CommandArgs", context: ActionContext, timeout: float) -> str:
    """Run it to its end; a code other than 0 is a failure, and so is more than *timeout* seconds."""
    argv = list(args.argv)
    folder = context.config_folder.absolute()
    if args.cwd:
        folder = place(args.cwd, context.config_folder, context.data_folder)
    try:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=child_environment(args.env, context.withheld),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise cannot_start("command", argv[0], folder, error) from error
    with process:
        ended, output, cut = _follow(process, time.monotonic() + timeout)
        if not ended:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    told = " | ".join(last_lines(output, _TOLD_LINES, cut=cut))
    said = f": {told}" if told else ""
    if not ended:
        raise ActionError(f"took longer than {timeout:g} s and was killed{said}")
    if process.returncode:
        raise ActionError(f"exited with code {process.returncode}{said}")
    return f"exited with code 0{said}"


def _follow(process: subprocess.Popen[bytes], deadline: float) -> tuple[bool, bytes, bool]:
    """Read until the program ends or the deadline; return whether it ended, its last output, and if cut.

    Its end counts, not the end of its output: what it left in the background may keep that open.
    """
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    output = process.stdout.fileno()
    os.set_blocking(output, False)
    handle = os.pidfd_open(process.pid)
    kept, cut = b"", False
    try:
        waiter = select.poll()
        waiter.register(handle, select.POLLIN)
        waiter.register(output, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = {number for number, _ in waiter.poll(left * 1000)}
            if output in ready:
                part = _read(output)
                if part == b"":
                    waiter.unregister(output)
                kept, cut = _keep(kept + (part or b""), cut=cut)
            elif handle in ready:  # only when nothing is left to read
                return True, kept, cut
        return False, kept, cut
    finally:
        os.close(handle)


def _read(output: int) -> bytes | None:
    try:
        return os.read(output, _CHUNK)
    except BlockingIOError:
        return None


def _keep(output: bytes, *, cut: bool) -> tuple[bytes, bool]:
    return output[-_OUTPUT_LIMIT:], cut or len(output) > _OUTPUT_LIMIT
