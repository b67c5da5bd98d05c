"""Large and hostile bodies: the loop, and with it the watch over everybody else, goes on meanwhile."""

import asyncio
import gc
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import monotonic
from typing import Any

import pytest

from exporter.kinds.http import MOST_JSON, HttpProbe
from exporter.kinds.steps import StepsProbe
from exporter.observation import Outcome, Reason
from exporter.probes import http, steps
from exporter.probes.context import Context, Tools
from exporter.probes.http_judge import MOST_VALUES, parse_json

MIB = 1024 * 1024
STALL = 0.25
"""Seconds; about 0.02 on a machine that does nothing else, and over 1 where a call keeps the loop out."""


@contextmanager
def sender(head: bytes, body: bytes) -> Iterator[int]:
    """Serve one answer after another from a thread, which the loop does not wait for."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return  # closed: the test is over
                with connection:
                    try:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
                        connection.sendall(body)
                    except ConnectionError:
                        continue  # the probe has heard enough

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@asynccontextmanager
async def ticking(gaps: list[float]) -> AsyncIterator[None]:
    """Note how long the loop keeps a task waiting that wants to run every millisecond."""

    async def tick() -> None:
        last = monotonic()
        while True:
            await asyncio.sleep(0.001)
            now = monotonic()
            gaps.append(now - last)
            last = now

    task = asyncio.create_task(tick())
    try:
        yield
        await asyncio.sleep(0.002)
    finally:
        task.cancel()


def half_utf_16(mark: bytes) -> bytes:
    return b"\xff\xfe" + mark * (8 * MIB - 1)


SMALL: dict[str, bytes] = {
    "empty mappings": b"[" + b"{}," * (16 * MIB // 3) + b"{}]",
    "empty lists": b"[" + b"[]," * (MIB // 3) + b"[]]",
    "numbers": b"[" + b"1," * (MIB // 2) + b"1]",
    "lists in lists": b"[" + b",".join([b"[" * 900 + b"]" * 900] * (MIB // 1801)) + b"]",
    "keys": b"{" + b",".join(b'"%x":0' % number for number in range(MIB // 9)) + b"}",
}
JUDGED: dict[str, tuple[bytes, bytes, dict[str, Any], Reason | None]] = {
    "bytes that windows-1252 does not have": (
        b"Content-Type: text/html; charset=windows-1252\r\n",
        b"\x81" * (16 * MIB),
        {"body": "x"},
        Reason.BODY,
    ),
    "first halves of utf-16": (
        b"Content-Type: text/html; charset=utf-16\r\n",
        half_utf_16(b"\x00\xd8"),
        {"body": "x"},
        Reason.BODY,
    ),
    "second halves of utf-16": (
        b"Content-Type: text/html; charset=utf-16\r\n",
        half_utf_16(b"\x00\xdc"),
        {"body": "x"},
        Reason.BODY,
    ),
    "latin-1 that is well": (
        b"Content-Type: text/html; charset=iso-8859-1\r\n",
        "é".encode("latin-1") * (16 * MIB - 4) + b"well",
        {"body": "éwell$"},
        None,
    ),
    "text for a pattern": (b"", b"x" * (16 * MIB), {"body_not": "(x+x+)+y"}, None),
}


async def judged(head: bytes, body: bytes, **config: Any) -> tuple[Outcome, float]:
    """Return the outcome and the longest time that the loop stood still."""
    shared, gaps = Tools(), list[float]()
    with sender(head, body) as port:
        probe = HttpProbe.model_validate({"http": f"http://127.0.0.1:{port}/", **config})
        context = Context(timeout=20.0, tools=shared)
        small = HttpProbe.model_validate({"http": f"http://127.0.0.1:{port}/", "body_limit": 1})
        await http.probe(small, context)  # what is loaded once is no cost of the peer
        gc.collect()
        async with ticking(gaps):
            outcome = await http.probe(probe, context)
    await shared.close()
    return outcome, max(gaps)


@pytest.mark.parametrize("name", JUDGED)
async def test_no_body_holds_the_loop_while_it_is_judged(name: str) -> None:
    head, body, expect, reason = JUDGED[name]

    outcome, stall = await judged(head, body, body_limit="16MiB", expect=expect)

    assert outcome.reason is reason, outcome.detail
    assert stall < STALL


@pytest.mark.parametrize("name", SMALL)
async def test_no_json_holds_the_loop(name: str) -> None:
    _, stall = await judged(b"", SMALL[name], body_limit=MOST_JSON, expect={"json": {"a": 1}})

    assert stall < STALL


async def test_json_larger_than_its_limit_is_not_read() -> None:
    outcome, _ = await judged(b"", b" " * MIB + b"{}", expect={"json": {"a": 1}})

    assert outcome.reason is Reason.TOO_LARGE
    assert outcome.detail == f"the body is larger than {MIB} bytes"


@pytest.mark.parametrize(
    "body",
    [b"[" + b"{}," * MOST_VALUES + b"{}]", b"[" + b"0," * MOST_VALUES + b"0]", b"[[]," * MOST_VALUES],
)
def test_json_of_more_values_than_anybody_means_is_not_read(body: bytes) -> None:
    assert parse_json(body) == (
        None,
        (Reason.TOO_LARGE, f"the body has more than {MOST_VALUES} values, and is not read as JSON"),
    )


@pytest.mark.parametrize("text", ['{"a": "grün"}', '\ufeff{"a": "grün"}'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16", "utf-32"])
def test_json_may_come_in_any_unicode(text: str, encoding: str) -> None:
    if text[0] == "\ufeff" and encoding != "utf-8":
        text = text[1:]

    assert parse_json(text.encode(encoding)) == ({"a": "grün"}, None)


@pytest.mark.parametrize("body", [b'{"a": "\xed\xa0\x80"}', b'\x00{\x00"\xd8\x00', b"\xff\xfe{\x00\x00\xd8"])
def test_json_with_half_characters_is_none(body: bytes) -> None:
    assert parse_json(body) == (None, (Reason.JSON, "the body is not JSON"))


async def test_captures_do_not_read_the_same_json_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def counted(body: bytes) -> Any:
        read.append(body)
        return parse_json(body)

    monkeypatch.setattr(steps, "parse_json", counted)
    shared = Tools()
    with sender(b"", b'{"a": "one", "b": "two"}') as port:
        capture = {"first": {"json": "a"}, "second": {"json": "b"}}
        step = {"http": f"http://127.0.0.1:{port}/", "capture": capture}
        probe = StepsProbe.model_validate({"steps": [step]})
        outcome = await steps.probe(probe, Context(timeout=5.0, tools=shared))
    await shared.close()

    assert outcome.reason is None
    assert len(read) == 1


LARGE = "is read from bodies of 2 MiB at most"


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (HttpProbe.model_validate, {"http": "http://a/", "body_limit": "3MiB", "expect": {"json": {"a": 1}}}),
        (
            StepsProbe.model_validate,
            {"steps": [{"http": "http://a/", "body_limit": "3MiB", "capture": {"token": {"json": "token"}}}]},
        ),
    ],
)
def test_a_limit_that_is_too_high_for_json_is_a_mistake(
    model: Callable[[Any], Any], config: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=LARGE):
        model(config)
