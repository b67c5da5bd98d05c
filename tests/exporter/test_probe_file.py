"""The file probe on real files."""

import asyncio
import grp
import os
import pwd
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from exporter.kinds.file import FileProbe
from exporter.observation import Outcome, Reason
from exporter.probes import file
from exporter.probes.context import Context, Note, Tools


async def ask(context: Context, path: Path | str, **expected: Any) -> Outcome:
    return await file.probe(FileProbe.model_validate({"file": str(path), **expected}), context)


def write(path: Path, content: str = "content", age: float = 0.0, mode: int = 0o640) -> Path:
    path.write_text(content)
    path.chmod(mode)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


async def test_a_file_tells_when_it_was_written_and_how_large_it_is(context: Context, tmp_path: Path) -> None:
    path = write(tmp_path / "dump", "12345", age=100)

    outcome = await ask(context, path)

    assert outcome.reason is None
    assert {reading.measure.name: reading.value for reading in outcome.readings} == {
        "file_mtime_timestamp_seconds": path.stat().st_mtime,
        "file_size_bytes": 5,
    }


@pytest.mark.parametrize(
    ("expected", "reason", "detail"),
    [
        ({"max_age": "2h"}, None, ""),
        ({"max_age": "30m"}, Reason.LIMIT, "written 1h ago, at most 30m expected"),
        ({"min_age": "30m"}, None, ""),
        ({"min_age": "2h"}, Reason.LIMIT, "written 1h ago, at least 2h expected"),
        ({"min_size": 7}, None, ""),
        ({"min_size": "1kB"}, Reason.LIMIT, "7 bytes, at least 1000 expected"),
        ({"max_size": 7}, None, ""),
        ({"max_size": 6}, Reason.LIMIT, "7 bytes, at most 6 expected"),
        ({"mode": "0640"}, None, ""),
        ({"mode": "0600"}, Reason.PERMISSION, "its mode is 0640, not 0600"),
        ({"mode": {"at_most": "0750"}}, None, ""),
        ({"mode": {"at_most": "0600"}}, Reason.PERMISSION, "its mode is 0640, at most 0600 expected"),
        ({"type": "file"}, None, ""),
        ({"type": "directory"}, Reason.MISSING, "it is no directory"),
        ({"owner": os.geteuid()}, None, ""),
        ({"owner": pwd.getpwuid(os.geteuid()).pw_name}, None, ""),
        ({"group": os.getegid()}, None, ""),
        ({"group": grp.getgrgid(os.getegid()).gr_name}, None, ""),
        ({"exists": False}, Reason.LIMIT, "the file is there and must not be"),
    ],
)
async def test_a_file_is_held_against_what_is_expected(
    context: Context, tmp_path: Path, expected: dict[str, Any], reason: Reason | None, detail: str
) -> None:
    path = write(tmp_path / "dump", age=3600)

    outcome = await ask(context, path, **expected)

    assert (outcome.reason, outcome.detail) == (reason, detail)


@pytest.mark.parametrize(("key", "number"), [("owner", "nobody"), ("group", 54321)])
async def test_a_file_of_another_owner_or_group_is_a_failure(
    context: Context, tmp_path: Path, key: str, number: str | int
) -> None:
    outcome = await ask(context, write(tmp_path / "dump"), **{key: number})

    assert outcome.reason is Reason.PERMISSION
    assert str(number) in outcome.detail


@pytest.mark.parametrize(("exists", "reason"), [(True, Reason.MISSING), (False, None)])
async def test_a_missing_file_fails_where_it_must_be(
    context: Context, tmp_path: Path, exists: bool, reason: Reason | None
) -> None:
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "nowhere")
    below_a_file = write(tmp_path / "plain") / "below"

    for path in (tmp_path / "nowhere", dangling, below_a_file):
        assert (await ask(context, path, exists=exists)).reason is reason


async def test_folders_and_sockets_have_their_type(context: Context, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))

        assert (await ask(context, tmp_path / "s", type="socket")).reason is None
        assert (await ask(context, tmp_path / "s", type="file")).reason is Reason.MISSING
        assert (await ask(context, tmp_path, type="directory")).reason is None


async def test_what_we_may_not_look_at_is_no_evidence(context: Context, tmp_path: Path) -> None:
    for path, error in ((tmp_path / "loop", "Too many levels of symbolic links"),):
        path.symlink_to(path)  # a refusal that holds for root too
        outcome = await ask(context, path)
        assert (outcome.reason, outcome.detail) == (Reason.INTERNAL, f"the file cannot be looked at: {error}")


async def test_the_newest_file_of_a_pattern_counts(context: Context, tmp_path: Path) -> None:
    for day in range(3):
        folder = tmp_path / f"day-{day}"
        folder.mkdir()
        write(folder / "shop.tar.gz", "x" * (day + 1), age=3600 * (3 - day))
        write(folder / "other.txt")
        write(folder / ".hidden.tar.gz")

    pattern = tmp_path / "day-*" / "*.tar.gz"
    outcome = await ask(context, pattern, newest=True, max_age="90m")
    stale = await ask(context, pattern, newest=True, max_age="30m")
    nothing = await ask(context, tmp_path / "day-*" / "*.zip", newest=True)

    assert outcome.reason is None
    assert [reading.value for reading in outcome.readings][1] == 3
    assert (stale.reason, stale.detail) == (
        Reason.LIMIT,
        "shop.tar.gz: written 1h ago, at most 30m expected",
    )
    assert (nothing.reason, nothing.detail) == (Reason.MISSING, "no file matches")


async def test_a_pattern_looks_at_so_many_entries_and_no_more(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "ENTRIES_LIMIT", 5)
    for number in range(6):
        write(tmp_path / f"{number}.gz")

    outcome = await ask(context, tmp_path / "*.gz", newest=True)

    assert (outcome.reason, outcome.detail) == (
        Reason.INTERNAL,
        "the pattern leads to more than 5 entries; narrow it",
    )


async def test_a_filesystem_that_hangs_is_no_evidence_and_gets_one_thread(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, looks = threading.Event(), []

    def hang(path: str) -> None:
        looks.append(path)
        released.wait(30)

    monkeypatch.setattr(file, "_stat", hang)
    context = Context(timeout=0.05, tools=tools)
    outcomes = [await ask(context, tmp_path / "x") for _ in range(5)]
    released.set()

    assert {(o.reason, o.detail) for o in outcomes} == {(Reason.INTERNAL, "no answer within 0.05 s")}
    assert len(looks) == 1
    again = await ask(Context(timeout=5, tools=tools, recall=context.recall), tmp_path / "x")
    assert (again.reason, len(looks)) == (Reason.MISSING, 2)


async def test_looks_at_the_same_time_take_turns(context: Context, tmp_path: Path) -> None:
    path = write(tmp_path / "dump")

    outcomes = await asyncio.gather(*(ask(context, path) for _ in range(20)))

    assert [outcome.reason for outcome in outcomes] == [None] * 20


async def test_each_step_is_noted(tools: Tools, tmp_path: Path) -> None:
    notes: list[Note] = []
    path = write(tmp_path / "dump", "12345")

    await ask(Context(timeout=2, tools=tools, notes=notes), path)

    assert f"{path} has 5 bytes, mode 0640" in notes[0].text
