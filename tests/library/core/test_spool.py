"""Parcels on disk: whole or absent, in order, bounded, private, and sent by a later life exactly once."""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soulfra_monitor import ErrorMonitor
from soulfra_monitor.spool import Backlog, Orphan, Parcel, Spool, SpoolError
from tests.library.core.conftest import Recorder

DAY = 86400.0
Start = Callable[..., ErrorMonitor]


def fail(place: str, error: BaseException) -> None:
    """Stand for what is told of failures of ours where there must be none."""
    raise AssertionError(place) from error


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def told() -> list[str]:
    """Return what has been told of failures of ours."""
    return []


@pytest.fixture
def disk(folder: Path, told: list[str]) -> Iterator[Spool]:
    def broke(place: str, error: BaseException) -> None:
        told.append(f"{place}: {error}")

    found = Spool(str(folder), "shop", limit=100_000, age=DAY, broke=broke)
    yield found
    found.close()


def parcel(seq: int, size: int = 10, boot: str = "b0", weight: int = 1) -> Parcel:
    return Parcel(boot=boot, seq=seq, body=b"x" * size, weight=weight, dropped={"queue": seq})


def seqs(backlog: Backlog) -> list[int]:
    found: list[int] = []
    while True:
        one, _ = backlog.first()
        if one is None:
            return found
        found.append(one.seq)
        backlog.remove(one.seq)


def test_what_is_written_is_read(disk: Spool) -> None:
    written = Parcel(boot="b0", seq=3, body=os.urandom(1000), packed=True, weight=7)

    disk.write(written)

    assert disk.read("b0", 3) == written


def test_only_the_user_can_read_it(disk: Spool, folder: Path) -> None:
    disk.write(parcel(1))

    assert stat.S_IMODE((folder / "shop").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "shop" / "b0").stat().st_mode) == 0o700


def test_a_folder_open_to_others_is_closed(disk: Spool, folder: Path) -> None:
    (folder / "shop").mkdir(parents=True, mode=0o777)
    (folder / "shop").chmod(0o777)

    disk.write(parcel(1))

    assert stat.S_IMODE((folder / "shop").stat().st_mode) == 0o700


def test_somebody_elses_link_is_not_followed(disk: Spool, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    folder.mkdir()
    (folder / "shop").symlink_to(tmp_path / "theirs")

    with pytest.raises(SpoolError, match="no folder"):
        disk.write(parcel(1))
    assert list((tmp_path / "theirs").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_somebody_elses_folder_is_not_used(disk: Spool, folder: Path) -> None:
    (folder / "shop").mkdir(parents=True)
    os.chown(folder / "shop", 12345, 12345)

    with pytest.raises(SpoolError, match="no folder"):
        disk.write(parcel(1))


def test_parcels_come_back_in_their_order(disk: Spool) -> None:
    backlog = Backlog(disk, "b0")

    for seq in (1, 2, 10, 11):
        assert backlog.add(parcel(seq)) == []

    assert backlog.weight == 4
    assert seqs(backlog) == [1, 2, 10, 11]
    assert backlog.weight == 0


def test_the_oldest_go_when_it_is_full(disk: Spool) -> None:
    backlog = Backlog(disk, "b0")

    lost = [one for seq in range(1, 41) for one in backlog.add(parcel(seq, 5000, weight=2))]

    assert disk.used() <= disk.limit + 5000
    assert {one.reason for one in lost} == {"spool_full"}
    assert sum(one.weight for one in lost) + backlog.weight == 80
    assert [one.dropped["queue"] for one in lost] == list(range(1, len(lost) + 1))
    assert seqs(backlog)[-1] == 40


def test_all_processes_of_a_service_share_the_bound(folder: Path) -> None:
    limits = [Spool(str(folder), "shop", limit=50_000, age=DAY, broke=fail) for _ in range(2)]
    first, second = (Backlog(one, f"b{number}") for number, one in enumerate(limits))
    for seq in range(1, 10):
        first.add(parcel(seq, 5000, "b0"))
    for seq in range(1, 10):
        second.add(parcel(seq, 5000, "b1"))

    assert limits[0].used() <= 60_000
    for one in limits:
        one.close()


def test_what_is_too_old_is_given_up(disk: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    backlog = Backlog(disk, "b0")
    backlog.add(parcel(1))
    now = time.time()
    monkeypatch.setattr("soulfra_monitor.spool.time.time", lambda: now + 2 * DAY)

    found, lost = backlog.first()

    assert found is None
    assert [one.reason for one in lost] == ["spool_age"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"more"),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"y"),
        lambda path: path.write_bytes(b"\x00" * 5000),
        lambda path: path.write_bytes(b'{"boot": "b0"}\n'),
        lambda path: path.write_bytes(b"[1]\n"),
        lambda path: path.write_bytes(b'{"length": 1e300, "crc": 0}\n'),
        lambda path: path.write_bytes(path.read_bytes().replace(b"b0", b"b7")),
    ],
)
def test_a_corrupt_parcel_is_moved_aside_and_not_deleted(
    disk: Spool, folder: Path, told: list[str], harm: Callable[[Path], object]
) -> None:
    backlog = Backlog(disk, "b0")
    backlog.add(parcel(1))
    backlog.add(parcel(2))
    harm(folder / "shop" / "b0" / "000000000001.seg")

    found, lost = backlog.first()

    assert found is not None
    assert found.seq == 2
    assert [(one.weight, one.reason) for one in lost] == [(1, "spool_unreadable")]
    assert [path.name for path in (folder / "shop" / "corrupt").iterdir()] == ["b0-000000000001.seg"]
    assert [text.partition(":")[0] for text in told] == ["spool"]


