"""The queue probe against a real Redis: lists, streams and sorted sets that move, wait and get stuck."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.kinds.queue import QueueProbe
from exporter.loading import load_config
from exporter.observation import REASONS, Outcome, Reason
from exporter.probes import queue
from exporter.probes.context import Context, Note, Tools
from exporter.probes.queue import Sight, judge, moved, seconds_of, time_in

SECRET = "open" + "sesame"  # built from pieces

Until = Callable[..., Awaitable[object]]


class Clock:
    """The probe's clock, which a test moves on instead of waiting."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead

    def pass_by(self, seconds: float) -> None:
        self.ahead += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(queue, "monotonic", clock)
    return clock


@pytest.fixture
async def port(
    launch: Callable[..., Any],
    binary: Callable[[str], str],
    free_port: Callable[[], int],
    until: Until,
) -> int:
    port = free_port()
    process = launch(binary("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "")

    def listens() -> bool:
        assert process.poll() is None, "redis-server ended by itself"
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    await until(listens)
    return port


@pytest.fixture
async def client(port: int) -> AsyncIterator[Any]:
    async with Redis(port=port, decode_responses=True) as connected:
        yield connected


Look = Callable[..., Awaitable[Outcome]]


@pytest.fixture
def look(port: int, context: Context) -> Look:
    """Look at the queue ``jobs``; all looks of a test share what is recalled."""

    async def run(**config: Any) -> Outcome:
        wanted = {"queue": f"redis://127.0.0.1:{port}/0", "key": "jobs", **config}
        outcome = await queue.probe(QueueProbe.model_validate(wanted), context)
        assert outcome.reason in {None, *REASONS["queue"]}
        return outcome

    return run


def values(outcome: Outcome) -> dict[str, float]:
    assert all(reading.labels == ("jobs",) for reading in outcome.readings)
    return {reading.measure.name.removeprefix("queue_"): reading.value for reading in outcome.readings}


OLDEST = "oldest_item_timestamp_seconds"


@pytest.mark.parametrize("config", [{}, {"type": "zset"}, {"type": "stream", "group": "workers"}])
async def test_a_queue_that_is_not_there_is_empty_and_healthy(look: Look, config: dict[str, Any]) -> None:
    outcome = await look(**config, stuck_after="1s")

    assert (outcome.reason, outcome.detail, values(outcome)) == (None, "is empty", {"length": 0})


async def test_a_list_tells_its_length_and_when_the_oldest_item_was_made(look: Look, client: Any) -> None:
    for made in (1_700_000_000, 1_700_000_001, 1_700_000_002):
        await client.lpush("jobs", json.dumps({"meta": {"created_at": made}}))

    right = await look(time="meta.created_at")
    left = await look(time="meta.created_at", taken_from="left")
    untimed = await look()

    assert values(right) == {"length": 3, OLDEST: 1_700_000_000}
    assert values(left) == {"length": 3, OLDEST: 1_700_000_002}
    assert values(untimed) == {"length": 3}


async def test_a_list_that_is_too_long_or_too_old_is_beyond_its_limit(look: Look, client: Any) -> None:
    await client.lpush("jobs", json.dumps({"at": time.time() - 100}), json.dumps({"at": time.time()}))

    assert (await look(max_length=2, max_age="200s", time="at")).reason is None
    long = await look(max_length=1)
    old = await look(max_age="50s", time="at")

    assert (long.reason, long.detail) == (Reason.LIMIT, "2 waiting, allowed are 1")
    assert old.reason is Reason.LIMIT
    assert old.detail.startswith("the oldest waits for 100 s")


async def test_an_item_without_a_time_is_no_evidence_where_the_age_is_judged(look: Look, client: Any) -> None:
    await client.lpush("jobs", "no json")

    judged = await look(max_age="50s", time="at")
    unjudged = await look(time="at")

    assert (judged.reason, unjudged.reason) == (Reason.INTERNAL, None)


async def test_a_list_that_moves_is_not_stuck_and_one_that_rests_is(
    look: Look, client: Any, clock: Clock, until: Until
) -> None:
    await client.lpush("jobs", *(f"job-{number}" for number in range(20)))

    for _ in range(5):
        assert (await look(stuck_after="200s")).reason is None
        clock.pass_by(60)
        await client.rpop("jobs")

    async def stuck() -> Outcome | None:
        clock.pass_by(10)
        seen = await look(stuck_after="200s")
        return seen if seen.reason is Reason.STUCK else None

    seen = await until(stuck)
    assert isinstance(seen, Outcome)
    assert seen.detail.startswith("15 waiting and nothing has moved for ")
    await client.rpop("jobs")
    assert (await look(stuck_after="200s")).reason is None


async def test_new_items_alone_are_no_progress(look: Look, client: Any, clock: Clock, until: Until) -> None:
    await client.lpush("jobs", "first")

    async def stuck() -> bool:
        clock.pass_by(10)
        await client.lpush("jobs", "another")
        return (await look(stuck_after="200s")).reason is Reason.STUCK

    await until(stuck)


async def test_a_counter_of_the_workers_is_progress_even_if_the_items_are_alike(
    look: Look, client: Any, clock: Clock
) -> None:
    await client.lpush("jobs", "same", "same")
    config = {"stuck_after": "100s", "processed": {"key": "stats", "field": "done"}}

    for done in range(5):
        await client.hset("stats", "done", done)
        outcome = await look(**config)
        assert (outcome.reason, values(outcome)) == (None, {"length": 2, "processed": done})
        clock.pass_by(60)


async def test_a_counter_may_be_a_key_and_one_that_is_missing_is_left_out(look: Look, client: Any) -> None:
    missing = await look(processed="done")
    await client.set("done", 7)
    there = await look(processed="done")
    await client.set("done", "many")
    strange = await look(processed="done")

    assert [values(seen).get("processed") for seen in (missing, there, strange)] == [None, 7, None]


async def test_who_could_not_look_does_not_say_that_nothing_moved(
    look: Look, client: Any, clock: Clock
) -> None:
    await client.lpush("jobs", "first")
    await look(stuck_after="100s")
    await client.config_set("requirepass", SECRET)
    assert (await look(stuck_after="100s")).reason is Reason.AUTH
    await client.config_set("requirepass", "")
    clock.pass_by(120)

    assert (await look(stuck_after="100s")).reason is None


async def test_a_sorted_set_may_have_its_time_as_score_and_what_is_not_due_is_not_stuck(
    look: Look, client: Any, clock: Clock, until: Until
) -> None:
    due = time.time() + 1000
    await client.zadd("jobs", {"later": due})
    config = {"type": "zset", "time": "score", "stuck_after": "50s", "max_age": "1h"}

    await look(**config)
    clock.pass_by(60)
    waiting = await look(**config)
    await client.zadd("jobs", {"earlier": time.time() - 10})

    async def stuck() -> bool:
        clock.pass_by(10)
        return (await look(**config)).reason is Reason.STUCK

    assert (waiting.reason, values(waiting)) == (None, {"length": 1, OLDEST: pytest.approx(due)})
    await until(stuck)
    await client.zpopmin("jobs")
    assert (await look(**config)).reason is None


async def test_a_sorted_set_may_have_its_time_in_the_member(look: Look, client: Any) -> None:
    await client.zadd("jobs", {json.dumps({"at": "2024-01-01T00:00:00Z"}): 5})

    outcome = await look(type="zset", time="at", max_age="1h")

    assert outcome.reason is Reason.LIMIT
    assert values(outcome)[OLDEST] == 1704067200


async def test_a_stream_without_a_group_tells_its_length(look: Look, client: Any) -> None:
    await client.xadd("jobs", {"job": "1"})

    assert values(await look(type="stream", max_length=1)) == {"length": 1}


async def test_a_group_of_a_stream_tells_what_waits_and_what_was_acknowledged(
    look: Look, client: Any
) -> None:
    ids = [
        await client.xadd("jobs", {"job": number}, id=f"{1_700_000_000_000 + number}-0")
        for number in range(5)
    ]
    await client.xgroup_create("jobs", "workers", id="0")
    config = {"type": "stream", "group": "workers"}

    untouched = await look(**config)
    await client.xreadgroup("workers", "one", {"jobs": ">"}, count=3)
    delivered = await look(**config)
    await client.xack("jobs", "workers", ids[0], ids[1])
    acknowledged = await look(**config)
    await client.xreadgroup("workers", "one", {"jobs": ">"}, count=9)
    await client.xack("jobs", "workers", *ids)
    done = await look(**config)

    assert values(untouched)["length"] == 5
    assert values(untouched)[OLDEST] == 1_700_000_000
    assert values(delivered) == {"length": 5, "processed": 0, OLDEST: 1_700_000_000}
    assert values(acknowledged) == {"length": 3, "processed": 2, OLDEST: 1_700_000_000.002}
    assert (done.detail, values(done)) == ("is empty", {"length": 0, "processed": 5})


async def test_a_worker_that_takes_entries_and_acknowledges_none_is_stuck(
    look: Look, client: Any, clock: Clock, until: Until
) -> None:
    for number in range(50):
        await client.xadd("jobs", {"job": number})
    await client.xgroup_create("jobs", "workers", id="0")

    async def stuck() -> bool:
        clock.pass_by(10)
        await client.xreadgroup("workers", "one", {"jobs": ">"}, count=1)
        return (await look(type="stream", group="workers", stuck_after="150s")).reason is Reason.STUCK

    await until(stuck)


async def test_one_entry_that_nobody_acknowledges_does_not_hide_that_the_others_move(
    look: Look, client: Any, clock: Clock
) -> None:
    for number in range(10):
        await client.xadd("jobs", {"job": number})
    await client.xgroup_create("jobs", "workers", id="0")
    await client.xreadgroup("workers", "one", {"jobs": ">"}, count=1)

    for _ in range(5):
        taken = await client.xreadgroup("workers", "one", {"jobs": ">"}, count=1)
        await client.xack("jobs", "workers", taken[0][1][0][0])
        assert (await look(type="stream", group="workers", stuck_after="100s")).reason is None
        clock.pass_by(50)


async def test_what_a_stream_cannot_know_is_left_out_and_a_limit_of_it_not_judged(
    look: Look, client: Any
) -> None:
    ids = [await client.xadd("jobs", {"job": number}) for number in range(5)]
    await client.xgroup_create("jobs", "workers", id="0")
    await client.xdel("jobs", ids[2])  # from here on Redis does not know the lag
    config = {"type": "stream", "group": "workers"}

    open_ = await look(**config)
    limited = await look(**config, max_length=10)

    assert (open_.reason, open_.detail) == (None, "some are waiting")
    assert set(values(open_)) == {OLDEST}
    assert limited.reason is Reason.INTERNAL


@pytest.mark.parametrize("kind", ["list", "stream", "zset"])
async def test_a_key_of_another_type_is_told(look: Look, client: Any, kind: str) -> None:
    await client.set("jobs", "text")

    outcome = await look(type=kind)

    assert outcome.reason is Reason.QUERY
    assert f"is not of type {kind}" in outcome.detail


async def test_a_group_that_is_not_there_is_told(look: Look, client: Any) -> None:
    await client.xadd("jobs", {"job": "1"})

    outcome = await look(type="stream", group="workers")

    assert outcome.reason is Reason.QUERY
    assert "no consumer group workers" in outcome.detail


async def test_missing_permission_and_password_are_auth(look: Look, client: Any) -> None:
    await client.acl_setuser("watcher", enabled=True, passwords=["+" + SECRET], commands=["+ping"])

    outcome = await look(username="watcher", password=SECRET)

    assert outcome.reason is Reason.AUTH
    assert SECRET not in repr(outcome)


async def test_an_item_too_large_to_look_at_is_no_evidence(look: Look, client: Any) -> None:
    await client.lpush("jobs", "x" * 300_000)

    assert (await look()).reason is Reason.INTERNAL


async def test_notes_tell_numbers_and_no_item(port: int, client: Any, tools: Tools) -> None:
    await client.lpush("jobs", json.dumps({"at": 1_700_000_000, "card": SECRET}))
    notes: list[Note] = []
    config = QueueProbe.model_validate({"queue": f"redis://127.0.0.1:{port}", "key": "jobs", "time": "at"})

    await queue.probe(config, Context(timeout=2.0, tools=tools, notes=notes))

    texts = " | ".join(note.text for note in notes)
    assert "1 waiting, oldest of 1700000000.0" in texts
    assert SECRET not in texts


@pytest.mark.parametrize(
    ("config", "answers"),
    [
        ({}, [b"+OK\r\n"]),
        ({}, [b":-1\r\n"]),
        ({}, [b":1\r\n", b":7\r\n"]),
        ({"type": "zset"}, [b":1\r\n", b"*1\r\n+a\r\n"]),
        ({"type": "zset"}, [b":1\r\n", b"*2\r\n$-1\r\n+1\r\n"]),
        ({"type": "zset"}, [b":1\r\n", b":1\r\n"]),
        ({"type": "stream", "group": "g"}, [b":1\r\n"]),
        ({"type": "stream", "group": "g"}, [b"*1\r\n*1\r\n+name\r\n"]),
        ({"type": "stream", "group": "g"}, [b"*1\r\n*2\r\n*0\r\n+g\r\n"]),
        ({"type": "stream", "group": "g"}, [b"*1\r\n*2\r\n+name\r\n+g\r\n"]),
        (
            {"type": "stream", "group": "g"},
            [b"*1\r\n*4\r\n+name\r\n+g\r\n+pending\r\n:0\r\n", b"*1\r\n:1\r\n"],
        ),
        ({"processed": "n"}, [b":0\r\n", b"*0\r\n"]),
    ],
)
async def test_answers_of_another_shape_are_the_peers_fault(
    context: Context, config: dict[str, Any], answers: list[bytes]
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            for answer in answers:
                if await reader.read(4096):
                    writer.write(answer)
            await reader.read()
            writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as listening:
        address = f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        probe = QueueProbe.model_validate({"queue": address, "key": "jobs", **config})
        outcome = await queue.probe(probe, context)

    assert outcome.reason is Reason.PROTOCOL, outcome.detail


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_700_000_000, 1_700_000_000),
        (1_700_000_000_123, 1_700_000_000.123),
        ("1700000000.5", 1_700_000_000.5),
        ("2024-01-01T01:00:00+01:00", 1704067200),
        ("2024-01-01", 1704067200),
        ("yesterday", None),
        ("inf", None),
        (float("nan"), None),
        (-1, None),
        (10**400, None),
        (None, None),
        ([1], None),
        ({}, None),
    ],
)
def test_times_are_read_as_seconds_milliseconds_and_dates(value: object, seconds: float | None) -> None:
    assert seconds_of(value) == seconds


