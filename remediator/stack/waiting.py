"""One place to wait in: for signals, for lines of text from a child, and for time to pass."""

import os
import selectors
import signal
import socket
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import IO, Self

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Waiting:
    """Wakes on signals and relays a child's lines. A context manager: signals are as before afterwards."""

    def __init__(self) -> None:
        self.end_asked = False
        self.hurry = False  # asked a second time
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for end in (self._wake, self._woken):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (*_ENDING, signal.SIGCHLD):
            if signal.getsignal(number) is signal.SIG_IGN and number == signal.SIGHUP:
                continue  # started under nohup
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            self.hurry = self.end_asked
        if number in _ENDING:
            self.end_asked = True

    def relay(self, source: IO[bytes], sink: Callable[[str], None]) -> None:
        """Hand what comes out of *source* to *sink* whenever this waits, until it ends."""
        os.set_blocking(source.fileno(), False)
        self._selector.register(source, selectors.EVENT_READ, sink)

    def wait(self, seconds: float) -> None:
        """Return after *seconds*, a signal or a relayed text, whichever is first."""
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._woken:
                self._woken.recv(4096)
            else:
                self._copy(key)

    def _copy(self, key: selectors.SelectorKey) -> None:
        text = os.read(key.fd, 65536)
        if not text:
            source: IO[bytes] = key.fileobj  # type: ignore[assignment]  # relay registers nothing else
            self._selector.unregister(source)
            source.close()
        key.data(text.decode("utf-8", "replace"))