def test_a_parcel_that_somebody_removed_is_counted(disk: Spool, folder: Path) -> None:
    backlog = Backlog(disk, "b0")
    backlog.add(parcel(1))
    (folder / "shop" / "b0" / "000000000001.seg").unlink()

    assert backlog.first()[1][0].reason == "spool_unreadable"


@pytest.mark.parametrize(
    ("function", "do"),
    [
        ("os.unlink", lambda disk: disk.remove("b0", 1)),
        ("os.replace", lambda disk: harmed(disk).first()),
        ("os.scandir", lambda disk: disk.used()),
        ("os.listdir", lambda disk: disk.has_orphans("b1")),
        ("os.listdir", lambda disk: list(disk.orphans("b1"))),
        ("os.listdir", lambda disk: disk.leave("b0")),
    ],
)
def test_what_the_disk_refuses_is_told_and_raises_nothing(
    disk: Spool,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    do: Callable[[Spool], object],
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    disk.write(parcel(1))
    monkeypatch.setattr(function, refuse)

    do(disk)

    assert "spool: [Errno 13] Permission denied" in told


def harmed(disk: Spool) -> Orphan:
    """Return what a dead process left, which is corrupt."""
    disk.close()
    (orphan,) = disk.orphans("b1")
    (place,) = Path(orphan._folder).glob("*.seg")
    place.write_bytes(b"?")
    return orphan


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_when_the_disk_takes_nothing_memory_does(
    disk: Spool, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    backlog = Backlog(disk, "b0")
    backlog.add(parcel(1))
    monkeypatch.setattr("os.fsync", full)
    backlog.add(parcel(2))
    assert os.strerror(number) in backlog.failure
    monkeypatch.undo()
    backlog.add(parcel(3))

    assert backlog.failure == ""
    assert not list(folder.rglob("*.tmp"))
    assert not (folder / "shop" / "b0" / "000000000002.seg").exists()
    assert seqs(backlog) == [1, 2, 3]


def test_memory_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soulfra_monitor.spool.MEMORY_LIMIT", 20_000)
    (tmp_path / "file").write_text("no folder")
    backlog = Backlog(Spool(str(tmp_path / "file"), "shop", limit=10**6, age=DAY, broke=fail), "b0")

    lost = [one for seq in range(1, 11) for one in backlog.add(parcel(seq, 5000))]

    assert len(lost) == 6
    assert seqs(backlog) == [7, 8, 9, 10]


def test_the_living_are_left_alone_and_the_dead_are_adopted(disk: Spool, folder: Path) -> None:
    disk.write(parcel(1))
    other = Spool(str(folder), "shop", limit=100_000, age=DAY, broke=fail)

    assert list(other.orphans("b1")) == []
    disk.close()  # as its death does
    (orphan,) = other.orphans("b1")
    assert list(disk.orphans("b2")) == []  # one heir is enough

    found = orphan.first()
    assert found is not None
    orphan.remove(found.seq)
    assert orphan.first() is None
    orphan.close()
    assert list((folder / "shop").iterdir()) == []


def test_what_a_dead_process_had_not_finished_writing_is_removed(disk: Spool, folder: Path) -> None:
    disk.write(parcel(1))
    (folder / "shop" / "b0" / "000000000002.seg.tmp").write_bytes(b"half")
    disk.close()

    (orphan,) = disk.orphans("b1")
    orphan.remove(1)
    orphan.close()

    assert list((folder / "shop").iterdir()) == []


def test_what_dead_processes_left_corrupt_is_kept_and_told_and_the_rest_is_sent(
    disk: Spool, folder: Path, told: list[str]
) -> None:
    disk.write(parcel(1))
    disk.write(parcel(2))
    (folder / "shop" / "b0" / "000000000001.seg").write_bytes(b"?")
    disk.close()

    (orphan,) = disk.orphans("b1")

    found = orphan.first()
    assert found is not None
    assert found.seq == 2
    assert orphan.lost == 1
    assert len(told) == 1
    assert len(list((folder / "shop" / "corrupt").iterdir())) == 1
    orphan.close()


def test_looking_for_orphans_creates_nothing(disk: Spool, folder: Path, told: list[str]) -> None:
    assert not disk.has_orphans("b0")
    assert list(disk.orphans("b0")) == []
    assert not folder.exists()
    assert told == []


def test_without_a_named_folder_it_is_one_of_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    disk = Spool("", "shop", limit=1000, age=DAY, broke=fail)

    disk.write(parcel(1))
    disk.close()

    assert (tmp_path / "soulfra-monitor" / "spool" / "shop" / "b0" / "000000000001.seg").exists()


def test_a_user_without_a_home_has_a_folder_in_the_temporary_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    disk = Spool("", "shop", limit=1000, age=DAY, broke=fail)

    disk.write(parcel(1))
    disk.close()

    assert (tmp_path / f"soulfra-monitor-{os.geteuid()}" / "spool" / "shop" / "b0").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_temporary_folder_that_somebody_else_put_there_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    theirs = tmp_path / f"soulfra-monitor-{os.geteuid()}"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)

    with pytest.raises(SpoolError, match="no folder"):
        Spool("", "shop", limit=1000, age=DAY, broke=fail).write(parcel(1))


def test_a_life_that_begins_sends_what_a_dead_one_left(recorder: Recorder, start: Start, spool: Path) -> None:
    away = start(url="http://127.0.0.1:1")
    away.report("before")
    away.stop()
    assert recorder.taken == []

    monitor = start()

    recorder.wait(lambda it: it.events)
    assert recorder.events[0].message == "before"
    assert monitor.stats().seen == 0
    monitor.stop()
    assert list(spool.rglob("*.seg")) == []