@pytest.mark.parametrize("item", ["", "[", "[1]", '{"at": true}', '{"at": {}}', '{"at": [1]}', "[" * 100_000])
def test_no_item_breaks_the_reading_of_its_time(item: str) -> None:
    assert time_in(item, "at") is None
    assert time_in(item, "at.x") is None


HEAD = Sight(length=5, head=b"a", processed=7)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (HEAD, HEAD, False),
        (HEAD, Sight(length=6, head=b"a", processed=7), False),
        (HEAD, Sight(length=4, head=b"a", processed=7), True),
        (HEAD, Sight(length=5, head=b"b", processed=7), True),
        (HEAD, Sight(length=5, head=b"a", processed=8), True),
        (HEAD, Sight(length=0, processed=7), True),
        (Sight(length=0, processed=7), HEAD, True),
        (Sight(head=b"a"), Sight(head=b"a"), False),
    ],
)
def test_what_counts_as_movement(before: Sight, after: Sight, expected: bool) -> None:
    assert moved(before, after) is expected


def test_a_queue_is_stuck_from_the_very_limit_on() -> None:
    config = QueueProbe.model_validate({"queue": "redis://h", "key": "jobs", "stuck_after": "5m"})

    assert judge(config, HEAD, 299.9, 0.0) is None
    assert judge(config, HEAD, 300.0, 0.0) == (Reason.STUCK, "5 waiting and nothing has moved for 300 s")
    assert judge(config, Sight(length=0), 300.0, 0.0) is None


