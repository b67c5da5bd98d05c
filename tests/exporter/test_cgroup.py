"""Memory limits and kills of control groups: version 1 and 2 as files, and the real ones of this machine."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.kinds.process import ProcessProbe
from exporter.probes import cgroup, process
from exporter.probes.context import Context

MIB = 1024 * 1024
V1_MOUNT = "33 25 0:29 {root} {at} rw - cgroup cgroup rw,memory"
V2_MOUNT = "34 25 0:30 {root} {at} rw,nosuid - cgroup2 cgroup2 rw"

Tree = Callable[..., "tuple[int | None, int | None] | None"]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Lay out a /proc and a hierarchy of groups, and return limit and kills of process 7."""

    def lay_out(
        membership: str, files: dict[str, str], *, mount: str = V2_MOUNT, root: str = "/"
    ) -> tuple[int | None, int | None] | None:
        proc, groups = tmp_path / "proc", tmp_path / "groups"
        for name, text in files.items():
            (groups / name).parent.mkdir(parents=True, exist_ok=True)
            (groups / name).write_text(text)
        (proc / "7").mkdir(parents=True)
        (proc / "7" / "cgroup").write_text(membership + "\n")
        (proc / "self").mkdir()
        (proc / "self" / "mountinfo").write_text(mount.format(root=root, at=groups) + "\n")
        group = cgroup.memory_group(7, proc)
        return None if group is None else (cgroup.memory_limit(group), cgroup.oom_kills(group))

    return lay_out


V2 = {"cgroup.controllers": "cpu memory pids\n"}


def test_the_smallest_limit_on_the_way_up_counts(tree: Tree) -> None:
    files = {
        "system.slice/shop.service/memory.max": "max\n",
        "system.slice/memory.max": "1048576\n",
        "system.slice/shop.service/memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\n",
    }

    assert tree("0::/system.slice/shop.service", {**V2, **files}) == (MIB, 2)


def test_a_group_without_limits_has_none(tree: Tree) -> None:
    files = {"a/memory.max": "max\n", "a/memory.events": "oom_kill 0\n"}

    assert tree("0::/a", {**V2, **files}) == (None, 0)


def test_version_1_writes_a_huge_number_for_no_limit(tree: Tree) -> None:
    files = {
        "shop/memory.limit_in_bytes": "9223372036854771712\n",
        "shop/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
    }

    assert tree("9:memory:/shop\n0::/", files, mount=V1_MOUNT) == (None, 4)


def test_version_1_limits_count_on_the_way_up_too(tree: Tree) -> None:
    files = {
        "a/memory.limit_in_bytes": "2097152\n",
        "a/b/memory.limit_in_bytes": "9223372036854771712\n",
    }

    assert tree("5:cpu,cpuacct:/\n9:memory:/a/b", files, mount=V1_MOUNT) == (2 * MIB, None)


def test_the_kills_of_the_whole_machine_are_nobody_s(tree: Tree) -> None:
    files = {"memory.oom_control": "oom_kill 9\n", "memory.limit_in_bytes": "9223372036854771712\n"}

    assert tree("9:memory:/", files, mount=V1_MOUNT) == (None, None)


def test_a_container_s_own_view_begins_at_its_group(tree: Tree) -> None:
    files = {"memory.limit_in_bytes": "1048576\n"}

    assert tree("9:memory:/docker/abc", files, mount=V1_MOUNT, root="/docker/abc") == (MIB, None)


@pytest.mark.parametrize("membership", ["0::/../other", "0::/nowhere", "1:name=systemd:/x", "nonsense::"])
def test_a_group_that_we_cannot_see_is_none(tree: Tree, membership: str) -> None:
    assert tree(membership, V2) is None


def test_mounts_that_could_not_be_read_once_are_read_again(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_path: Path) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    files = {**V2, "a/memory.max": "1048576\n"}
    with monkeypatch.context() as short:
        short.setattr(cgroup, "_read", none_left)
        assert tree("0::/a", files) is None

    group = cgroup.memory_group(7, tmp_path / "proc")
    assert group is not None
    assert cgroup.memory_limit(group) == MIB


def test_a_process_that_is_gone_has_none(tmp_path: Path) -> None:
    assert cgroup.memory_group(7, tmp_path) is None


@pytest.fixture
def own_group() -> Iterator[Path]:
    """Make a real group of this machine that may use 16 MiB."""
    group = cgroup.memory_group(os.getpid())
    if group is None or os.geteuid() != 0:
        pytest.skip("no memory groups here, or not ours to make")
    folder = next(group.upwards()) / f"soulfra-test-{os.getpid()}"
    limit = "memory.max" if group.mount.version == 2 else "memory.limit_in_bytes"
    try:
        folder.mkdir()
        (folder / limit).write_text(str(16 * MIB))
    except OSError as error:
        pytest.skip(f"no group can be made: {error.strerror}")
    yield folder
    folder.rmdir()


async def test_a_real_limit_and_a_real_kill_are_told(
    context: Context, launch: Callable[..., Any], own_group: Path
) -> None:
    waits = "import sys; print(1, flush=True); sys.stdin.read(1)"
    marker = f"marker-{own_group.name}"
    main, victim = (
        launch(sys.executable, "-c", f"{waits}; b = b'x' * (64 << 20)", marker, stdin=subprocess.PIPE)
        for _ in range(2)
    )
    for started in (main, victim):
        (own_group / "cgroup.procs").write_text(str(started.pid))
    config = ProcessProbe.model_validate({"match": marker})

    before = (await process.probe(config, context)).process
    victim.stdin.write(b"x")
    victim.stdin.close()
    assert victim.wait(30) == -9
    after = None
    for _ in range(process.RECOUNT_AFTER):
        after = (await process.probe(config, context)).process
    main.kill()
    main.wait()
    main.stdin.close()

    assert before is not None
    assert after is not None
    assert before.memory_limit_bytes == 16 * MIB
    assert ((before.oom_kills, after.oom_kills), after.group_size) == ((0, 1), 1)
