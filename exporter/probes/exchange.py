"""Talks over an open connection, line by line, as the configuration says."""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from exporter.kinds.exchange import Step
from exporter.observation import Outcome, Reason
from exporter.probes.context import Progress
from exporter.probes.dial import Secure, start_tls

LINE_LIMIT = 65536  # bytes; also what a StreamReader keeps
TOTAL_LIMIT = 1 << 20  # bytes
LINES_LIMIT = 10_000
_LINES_AT_A_TIME = 50  # then others have the loop
_LINES_NOTED = 20
_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|(?P<bare>\w+)|\{(?P<braced>\w+)\})", re.ASCII)


class TooMuchError(Exception):
    """The peer sends more than anybody would read."""


class UnexpectedError(Exception):
    """The peer said all that it wanted to, and not what was expected."""


@dataclass(slots=True)
class Talk:
    """An open connection and what was read from it so far."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    progress: Progress
    secure: Secure | None = None  # for starttls
    received: int = 0
    lines: int = 0

    async def go(self, steps: Iterable[Step]) -> None:
        """Take the steps. Raises UnexpectedError, TooMuchError or OSError."""
        for step in steps:
            text = (step.send or "").encode()
            if step.expect is not None:
                found = await self._expect(step.expect)
                text = expand(step.send or "", found)
            if text:
                self.writer.write(text + b"\n")
                await self.writer.drain()
                self.progress.note("sent %d bytes", len(text) + 1)
            if step.starttls:
                await self._start_tls()

    async def _expect(self, pattern: str) -> Any:
        import re2  # noqa: PLC0415 - 3 MB, needed by configurations with such patterns only

        wanted = re2.compile(pattern)
        while (line := await self._line()) is not None:
            if self.lines <= _LINES_NOTED:
                self.progress.note("received %s", line[:200].decode(errors="replace"))
            found = wanted.search(line)
            if found is not None:
                self.progress.note("that has %s", pattern)
                return found
        raise UnexpectedError(pattern)

    async def _line(self) -> bytes | None:
        """Read a line without its end; None when the peer has closed. Raises TooMuchError."""
        try:
            line = await self.reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            line = error.partial
        except asyncio.LimitOverrunError as error:
            raise TooMuchError(f"a line has more than {LINE_LIMIT} bytes") from error
        self.received += len(line)
        self.lines += 1
        if self.received > TOTAL_LIMIT or self.lines > LINES_LIMIT:
            raise TooMuchError(
                f"more than {TOTAL_LIMIT} bytes or {LINES_LIMIT} lines without what is expected"
            )
        if self.lines % _LINES_AT_A_TIME == 0:
            await asyncio.sleep(0)
        return line.removesuffix(b"\n").removesuffix(b"\r") if line else None

    async def _start_tls(self) -> None:
        """Go on by TLS. What the peer sent in the clear before is not read any more."""
        if self.secure is None:
            raise ConnectionAbortedError
        loop = asyncio.get_running_loop()
        self.progress.reach("processing")
        reader = asyncio.StreamReader(LINE_LIMIT)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport = await start_tls(self.writer.transport, protocol, self.secure, None, self.progress)  # type: ignore[arg-type] # a writer's is one
        protocol.connection_made(transport)
        self.reader, self.writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)
        self.progress.note("TLS has begun")


def expand(template: str, found: Any) -> bytes:
    """Put what was captured into *template*; a group that is not there is empty, ``$$`` is one ``$``."""

    def captured(reference: re.Match[str]) -> str:
        if reference["dollar"]:
            return "$"
        name = reference["bare"] or reference["braced"]
        number = int(name) if name.isdigit() else found.re.groupindex.get(name, -1)
        value = found.group(number) if 0 <= number <= found.re.groups else None
        # latin-1 keeps every byte of the peer's as it is, on the way in and out.
        return (value or b"").decode("latin-1")

    return _REFERENCE.sub(captured, template.encode().decode("latin-1")).encode("latin-1")


async def held(talk: Talk, steps: Iterable[Step]) -> Outcome:
    """Take *steps*, drop the connection and tell how it went. Raises OSError."""
    progress = talk.progress
    try:
        await talk.go(steps)
    except TooMuchError as error:
        return progress.outcome(Reason.TOO_LARGE, str(error))
    except UnexpectedError as error:
        if talk.received == 0:
            return progress.outcome(Reason.RESET, "the peer closed the connection without a word")
        return progress.outcome(Reason.ANSWER, f"no line has {error}")
    finally:
        # abort, not close: a TLS peer that never answers the goodbye must not keep the socket.
        talk.writer.transport.abort()
    progress.reach("processing")
    return progress.outcome()