# Configuration


def mistakes(tmp_path: Path, probe: str) -> list[tuple[str, str]]:
    file = tmp_path / "soulfra.yml"
    file.write_text(f"services: {{a: {{probes: [{{queue: 'redis://h', {probe}}}]}}}}")
    with pytest.raises(ConfigError) as caught:
        load_config(file, WatchConfig, {})
    return [
        (found.place.removeprefix("services.a.probes[0]"), found.message) for found in caught.value.mistakes
    ]


@pytest.mark.parametrize(
    ("probe", "mistake"),
    [
        ("type: list", (".key", "is missing")),
        ("key: ''", (".key", "a key has one printable character at least and no others")),
        ('key: "a\\nb"', (".key", "a key has one printable character at least and no others")),
        (
            "key: 'jobs:*'",
            (".key", "must be one key: patterns are not looked up, write one probe for each queue"),
        ),
        ("key: j, type: hash", (".type", "must be 'list', 'stream' or 'zset'")),
        ("key: j, group: g", ("", "group is for a queue of type: stream")),
        ("key: j, type: zset, taken_from: left", ("", "taken_from is for a queue of type: list")),
        (
            "key: j, type: stream, time: at",
            ("", "the entries of a stream have their time in their id: leave time out"),
        ),
        (
            "key: j, time: score",
            ("", "the items of a list have no score: write the path of the time in the item"),
        ),
        ("key: j, max_age: 5m", ("", "max_age needs time: where an item says when it was made")),
        (
            "key: j, type: stream, stuck_after: 5m",
            ("", "a stream keeps what was read: stuck_after and max_age need a group"),
        ),
        ("key: j, processed: {field: f}", (".processed.key", "is missing")),
        ("key: j, tls: {}", ("", "tls needs a rediss:// address")),
    ],
)
def test_each_rule_names_its_mend(tmp_path: Path, probe: str, mistake: tuple[str, str]) -> None:
    assert mistakes(tmp_path, probe) == [mistake]
