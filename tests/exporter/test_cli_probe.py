"""``soulfra probe`` as its own process: what it prints, and how it ends."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PASSWORD = "pass" + "word-1"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Write a configuration and run the command on it."""

    def start(config: Any, *arguments: str) -> "subprocess.CompletedProcess[str]":
        file = tmp_path / "soulfra.yml"
        file.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        argv = [sys.executable, "-m", "remediator.cli", "probe", *arguments, "--config", str(file)]
        return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)

    return start


@pytest.fixture
def port(free_port: Callable[[], int], serve: Callable[[int], object]) -> int:
    chosen = free_port()
    serve(chosen)
    return chosen


def shop(*probes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"services": {"shop": {"probes": list(probes), **more}}}


def test_a_healthy_service_ends_with_status_0_and_shows_each_step(run: Run, port: int) -> None:
    done = run(shop({"http": f"http://127.0.0.1:{port}/"}, process={"port": port}), "shop")

    assert (done.returncode, done.stderr) == (0, "")
    assert "probe http (http), gives up after 2 s\n" in done.stdout
    assert f"connecting to 127.0.0.1, port {port}\n" in done.stdout
    assert "answered 200" in done.stdout
    assert "probe process (process)" in done.stdout
    assert done.stdout.endswith("\nshop: healthy\n")


def test_one_failed_probe_ends_with_status_1_and_its_reason(
    run: Run, port: int, free_port: Callable[[], int]
) -> None:
    done = run(shop({"tcp": f"127.0.0.1:{port}"}, {"tcp": f"127.0.0.1:{free_port()}"}), "shop")

    assert done.returncode == 1
    assert "FAILED: connect_refused: connection refused" in done.stdout
    assert done.stdout.endswith("\nshop: NOT healthy, 1 of 2 probes failed\n")


def test_one_probe_of_several_can_be_chosen(run: Run, port: int, free_port: Callable[[], int]) -> None:
    config = shop(
        {"tcp": f"127.0.0.1:{port}", "name": "good"}, {"tcp": f"127.0.0.1:{free_port()}", "name": "bad"}
    )

    assert run(config, "shop", "--probe", "good").returncode == 0
    assert run(config, "shop", "--probe", "bad").returncode == 1


def test_json_has_everything_for_scripts(run: Run, port: int) -> None:
    done = run(shop({"http": f"http://127.0.0.1:{port}/", "expect": {"status": 204}}), "shop", "--json")

    seen = json.loads(done.stdout)
    http = seen["probes"]["http"]
    assert (done.returncode, seen["healthy"]) == (1, False)
    assert (http["kind"], http["healthy"], http["reason"], http["status"]) == ("http", False, "status", 200)
    assert http["detail"] == "answered 200, expected 204"
    assert {"connect", "processing"} <= set(http["phases"])
    assert all(set(step) == {"seconds", "text"} for step in http["steps"])


def test_a_module_asks_any_address_without_an_allow_list(run: Run, port: int) -> None:
    config = {"exporter": {"modules": {"plain": {"prober": "http"}}}}

    done = run(config, f"127.0.0.1:{port}", "--module", "plain")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"\n127.0.0.1:{port}: healthy\n")


def test_secrets_are_not_printed(run: Run, port: int) -> None:
    auth = {"username": "ann", "password": PASSWORD}
    config = shop(
        {"http": f"http://127.0.0.1:{port}/", "basic_auth": auth, "headers": {"X-Api-Key": PASSWORD}}
    )

    assert PASSWORD not in run(config, "shop").stdout
    assert PASSWORD not in run(config, "shop", "--json").stdout


@pytest.mark.parametrize(
    ("config", "arguments", "told"),
    [
        ("services: {a: {}}", ["b"], "there is no service 'b' in the configuration; services: a"),
        ("services: {a: {}}", ["a"], "a has nothing that watches it; probes: it has none"),
        (
            "services: {a: {probes: [{tcp: 'x:1'}]}}",
            ["a", "--probe", "b"],
            "a has no probe 'b'; probes: tcp",
        ),
        ("{}", ["x", "--module", "m"], "there is no module 'm' in the configuration; modules: there is none"),
        (
            "exporter: {modules: {m: {prober: tcp}}}",
            ["x", "--module", "m"],
            "'x' cannot be a target of prober tcp: must be HOST:PORT, for example 127.0.0.1:9877",
        ),
        ("{}", ["x", "--module", "m", "--probe", "p"], "leave one of them out"),
        ("exporter: {intervall: 5s}", ["a"], "exporter.intervall: unknown key"),
    ],
)
def test_a_mistake_in_the_question_ends_with_status_2(
    run: Run, config: str, arguments: list[str], told: str
) -> None:
    done = run(config, *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_configuration_that_is_not_there_is_told(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "remediator.cli", "probe", "a", "--config", str(tmp_path / "none.yml")]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert "cannot be read: No such file or directory" in done.stderr


def nothing_to_read(folder: Path) -> dict[str, str]:
    return {"http": "http://127.0.0.1:9/", "body_file": str(folder / "gone"), "method": "POST"}


def test_a_probe_that_cannot_look_leaves_the_verdict_open_with_status_2(
    run: Run, port: int, tmp_path: Path
) -> None:
    config = shop({"tcp": f"127.0.0.1:{port}"}, nothing_to_read(tmp_path))

    done = run(config, "shop")
    as_json = run(config, "shop", "--json")

    assert done.returncode == as_json.returncode == 2
    told = "cannot tell, 1 of 2 probes could not look; the service may be healthy"
    assert done.stdout.endswith(f"\nshop: {told}\n")
    seen = json.loads(as_json.stdout)
    assert seen["healthy"] is None
    assert [one["healthy"] for one in seen["probes"].values()] == [True, None]


def test_a_failure_counts_more_than_a_probe_that_cannot_look(
    run: Run, free_port: Callable[[], int], tmp_path: Path
) -> None:
    done = run(shop({"tcp": f"127.0.0.1:{free_port()}"}, nothing_to_read(tmp_path)), "shop")

    assert done.returncode == 1


def test_where_services_are_discovered_it_is_said_who_knows_them(run: Run, tmp_path: Path) -> None:
    source = {"name": "ag", "file_sd": {"files": ["a.yml"]}, "service": {"labels": {"a": "b"}}}

    done = run({**shop({"tcp": "127.0.0.1:9"}), "discovery": [source]}, "agent-one")

    assert done.returncode == 2
    assert "/probe?debug=true&target=agent-one" in done.stderr
