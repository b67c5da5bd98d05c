"""The probe of socket files."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from exporter.kinds.unix import UnixProbe
from exporter.observation import Outcome, Reason
from exporter.probes import unix
from exporter.probes.context import Context


async def ask(context: Context, path: Path, **more: Any) -> Outcome:
    return await unix.probe(UnixProbe.model_validate({"unix": str(path), **more}), context)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(b"you said " + line)
    writer.close()


async def test_a_socket_file_is_spoken_to(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    async with await asyncio.start_unix_server(echo, path):
        opened = await ask(context, path)
        right = await ask(context, path, exchange=[{"send": "hello"}, {"expect": "^you said hello$"}])
        wrong = await ask(
            context, path, exchange=[{"send": "hello"}, {"expect": "^goodbye$"}], timeout="200ms"
        )

    assert [opened.reason, right.reason, wrong.reason] == [None, None, Reason.TIMEOUT]
    assert right.phases["connect"] > 0


async def test_what_is_wrong_with_the_file_is_named(context: Context, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(left))

    reasons = {
        path.name: (await ask(context, path)).reason
        for path in (tmp_path / "none.sock", plain / "below.sock", plain, tmp_path, left)
    }

    assert reasons == {
        "none.sock": Reason.MISSING,
        "below.sock": Reason.MISSING,
        "plain": Reason.CONNECT_FAILED,
        tmp_path.name: Reason.CONNECT_FAILED,
        "left.sock": Reason.CONNECT_REFUSED,
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_socket_we_may_not_open_is_no_evidence(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    async with await asyncio.start_unix_server(echo, path):
        path.chmod(0)
        os.seteuid(65534)
        try:
            outcome = await ask(context, path)
        finally:
            os.seteuid(0)

    assert outcome.reason is Reason.INTERNAL


async def test_a_full_queue_is_connect_failed(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "full.sock"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(str(path))
        outcome = await ask(Context(timeout=0.3, tools=context.tools), path)
        for client in waiting:
            client.close()

    assert outcome.reason is Reason.CONNECT_FAILED
    assert outcome.detail == "its queue of connections is full"
