"""What is SQLite's own: the file, its damage, its versions, its disk."""

import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from remediator.signals import Error
from remediator.store import ErrorQuery, RunQuery, StoreError, open_store, sqlite_database
from remediator.store.sqlite import SqliteStore
from remediator.store.sqlite_schema import MIGRATIONS
from soulfra_monitor.problems import Problem, Severity

ERROR = Error(
    id="SE_00000001",
    target="trust-engine",
    problem=Problem.SERVICE_DOWN,
    severity=Severity.HIGH,
    message="down",
    first_seen=1000.0,
    last_seen=1000.0,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def filled(path: Path, count: int = 1) -> None:
    """Leave a store with so many errors behind."""
    store = SqliteStore(path)
    for number in range(count):
        store.add_error(_numbered(number))
    store.close()


def _numbered(number: int) -> Error:
    return Error(
        id=f"SE_{number:08x}",
        target=f"t{number}",
        problem=Problem.OTHER,
        severity=Severity.LOW,
        message="x" * 500,
        first_seen=1.0,
        last_seen=1.0,
    )


def pragma(path: Path, name: str) -> object:
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute(f"PRAGMA {name}").fetchone()
        return None if row is None else row[0]


def test_the_file_is_private_and_durable(path: Path) -> None:
    store = SqliteStore(path)
    connection = store._db._handle().connection

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert pragma(path, "journal_mode") == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    store.close()


@pytest.mark.parametrize("form", ["{}", "sqlite:{}", "sqlite://{}"])
def test_an_address_is_a_path_with_or_without_scheme(path: Path, form: str) -> None:
    filled(path)

    store = open_store(form.format(path))

    assert store.get_error("SE_00000000") is not None
    store.close()


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    filled(tmp_path / "new" / "folder" / "store.db")

    assert (tmp_path / "new" / "folder" / "store.db").exists()


def test_a_place_that_cannot_be_used_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    for place in (tmp_path, tmp_path / "file" / "store.db"):
        with pytest.raises(StoreError, match=str(tmp_path)):
            SqliteStore(place)


# damage


def test_a_file_that_is_no_database_is_moved_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"this was never a database" * 100)
    told: list[tuple[Path, str]] = []

    with caplog.at_level(logging.ERROR):
        store = SqliteStore(path, on_quarantine=lambda moved, damage: told.append((moved, damage)))

    store.add_error(ERROR)
    store.close()
    ((moved, damage),) = told
    assert moved.name.startswith("store.db.corrupt-2")
    assert moved.read_bytes().startswith(b"this was never")
    assert "not a database" in damage
    assert str(moved) in caplog.text


def test_a_damaged_database_is_moved_aside_whole(path: Path) -> None:
    filled(path, 400)
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : len(content) // 2] = b"\xff" * (len(content) // 2 - len(content) // 4)
    path.write_bytes(content)
    told: list[Path] = []

    store = SqliteStore(path, on_quarantine=lambda moved, _: told.append(moved))

    assert store.find_errors(ErrorQuery()) == []
    assert told[0].read_bytes() == bytes(content)
    store.ping()
    store.close()


def test_the_parts_of_a_damaged_database_go_together(path: Path) -> None:
    path.write_bytes(b"no database, sadly" * 100)
    path.with_name("store.db-wal").write_bytes(b"wal")
    told: list[Path] = []

    SqliteStore(path, on_quarantine=lambda moved, _: told.append(moved)).close()

    assert told[0].with_name(told[0].name + "-wal").read_bytes() == b"wal"


def test_two_damaged_files_in_one_second_are_both_kept(path: Path) -> None:
    told: list[Path] = []
    for number in range(3):
        path.write_bytes(b"no database, number %d" % number * 100)
        SqliteStore(path, on_quarantine=lambda moved, _: told.append(moved)).close()

    assert len(set(told)) == 3
    assert all(moved.exists() for moved in told)


