"""The Redis probe against a real server, and against peers that misbehave."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from exporter.kinds.redis import RedisProbe
from exporter.observation import Outcome, Reason
from exporter.probes import redis
from exporter.probes.context import Context, Tools

SECRET = "open" + "sesame"  # built from pieces


async def ask(context: Context, address: str, **more: Any) -> Outcome:
    return await redis.probe(RedisProbe.model_validate({"redis": address, **more}), context)


@pytest.fixture
async def server(
    launch: Callable[..., object],
    binary: Callable[[str], str],
    free_port: Callable[[], int],
    until: Callable[..., Any],
    context: Context,
) -> int:
    port = free_port()
    launch(binary("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "")

    async def answers() -> bool:
        return (await ask(context, f"redis://127.0.0.1:{port}/0")).reason is None

    await until(answers)
    return port


@pytest.mark.parametrize(("role", "reason"), [(None, None), ("master", None), ("replica", Reason.ROLE)])
async def test_pong_and_the_expected_role_are_healthy(
    server: int, context: Context, role: str | None, reason: Reason | None
) -> None:
    assert (await ask(context, f"redis://127.0.0.1:{server}/0", role=role)).reason is reason


async def test_missing_and_wrong_passwords_are_auth_and_stay_out_of_the_detail(
    server: int, context: Context
) -> None:
    async with Redis(port=server) as client:
        await client.config_set("requirepass", SECRET)

    none = await ask(context, f"redis://127.0.0.1:{server}/0")
    wrong = await ask(context, f"redis://:{SECRET}x@127.0.0.1:{server}/0")
    right = await ask(context, f"redis://:{SECRET}@127.0.0.1:{server}/0")

    assert [none.reason, wrong.reason, right.reason] == [Reason.AUTH, Reason.AUTH, None]
    assert SECRET not in repr((none, wrong, right))


async def test_nobody_listening_is_connect_refused(context: Context, free_port: Callable[[], int]) -> None:
    outcome = await ask(context, f"redis://127.0.0.1:{free_port()}/0")

    assert outcome.reason is Reason.CONNECT_REFUSED


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", Reason.LOADING),
        (b"+WELCOME\r\n", Reason.PROTOCOL),
        (b"-ERR unknown\r\n", Reason.PROTOCOL),
        (b"*2147483647\r\n", Reason.PROTOCOL),
        (b"*1\r\n*1000000000\r\n", Reason.PROTOCOL),
        (b"%1\r\n*1\r\n+a\r\n+b\r\n", Reason.PROTOCOL),
        (b"", Reason.RESET),
        (None, Reason.TIMEOUT),
    ],
)
async def test_answers_that_are_no_pong_are_named(tools: Tools, answer: bytes | None, reason: Reason) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for _ in reader:
            if answer is not None:
                writer.write(answer)
                if not answer:
                    break
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        outcome = await ask(Context(timeout=0.5, tools=tools), f"redis://127.0.0.1:{port}/0")

    assert outcome.reason is reason, outcome.detail
