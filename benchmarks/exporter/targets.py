"""A server of many targets on one port, that knows the truth about every request it got.

    python -m benchmarks.exporter.targets PORT RECORD [--delay SECONDS] [--hang PREFIX]

Answers every GET with 200 after the delay; a path that begins with PREFIX is never answered. Ends
with SIGTERM and then writes RECORD, one JSON line per request: path, arrival, seconds from the
connection to the whole answer (null when it never got one).
"""

import argparse
import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"


class Target(asyncio.Protocol):
    """One connection with one request."""

    def __init__(self, records: list[dict[str, Any]], delay: float, hang: str | None) -> None:
        self._records = records
        self._delay = delay
        self._hang = hang
        self._received = b""
        self._transport: Any = None
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock."""
        self._began = time.monotonic()
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer once the head of the request is whole."""
        self._received += data
        if b"\r\n\r\n" not in self._received:
            return
        path = self._received.split(b" ", 2)[1].decode()
        self._received = b""
        record: dict[str, Any] = {"path": path, "at": self._began, "seconds": None}
        self._records.append(record)
        if self._hang is not None and path.startswith(self._hang):
            return
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._answer, record)
        else:
            self._answer(record)

    def _answer(self, record: dict[str, Any]) -> None:
        self._transport.write(_ANSWER)
        self._transport.close()
        record["seconds"] = time.monotonic() - self._began


async def serve(port: int, delay: float, hang: str | None) -> list[dict[str, Any]]:
    """Serve until SIGTERM and return what was asked."""
    records: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(lambda: Target(records, delay, hang), "127.0.0.1", port, backlog=4096)
    await ended.wait()
    server.close()
    return records


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("port", type=int)
    parser.add_argument("record", type=Path)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--hang")
    asked = parser.parse_args()
    records = uvloop.run(serve(asked.port, asked.delay, asked.hang))
    asked.record.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


if __name__ == "__main__":
    main()
