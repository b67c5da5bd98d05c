"""Mending files: exactly what is declared, through no link, for no second name; on real files, as root."""

import fcntl
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.config import OwnPath, Service
from remediator.actions import ActionContext, ActionError, find_action
from remediator.playbook import FileArgs
from soulfra_monitor.problems import Problem

NOBODY = 65534
DEAD = 2**22 + 1  # above the largest pid there can be


@pytest.fixture(autouse=True)
def as_root() -> None:
    if os.geteuid() != 0:
        message = "owners can be given by root only"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture
def mend(bench: Any) -> Callable[..., str]:
    """Return a function that declares paths of a service and mends one as the error's path."""

    def call(
        path: Path | str,
        *entries: dict[str, Any],
        problem: Problem = Problem.PERMISSION_DENIED,
        last_seen: float | None = None,
    ) -> str:
        paths = tuple(OwnPath.model_validate(entry) for entry in entries)
        bench.services["shop"] = Service(paths=paths)
        context: ActionContext = bench.context()
        context = replace(context, summary={**context.summary, "problem": problem, "last_seen": last_seen})
        return find_action("file")(FileArgs(service="shop", path=str(path)), context, 5.0)

    return call


def refused(mend: Callable[..., str], *given: Any, **more: Any) -> str:
    """Return why it was refused, for good."""
    with pytest.raises(ActionError) as caught:
        mend(*given, **more)
    assert caught.value.permanent
    return str(caught.value)