def test_a_locked_database_is_not_taken_for_damaged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    store = SqliteStore(path)
    monkeypatch.setattr(sqlite_database, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        again = SqliteStore(path)
        with pytest.raises(StoreError, match="locked"):
            again.ping()

    again.ping()
    again.close()
    store.close()
    assert sorted(p.name for p in path.parent.iterdir()) == ["store.db", "store.db.lock"]


# versions


def test_an_old_database_is_migrated_with_its_data(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    assert pragma(path, "user_version") == len(MIGRATIONS)
    step = (
        "ALTER TABLE errors ADD COLUMN region TEXT NOT NULL DEFAULT 'here'; UPDATE errors SET attempts = 5;"
    )
    monkeypatch.setattr(sqlite_database, "MIGRATIONS", (*MIGRATIONS, step))

    store = SqliteStore(path)

    found = store.get_error("SE_00000000")
    store.close()
    assert found is not None
    assert found.attempts == 5
    assert pragma(path, "user_version") == len(MIGRATIONS) + 1


def test_a_store_of_version_1_is_migrated_with_all_that_is_in_it(path: Path) -> None:
    dump = Path(__file__).with_name("version-1.sql").read_text()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(dump)
    assert pragma(path, "user_version") == 1

    store = SqliteStore(path)

    over, standing = store.get_error("SE_00000001"), store.get_error("SE_00000004")
    assert over is not None
    assert standing is not None
    assert (over.state, over.recovered_at, over.signals, over.attempts) == ("recovered", 1007.0, 3, 1)
    assert (over.subject, over.fingerprint) == ("", "f1")
    assert (standing.open, standing.fingerprint) == (True, "f3")
    assert store.latest_error("ai-router", Problem.ERROR_RATE) == standing
    assert [(m.fingerprint, m.times, m.detail) for m in store.membership(over.id)] == [
        ("f1", 2, {}),
        ("f2", 1, {}),
    ]
    assert len(store.decisions()) == 3
    (run,) = store.find_runs(RunQuery())
    assert (run.outcome, run.evidence, len(store.steps(run.id))) == (
        "recovered",
        {"rung 1": {"host": {"cpus": 2}}},
        1,
    )
    assert store.uptime(0) == {"ai-router": 11 / 12}
    store.close()
    assert pragma(path, "user_version") == len(MIGRATIONS)
    assert pragma(path, "integrity_check") == "ok"
    assert pragma(path, "foreign_key_check") is None


def test_a_migrated_store_is_made_as_a_new_one(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(Path(__file__).with_name("version-1.sql").read_text())
    SqliteStore(path).close()
    new = path.with_name("new.db")
    SqliteStore(new).close()

    assert _columns(path) == _columns(new)


def _columns(path: Path) -> set[tuple[str, str]]:
    sql = "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c"
    indexes = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    with closing(sqlite3.connect(path)) as connection:
        return {*connection.execute(sql), *connection.execute(indexes)}


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    step = "UPDATE errors SET attempts = 5; ALTER TABLE nowhere ADD COLUMN region TEXT;"
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_database, "MIGRATIONS", (*MIGRATIONS, step))
        with pytest.raises(StoreError, match=f"version {len(MIGRATIONS) + 1}"):
            SqliteStore(path)

    assert pragma(path, "user_version") == len(MIGRATIONS)
    store = SqliteStore(path)
    found = store.get_error("SE_00000000")
    store.close()
    assert found is not None
    assert found.attempts == 0


def test_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    filled(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()

    with pytest.raises(StoreError, match="schema version 99"):
        SqliteStore(path)

    assert path.read_bytes() == before


def test_a_database_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")

    with pytest.raises(StoreError, match="something else"):
        SqliteStore(path)

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM customers").fetchone() == (0,)


def test_eight_openings_at_once_make_one_sound_store(path: Path) -> None:
    script = "import sys; from remediator.store import open_store; open_store(sys.argv[1]).ping()"
    children = [subprocess.Popen([sys.executable, "-c", script, str(path)]) for _ in range(8)]

    assert [child.wait(30) for child in children] == [0] * 8
    assert pragma(path, "quick_check") == "ok"


# threads and processes


def test_connections_of_ended_threads_are_closed(path: Path) -> None:
    store = SqliteStore(path)
    for _ in range(20):
        thread = threading.Thread(target=store.ping)
        thread.start()
        thread.join()

    store.ping()

    assert len(store._db._handles) <= 2
    store.close()


def test_readers_and_writers_in_many_threads_do_not_fail(path: Path) -> None:
    store = SqliteStore(path)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for place in range(25):
                store.add_error(_numbered(number * 100 + place))
                store.find_errors(ErrorQuery(limit=20))
        except StoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert store.count_errors(ErrorQuery())["pending"] == 300
    store.close()


def test_closing_while_others_read_gives_them_a_store_error(path: Path) -> None:
    filled(path, 50)
    store = SqliteStore(path)
    reading = threading.Barrier(5)
    ended: list[str] = []

    def read() -> None:
        store.find_errors(ErrorQuery())
        reading.wait()
        try:
            while True:
                store.find_errors(ErrorQuery())
        except StoreError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    reading.wait()
    store.close()
    for thread in threads:
        thread.join(10)

    assert len(ended) == 4


def test_a_forked_child_is_told_to_open_its_own(path: Path) -> None:
    store = SqliteStore(path)
    child = os.fork()
    if child == 0:
        try:
            store.ping()
        except StoreError as error:
            os._exit(7 if "fork" in str(error) else 8)
        os._exit(9)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    store.ping()
    store.close()


# a full disk

FILL = """
import resource, sys
from pathlib import Path
from remediator.signals import Signal, Source, Status, admit
from remediator.store import ErrorQuery, StoreError, open_store
from soulfra_monitor.problems import Problem, Severity

def signals(prefix, count):
    return [Signal(
        source=Source.ALERTMANAGER, fingerprint="f", status=Status.FIRING, target=f"{prefix}{n}",
        problem=Problem.SERVICE_DOWN, severity=Severity.HIGH, message="x" * 400, received_at=1000.0,
    ) for n in range(count)]

path = Path(sys.argv[1])
filler = path.with_name("filler")
by_limit = sys.argv[2] == "limit"

def no_room():
    if by_limit:
        size = path.with_name(path.name + "-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        return
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            return

def room_again():
    if by_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        filler.unlink()

store = open_store(str(path))
store.accept(signals("early", 20), admit)
no_room()
for use in (lambda: store.accept(signals("full", 500), admit), store.ping, store.ping):
    try:
        use()
    except StoreError as error:
        print("refused:", error)
    else:
        sys.exit("a write succeeded without room")
assert store.count_errors(ErrorQuery())["pending"] == 20
room_again()
store.ping()
store.accept(signals("late", 20), admit)
store.close()
store = open_store(str(path))
found = {error.target for error in store.find_errors(ErrorQuery(limit=1000))}
assert found == {f"{when}{n}" for when in ("early", "late") for n in range(20)}, found
store.close()
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here; the file size limit is tried instead")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def _fill(path: Path, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path), how], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused:") == 3


def test_a_full_disk_refuses_writes_and_loses_nothing(small_disk: Path) -> None:
    _fill(small_disk / "store.db", "disk")


def test_a_disk_with_room_for_little_is_not_ready(small_disk: Path) -> None:
    store = SqliteStore(small_disk / "store.db")
    store.ping()
    (small_disk / "filler").write_bytes(b"x" * 5 * 1024 * 1024)

    with pytest.raises(StoreError, match="KiB are left"):
        store.ping()

    (small_disk / "filler").unlink()
    store.ping()
    store.close()


def test_a_file_size_limit_refuses_writes_and_loses_nothing(path: Path) -> None:
    _fill(path, "limit")


# speed by design


def test_what_is_asked_all_the_time_reads_no_whole_table(path: Path) -> None:
    store = SqliteStore(path)
    asked: list[str] = []
    connection = store._db._handle().connection
    connection.set_trace_callback(asked.append)

    store.latest_error("t", Problem.OTHER)
    store.find_errors(ErrorQuery(since=1.0, before=(2.0, "x")))
    store.find_errors(ErrorQuery(open=True))
    store.count_errors(ErrorQuery(since=1.0))
    store.due_errors(1.0, 10)
    store.next_check()
    store.decisions(error_id="x")
    store.decisions(since=1.0)
    store.find_runs(RunQuery(running=True))
    store.find_runs(RunQuery(target="t"))
    store.orphans("a", "b", 1.0)
    store.starts(1.0)
    store.uptime(1)
    store.quiet_events(1.0, 10)
    store.past_runs(ERROR)
    store.membership("x")
    store.sight("x")

    connection.set_trace_callback(None)
    plans = {sql: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")] for sql in asked}
    store.close()
    assert len(plans) == 17
    partial = ("errors_open", "runs_running")  # these hold only what is open or running
    whole = [
        (sql, step)
        for sql, steps in plans.items()
        for step in steps
        if step.startswith("SCAN") and not step.endswith(partial)
    ]
    assert whole == []
