"""Gunicorn's own process: binds, forks the worker, forks it again when it dies. Imports nothing of ours.

    python -m remediator.arbiter CONFIG DATA HOST:PORT THREADS

Started by ``remediator.server.serve``, which has checked the arguments.
"""

import socket
import struct
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication

if TYPE_CHECKING:
    from remediator.engine import Engine


_SILENCE = 5  # seconds a client may take between two pieces of its request


def _limit_silence(server: Any) -> None:
    """Let no client hold a thread by sending nothing; accepted sockets inherit both limits."""
    for listener in server.LISTENERS:
        listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _SILENCE)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _SILENCE, 0))


class Arbiter(BaseApplication):  # type: ignore[misc] # gunicorn has no types
    """One worker with many threads, configured from our arguments alone."""

    def __init__(self, config: Path, data: Path, address: str, threads: int) -> None:
        self._config = config
        self._data = data
        self._address = address
        self._threads = threads
        self._engine: Engine | None = None
        super().__init__()

    def load_config(self) -> None:
        """Set what gunicorn needs; it reads no file and no environment of its own."""
        settings: dict[str, Any] = {
            "bind": self._address,
            "workers": 1,
            "worker_class": "gthread",
            "threads": self._threads,
            "timeout": 60,
            "graceful_timeout": 5,
            "keepalive": 30,
            "loglevel": "warning",
            "when_ready": _limit_silence,
            "worker_exit": lambda _server, _worker: self._stop(),
            "proc_name": "soulfra-remediator",
            "control_socket_disable": True,
        }
        for key, value in settings.items():
            if key in self.cfg.settings:  # older gunicorns know fewer
                self.cfg.set(key, value)

    def load(self) -> Callable[..., Iterable[bytes]]:
        """Import, build and start everything; gunicorn calls this in the worker."""
        from remediator.server import begin  # noqa: PLC0415 - so that the arbiter stays small

        app, self._engine = begin(self._config, self._data)
        return app

    def _stop(self) -> None:
        if self._engine is not None:
            self._engine.stop()


if __name__ == "__main__":
    Arbiter(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])).run()
