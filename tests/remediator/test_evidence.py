"""Evidence: what is in it, that it is bounded and redacted, and that it never fails."""

import json
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from exporter.config import Service
from remediator.evidence import SIZE_LIMIT, gather


def take(folder: Path, service: Service | None = None, state: Any = None, **more: Any) -> dict[str, Any]:
    more.setdefault("on_fault", lambda: None)
    found = gather(
        target="shop",
        service=service or Service(),
        state=state if state is not None else {"unreachable": "the connection was refused"},
        data_folder=folder / "data",
        config_folder=folder,
        **more,
    )
    assert len(json.dumps(found)) <= SIZE_LIMIT
    return found


def state_of(**shop: Any) -> dict[str, Any]:
    return {"services": {"shop": {"status": "down", **shop}}}


def write_log(folder: Path, text: str) -> None:
    log = folder / "data" / "logs" / "shop.log"
    log.parent.mkdir(parents=True)
    log.write_text(text)


def test_the_last_lines_of_the_log_are_there_and_redacted(tmp_path: Path) -> None:
    write_log(tmp_path, "".join(f"line {number}\n" for number in range(1000)) + "pass" + "word=hunter2\n")

    lines = take(tmp_path)["log shop.log"]["lines"]

    assert lines[-2:] == ["line 999", "password=***"]
    assert len(lines) == 40


def test_the_logs_of_the_configuration_are_there(tmp_path: Path) -> None:
    (tmp_path / "access.log").write_text("GET /\n")

    found = take(tmp_path, Service(logs=("access.log",)))

    assert found["log access.log"]["lines"] == ["GET /"]


def test_a_huge_log_is_not_read_as_a_whole(tmp_path: Path) -> None:
    log = tmp_path / "data" / "logs" / "shop.log"
    log.parent.mkdir(parents=True)
    with log.open("wb") as file:
        file.truncate(20_000_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    began = time.monotonic()

    found = take(tmp_path)

    assert found["log shop.log"]["lines"][-1] == "the end"
    assert time.monotonic() - began < 1


def test_a_missing_log_says_so(tmp_path: Path) -> None:
    assert take(tmp_path)["log shop.log"] == {"missing": "No such file or directory"}


def test_a_pipe_in_the_place_of_a_log_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    began = time.monotonic()

    found = take(tmp_path, Service(logs=("pipe",)))

    assert found["log pipe"] == {"missing": "is not a regular file"}
    assert time.monotonic() - began < 1


def test_the_process_is_described(tmp_path: Path) -> None:
    me = psutil.Process()
    facts = {"pid": me.pid, "start_time": me.create_time(), "status": "running"}

    process = take(tmp_path, state=state_of(process=facts))["process"]

    assert process["pid"] == me.pid
    assert process["rss_bytes"] > 0
    assert process["threads"] >= 1
    assert process["handles"] >= 3


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (None, "the exporter found no process"),
        ({"pid": os.getpid(), "start_time": 1.0}, "another one by now"),
        ({"pid": 2**22 + 1, "start_time": 1.0}, "the process is gone"),
        ({"pid": "x"}, "cannot be read"),
    ],
)
def test_a_process_that_cannot_be_described_says_why(tmp_path: Path, facts: Any, reason: str) -> None:
    assert reason in take(tmp_path, state=state_of(process=facts))["process"]["missing"]


def test_a_part_that_fails_by_itself_is_counted_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode() -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("remediator.evidence.os.getloadavg", explode)
    write_log(tmp_path, "last words\n")
    faults: list[int] = []

    found = take(tmp_path, on_fault=lambda: faults.append(1))

    assert found["host"] == {"missing": "cannot be read: RuntimeError: ours"}
    assert found["log shop.log"]["lines"] == ["last words"]
    assert faults == [1]
    assert "the evidence has no host" in caplog.text


def test_the_last_observations_are_there_and_redacted(tmp_path: Path) -> None:
    failure = {"at": 1.0, "reason": "status", "detail": "500 tok" + "en=hunter2"}
    probes = {"http": {"last": failure, "recent": [failure] * 100, "failures": [failure] * 100}}

    found = take(tmp_path, state=state_of(probes=probes))["observations"]

    assert found["status"] == "down"
    assert found["probes"]["http"]["last"]["detail"] == "500 token=***"
    assert len(found["probes"]["http"]["failures"]) <= 10


def test_an_exporter_that_did_not_answer_is_told(tmp_path: Path) -> None:
    assert take(tmp_path)["observations"] == {"missing": "the connection was refused"}


def test_the_host_is_described(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    host = take(tmp_path)["host"]

    assert host["memory_available_bytes"] > 0
    assert host["disk_free_bytes"] > 0


def test_it_stays_small_whatever_comes(tmp_path: Path) -> None:
    write_log(tmp_path, ("x" * 3000 + "\n") * 500)
    for number in range(6):
        (tmp_path / f"{number}.log").write_text(("\x00\x1b" * 400 + "\n") * 500)
    huge = {
        f"probe{n}": {"last": {"detail": "y" * 10_000}, "recent": [{"d": "z" * 999}] * 50} for n in range(50)
    }

    found = take(tmp_path, Service(logs=tuple(f"{n}.log" for n in range(6))), state_of(probes=huge))

    assert found["host"]["cpus"]  # take() holds the size


@pytest.mark.parametrize("state", [{}, {"services": None}, {"services": {"shop": 3}}, state_of(probes=7)])
def test_a_strange_answer_of_the_exporter_breaks_nothing(tmp_path: Path, state: Any) -> None:
    assert "missing" in take(tmp_path, state=state)["observations"]


def test_what_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
    import threading  # noqa: PLC0415 - here only

    release, done = threading.Event(), threading.Event()

    def hang(_: Path) -> dict[str, Any]:
        release.wait(30)
        done.set()
        return {}

    monkeypatch.setattr("remediator.evidence._host", hang)
    began = time.monotonic()

    found = take(tmp_path, deadline_seconds=0.2)

    assert time.monotonic() - began < 1
    assert found["host"] == {"missing": "not read in time"}
    assert found["observations"] == {"missing": "the connection was refused"}
    release.set()
    until(done.is_set)