def state(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


# -- what is declared is mended ---------------------------------------------------------------------


def test_a_missing_folder_is_made_as_declared(mend: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "out"

    told = mend(out, {"path": str(out), "mode": "0750", "owner": NOBODY, "group": "daemon", "create": True})

    assert state(out)[:2] == (0o750, NOBODY)
    assert told.startswith(f"made {out}; gave {out} to {NOBODY}:")


def test_a_missing_file_is_made_as_declared(mend: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "state.json"

    mend(
        file,
        {"path": str(file), "kind": "file", "mode": "640", "owner": "nobody", "create": True},
        problem=Problem.MISSING_FILE,
    )

    assert state(file)[:2] == (0o640, NOBODY)
    assert file.read_bytes() == b""


def test_a_wrong_mode_and_owner_are_set_right_and_the_content_is_left(
    mend: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    (out / "kept").write_text("x")

    mend(out / "kept", {"path": str(out), "mode": "2770", "group": NOBODY})

    assert state(out) == (0o2770, 0, NOBODY)
    assert state(out / "kept") == (0o644, 0, 0)


def test_declared_folders_are_mended_from_the_outside_in(mend: Callable[..., str], tmp_path: Path) -> None:
    outer, inner = tmp_path / "a", tmp_path / "a" / "b"

    mend(
        inner / "new.csv",
        {"path": str(inner), "mode": "0700", "create": True},
        {"path": str(outer), "mode": "0711", "create": True},
    )

    assert (state(outer)[0], state(inner)[0]) == (0o711, 0o700)


def test_what_is_not_said_is_left_alone(mend: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    os.chown(out, NOBODY, NOBODY)
    out.chmod(0o555)

    assert mend(out, {"path": str(out)}) == f"{out} is as declared"
    assert state(out) == (0o555, NOBODY, NOBODY)


def test_a_second_call_finds_nothing_to_do(mend: Callable[..., str], tmp_path: Path) -> None:
    entry = {"path": str(tmp_path / "out"), "mode": "0750", "create": True}
    mend(tmp_path / "out", entry)

    assert mend(tmp_path / "out", entry) == f"{tmp_path / 'out'} is as declared"


def test_paths_of_the_configuration_may_be_relative(mend: Callable[..., str], tmp_path: Path) -> None:
    mend(tmp_path / "out", {"path": "out", "mode": "0701", "create": True})
    mend(tmp_path / "data" / "in", {"path": "{data}", "create": True}, {"path": "{data}/in", "create": True})

    assert state(tmp_path / "out")[0] == 0o701
    assert (tmp_path / "data" / "in").is_dir()


# -- nothing else is touched ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/etc/shadow", "out", "{}/out/../../etc", "{}/out/", "{}//out", "{}/outer", ""]
)
def test_a_path_that_is_not_declared_is_refused(mend: Callable[..., str], tmp_path: Path, path: str) -> None:
    entry = {"path": str(tmp_path / "out"), "create": True}

    assert "is not among services.shop.paths" in refused(mend, path.format(tmp_path), entry)
    assert not (tmp_path / "out").exists()


def test_a_file_covers_nothing_but_itself(mend: Callable[..., str], tmp_path: Path) -> None:
    entry = {"path": str(tmp_path / "f"), "kind": "file", "create": True}

    refused(mend, tmp_path / "f" / "inner", entry)


def test_what_is_missing_is_not_made_without_create(mend: Callable[..., str], tmp_path: Path) -> None:
    assert "not declared with create" in refused(mend, tmp_path / "out", {"path": str(tmp_path / "out")})


def test_a_missing_parent_is_not_made(mend: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "no" / "out"

    assert "declare that too" in refused(mend, out, {"path": str(out), "create": True})
    assert not out.parent.exists()


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_another_kind_than_declared_is_left_alone(
    mend: Callable[..., str], tmp_path: Path, kind: str
) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700) if kind == "file" else other.touch(mode=0o600)
    before = state(other)

    assert "is no " in refused(mend, other, {"path": str(other), "kind": kind, "mode": "0777"})
    assert state(other) == before


def test_a_pipe_is_no_file_and_nobody_waits_for_it(mend: Callable[..., str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)

    refused(mend, tmp_path / "pipe", {"path": str(tmp_path / "pipe"), "kind": "file", "mode": "0666"})
    refused(
        mend, tmp_path / "pipe", {"path": str(tmp_path / "pipe"), "kind": "lock"}, problem=Problem.STALE_LOCK
    )

    assert state(tmp_path / "pipe")[0] == 0o600


def test_what_in_a_declared_folder_is_not_declared_is_not_claimed(
    mend: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch(mode=0o600)
    entry = {"path": str(out), "owner": NOBODY}

    missing = refused(mend, out / "input.csv", entry, problem=Problem.MISSING_FILE)
    denied = refused(mend, out / "mine", entry, problem=Problem.PERMISSION_DENIED)

    assert "input.csv is still missing" in missing
    assert "is not for 65534 to use" in denied
    assert state(out / "mine") == (0o600, 0, 0)


def test_files_that_were_missing_with_their_folder_are_for_the_program_to_write(
    mend: Callable[..., str], tmp_path: Path
) -> None:
    out, now = tmp_path / "out", time.time()
    entry = {"path": str(out), "create": True}

    first = mend(out / "a.md", entry, problem=Problem.MISSING_FILE, last_seen=now)
    second = mend(out / "b.md", entry, problem=Problem.MISSING_FILE, last_seen=now)
    later = refused(mend, out / "a.md", entry, problem=Problem.MISSING_FILE, last_seen=now + 60)

    assert (first, second) == (f"made {out}", f"{out} is as declared")
    assert "a.md is still missing" in later


def test_an_owner_that_is_not_there_is_refused(mend: Callable[..., str], tmp_path: Path) -> None:
    tmp_path.joinpath("out").mkdir()

    told = refused(mend, tmp_path / "out", {"path": str(tmp_path / "out"), "owner": "no-such-user"})

    assert told == "there is no user 'no-such-user' here"


# -- attacks ----------------------------------------------------------------------------------------


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    found = tmp_path / "victim"
    found.mkdir(mode=0o700)
    (found / "secret").touch(mode=0o600)
    return found


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_link_in_its_place_is_not_followed(
    mend: Callable[..., str], tmp_path: Path, victim: Path, kind: str
) -> None:
    aim = victim if kind == "directory" else victim / "secret"
    (tmp_path / "out").symlink_to(aim)
    entry = {"path": str(tmp_path / "out"), "kind": kind, "mode": "0777", "owner": NOBODY, "create": True}

    assert "symbolic link" in refused(mend, tmp_path / "out", entry)
    assert (state(victim), state(victim / "secret")) == ((0o700, 0, 0), (0o600, 0, 0))
    assert (tmp_path / "out").lstat().st_uid == 0


def test_a_dangling_link_makes_nothing(mend: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "made")

    refused(mend, tmp_path / "out", {"path": str(tmp_path / "out"), "create": True})
    refused(mend, tmp_path / "out", {"path": str(tmp_path / "out"), "kind": "file", "create": True})

    assert not (tmp_path / "made").exists()


def test_a_link_on_the_way_is_not_followed(mend: Callable[..., str], tmp_path: Path, victim: Path) -> None:
    (tmp_path / "way").symlink_to(victim)

    told = refused(mend, tmp_path / "way" / "new", {"path": str(tmp_path / "way" / "new"), "create": True})

    assert "symbolic link" in told
    assert not (victim / "new").exists()


def test_a_second_name_of_a_file_is_left_alone(
    mend: Callable[..., str], tmp_path: Path, victim: Path
) -> None:
    os.link(victim / "secret", tmp_path / "out")
    entry = {"path": str(tmp_path / "out"), "kind": "file", "mode": "0666", "owner": NOBODY}

    assert "has 2 names" in refused(mend, tmp_path / "out", entry)
    assert state(victim / "secret") == (0o600, 0, 0)


def test_a_program_that_runs_as_somebody_else_is_given_to_nobody(
    mend: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "su").touch()
    (tmp_path / "su").chmod(0o4755)

    refused(mend, tmp_path / "su", {"path": str(tmp_path / "su"), "kind": "file", "owner": NOBODY})

    assert state(tmp_path / "su") == (0o4755, 0, 0)


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_whoever_swaps_it_for_a_link_meanwhile_gains_nothing(
    mend: Callable[..., str], tmp_path: Path, victim: Path, kind: str
) -> None:
    (tmp_path / "own").mkdir()
    place, link = tmp_path / "own" / "out", tmp_path / "own" / "link"
    aim = victim if kind == "directory" else victim / "secret"
    done = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not done.is_set():
            with suppress(OSError):  # what was mended may stand in the way
                link.symlink_to(aim)
            with suppress(OSError):
                link.rename(place)
                swaps += 1
            with suppress(OSError):
                place.unlink()

    entry = {"path": str(place), "kind": kind, "mode": "0777", "owner": NOBODY, "create": True}
    attacker = threading.Thread(target=swap)
    attacker.start()
    mended = 0
    for _ in range(300):
        with suppress(ActionError):
            mend(place, entry)
            mended += 1
        with suppress(OSError):
            place.rmdir() if kind == "directory" else place.unlink()
    done.set()
    attacker.join(10)

    assert swaps
    assert mended
    assert not attacker.is_alive()
    assert (state(victim), state(victim / "secret")) == ((0o700, 0, 0), (0o600, 0, 0))


# -- mounts -----------------------------------------------------------------------------------------


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that another file system is mounted on."""
    point = tmp_path / "mounted"
    point.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", point],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    if done.returncode:
        message = f"nothing can be mounted here: {done.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    yield point
    subprocess.run(["umount", point], check=True, timeout=10)


def test_where_another_file_system_is_mounted_that_one_is_mended(
    mend: Callable[..., str], mounted: Path
) -> None:
    mend(
        mounted / "in", {"path": str(mounted), "mode": "0750"}, {"path": str(mounted / "in"), "create": True}
    )

    assert state(mounted)[0] == 0o750
    assert (mounted / "in").is_dir()


def test_a_read_only_file_system_is_told(mend: Callable[..., str], mounted: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True, timeout=10)

    assert "read-only" in refused(mend, mounted, {"path": str(mounted), "mode": "0750"})


# -- locks ------------------------------------------------------------------------------------------


def test_the_lock_of_a_dead_process_is_removed(mend: Callable[..., str], tmp_path: Path) -> None:
    lock = tmp_path / "app.pid"
    lock.write_text(f"{DEAD}\n")

    told = mend(lock, {"path": str(lock), "kind": "lock"}, problem=Problem.STALE_LOCK)

    assert told == f"removed {lock}: the process it names is dead"
    assert list(tmp_path.glob("*pid*")) == []
    assert mend(lock, {"path": str(lock), "kind": "lock"}, problem=Problem.STALE_LOCK)


def test_the_lock_of_a_living_process_stays(mend: Callable[..., str], tmp_path: Path) -> None:
    lock = tmp_path / "app.pid"
    lock.write_text(f"pid: {os.getpid()}")

    assert "lives" in refused(mend, lock, {"path": str(lock), "kind": "lock"}, problem=Problem.STALE_LOCK)
    assert lock.exists()


def test_a_zombie_holds_no_lock(mend: Callable[..., str], tmp_path: Path, until: Callable[..., None]) -> None:
    lock = tmp_path / "app.pid"
    child = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    lock.write_text(str(child.pid))

    mend(lock, {"path": str(lock), "kind": "lock"}, problem=Problem.STALE_LOCK)

    child.wait(5)
    assert not lock.exists()


@pytest.mark.parametrize("text", ["", "held", "-1", "0", "99999999999999999999", "12abc", "\x00\x00"])
def test_a_lock_that_names_no_process_stays(mend: Callable[..., str], tmp_path: Path, text: str) -> None:
    lock = tmp_path / "app.lock"
    lock.write_text(text)

    assert "names no process" in refused(
        mend, lock, {"path": str(lock), "kind": "lock"}, problem=Problem.STALE_LOCK
    )
    assert lock.exists()


def test_a_lock_that_somebody_has_locked_stays(mend: Callable[..., str], tmp_path: Path) -> None:
    lock = tmp_path / "app.lock"
    lock.write_text(str(DEAD))
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        told = refused(mend, lock, {"path": str(lock), "kind": "lock"}, problem=Problem.STALE_LOCK)

    assert "somebody has locked it" in told


def test_a_lock_with_a_link_for_it_stays(mend: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "real").write_text(str(DEAD))
    (tmp_path / "app.lock").symlink_to(tmp_path / "real")

    refused(
        mend,
        tmp_path / "app.lock",
        {"path": str(tmp_path / "app.lock"), "kind": "lock"},
        problem=Problem.STALE_LOCK,
    )

    assert (tmp_path / "real").exists()


def test_a_lock_that_is_taken_anew_meanwhile_stays(
    mend: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "app.lock"
    lock.write_text(str(DEAD))
    fresh = tmp_path / "fresh"
    fresh.write_text(str(os.getpid()))
    rename = os.rename

    def late(*names: Any, **more: Any) -> None:
        rename(fresh, lock)
        rename(*names, **more)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(ActionError, match="taken anew") as caught:
        mend(lock, {"path": str(lock), "kind": "lock"}, problem=Problem.STALE_LOCK)

    assert not caught.value.permanent
    assert lock.read_text() == str(os.getpid())
    assert [path.name for path in tmp_path.glob(".*stale*")] == []
