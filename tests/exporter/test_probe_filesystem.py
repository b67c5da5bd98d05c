"""The filesystem probe on real filesystems, made and filled here."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.kinds.filesystem import FilesystemProbe
from exporter.observation import Outcome, Reason
from exporter.probes import filesystem
from exporter.probes.context import Context, Tools

MIB = 1024 * 1024


async def ask(context: Context, path: Path, **expected: Any) -> Outcome:
    config = FilesystemProbe.model_validate({"filesystem": str(path), **expected})
    return await filesystem.probe(config, context)


def run(*argv: str) -> None:
    subprocess.run(argv, check=True)


def values(outcome: Outcome) -> dict[str, float]:
    return {reading.measure.name: reading.value for reading in outcome.readings}


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a tmpfs with the given options; skip where we may not."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        point = tmp_path / f"a mount {len(mounted)}"
        point.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(point)], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip("mounting is not allowed here")
        mounted.append(point)
        return point

    yield make
    for point in reversed(mounted):
        run("umount", str(point))


async def test_space_and_inodes_are_told(context: Context, mount: Callable[[str], Path]) -> None:
    point = mount("size=8m,nr_inodes=100")

    outcome = await ask(context, point)

    assert outcome.reason is None
    assert {reading.labels for reading in outcome.readings} == {(str(point),)}
    seen = values(outcome)
    assert seen["filesystem_size_bytes"] == seen["filesystem_avail_bytes"] == 8 * MIB
    assert seen["filesystem_files"] == 100
    assert 95 <= seen["filesystem_files_free"] < 100
    assert seen["filesystem_readonly"] == 0


@pytest.mark.parametrize(
    ("limit", "told"),
    [("50%", "at least 50% expected"), ("4MiB", "at least 4194304 expected")],
)
async def test_a_filesystem_that_fills_up_fails(
    context: Context, mount: Callable[[str], Path], limit: str, told: str
) -> None:
    point = mount("size=8m")
    before = await ask(context, point, min_free=limit)

    (point / "big").write_bytes(bytes(6 * MIB))
    after = await ask(context, point, min_free=limit)

    assert before.reason is None
    assert after.reason is Reason.LIMIT
    assert after.detail == f"{2 * MIB} of {8 * MIB} (25.0%) bytes free, {told}"


@pytest.mark.parametrize("limit", ["20%", 20])
async def test_a_filesystem_without_inodes_fails_while_it_has_space(
    context: Context, mount: Callable[[str], Path], limit: str | int
) -> None:
    point = mount("size=8m,nr_inodes=50")
    before = await ask(context, point, min_free_inodes=limit, min_free="10%")

    for number in range(45):
        (point / str(number)).touch()
    after = await ask(context, point, min_free_inodes=limit, min_free="10%")

    assert before.reason is None
    assert after.reason is Reason.LIMIT
    assert "inodes free" in after.detail


async def test_a_filesystem_that_became_read_only_fails(
    context: Context, mount: Callable[[str], Path]
) -> None:
    point = mount("size=1m")
    before = await ask(context, point, read_write=True)

    run("mount", "-o", "remount,ro", str(point))
    after = await ask(context, point, read_write=True)
    unasked = await ask(context, point)

    assert before.reason is None
    assert (after.reason, after.detail) == (Reason.PERMISSION, "the filesystem is read-only")
    assert values(after)["filesystem_readonly"] == 1
    assert unasked.reason is None


async def test_a_folder_where_nothing_is_mounted_fails_if_something_must_be(
    context: Context, mount: Callable[[str], Path]
) -> None:
    point = mount("size=1m")
    (point / "inside").mkdir()
    (point.parent / "link").symlink_to(point)

    assert (await ask(context, point, mounted=True)).reason is None
    assert (await ask(context, point.parent / "link", mounted=True)).reason is None
    inside = await ask(context, point / "inside", mounted=True)

    assert inside.reason is Reason.MISSING
    assert inside.detail == f"nothing is mounted here; the path lies in {point}"


async def test_a_bind_mount_of_the_same_filesystem_is_a_mount_point(
    context: Context, mount: Callable[[str], Path]
) -> None:
    point = mount("size=1m")
    for name in ("from", "to"):
        (point / name).mkdir()
    run("mount", "--bind", str(point / "from"), str(point / "to"))
    try:
        assert (await ask(context, point / "to", mounted=True)).reason is None
    finally:
        run("umount", str(point / "to"))


async def test_the_filesystem_of_any_path_is_told(context: Context, tmp_path: Path) -> None:
    outcome = await ask(context, tmp_path, min_free=1, read_write=True)

    assert outcome.reason is None
    expected = os.statvfs(tmp_path)
    assert values(outcome)["filesystem_size_bytes"] == expected.f_blocks * expected.f_frsize


async def test_a_missing_path_is_a_failure(context: Context, tmp_path: Path) -> None:
    outcome = await ask(context, tmp_path / "nowhere")

    assert (outcome.reason, outcome.detail) == (Reason.MISSING, "the path is missing")


async def test_what_we_may_not_look_at_is_no_evidence(context: Context, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)

    assert (await ask(context, loop)).reason is Reason.INTERNAL


async def test_a_filesystem_that_hangs_is_no_evidence_and_gets_one_thread(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, looks = threading.Event(), []

    def hang(path: str) -> filesystem.Space:
        looks.append(path)
        released.wait(30)
        raise FileNotFoundError

    monkeypatch.setattr(filesystem, "measure", hang)
    context = Context(timeout=0.05, tools=tools)
    outcomes = [await ask(context, tmp_path) for _ in range(3)]
    released.set()

    assert [outcome.reason for outcome in outcomes] == [Reason.INTERNAL] * 3
    assert len(looks) == 1
