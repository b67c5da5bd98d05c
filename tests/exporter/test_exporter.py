"""The exporter as a whole, in this process, on real services."""

import asyncio
import logging
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter import scheduler as scheduling
from exporter.app import Exporter, make_app
from exporter.config import WatchConfig
from exporter.loading import load_config
from exporter.scheduler import Scheduler

Client = TestClient[Any, Any]
Start = Callable[[Mapping[str, Any]], Awaitable[Client]]
RHYTHM = {"interval": "200ms", "interval_on_failure": "50ms", "timeout": "500ms", "fast_path": False}


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "soulfra.yml"


@pytest.fixture
async def start(config_file: Path) -> AsyncIterator[Start]:
    """Start an exporter on a configuration; its quick rhythm can be overridden."""
    clients: list[tuple[Client, Exporter]] = []

    async def begin(config: Mapping[str, Any]) -> Client:
        config = {**config, "exporter": {**RHYTHM, **config.get("exporter", {})}}
        write(config_file, config)
        exporter = Exporter(config_file, load_config(config_file, WatchConfig), "127.0.0.1:1")
        client: Client = TestClient(TestServer(make_app(exporter)))
        await client.start_server()
        await exporter.start()
        clients.append((client, exporter))
        return client

    yield begin
    for client, exporter in clients:
        await exporter.stop()
        await client.close()


def write(file: Path, config: Mapping[str, Any]) -> None:
    file.write_text(yaml.safe_dump(dict(config)))


async def get(client: Client, path: str) -> Any:
    async with client.get(path) as answer:
        return await answer.json()


async def metrics(client: Client) -> dict[str, float]:
    async with client.get("/metrics") as answer:
        text = await answer.text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def status_is(client: Client, target: str, wanted: str) -> Callable[[], Awaitable[Any]]:
    async def look() -> Any:
        service = (await get(client, "/state"))["services"][target]
        return service if service["status"] == wanted else None

    return look


def shop(port: int) -> dict[str, Any]:
    return {"probes": [{"http": f"http://127.0.0.1:{port}/"}], "process": {"port": port}}


async def test_a_killed_process_is_down_at_once_and_up_again_with_its_successor(
    start: Start, serve: Callable[[int], Any], free_port: Callable[[], int], until: Any
) -> None:
    port = free_port()
    server = serve(port)
    # The interval is far away: only the kernel can tell of the end in time.
    client = await start({"services": {"shop": shop(port)}, "exporter": {"interval": "60s"}})
    up = await until(status_is(client, "shop", "up"))

    killed = time.time()
    server.kill()
    down = await until(status_is(client, "shop", "down"))
    serve(port)
    again = await until(status_is(client, "shop", "up"))

    assert up["process"]["status"] == "running"
    assert down["since"] - killed < 0.3
    assert (down["failing"]["probe"], down["failing"]["reason"]) == ("process", "gone")
    assert down["process"]["status"] == "gone"
    assert again["process"]["pid"] != server.pid


async def test_a_stopped_process_is_down_by_the_timeouts_of_its_network_probe(
    start: Start, serve: Callable[[int], Any], free_port: Callable[[], int], until: Any
) -> None:
    port = free_port()
    server = serve(port)
    client = await start({"services": {"shop": shop(port)}})
    await until(status_is(client, "shop", "up"))

    server.send_signal(signal.SIGSTOP)
    down = await until(status_is(client, "shop", "down"))
    server.send_signal(signal.SIGCONT)
    await until(status_is(client, "shop", "up"))

    assert (down["failing"]["probe"], down["failing"]["reason"]) == ("http", "timeout")
    assert down["process"]["status"] == "stopped"


async def test_state_has_the_keys_that_others_read(
    start: Start, serve: Callable[[int], Any], free_port: Callable[[], int], until: Any
) -> None:
    port = free_port()
    serve(port)
    edge = {"from": "shop", "to": "shop", "probe": {"tcp": f"127.0.0.1:{port}"}}
    client = await start({"services": {"shop": shop(port)}, "integrations": [edge]})
    await until(status_is(client, "shop", "up"))

    state = await get(client, "/state?target=shop")

    assert set(state) == {
        *("at", "started_at", "ready", "prober_blind", "version", "services", "integrations"),
    }
    service = state["services"]["shop"]
    assert set(service) == {
        *("status", "since", "slow", "response_time", "failing", "trouble", "process", "probes"),
    }
    assert set(service["process"]) == {
        *("pid", "start_time", "status", "cpu_seconds", "resident_bytes", "open_fds", "max_fds", "threads"),
    }
    probe = service["probes"]["http"]
    assert set(probe) == {
        *("healthy", "interval", "last", "last_success", "last_failure", "recent", "failures"),
    }
    assert set(probe["last"]) == {"at", "healthy", "seconds", "reason", "detail"}
    assert set(state["integrations"][0]) == {
        *("source", "destination", "healthy", "reason", "detail", "response_time", "at"),
    }
    assert abs(probe["last"]["at"] - time.time()) < 60


async def test_state_of_an_unknown_target_is_404(start: Start) -> None:
    client = await start({"services": {}})

    async with client.get("/state?target=nobody") as answer:
        assert answer.status == 404


async def test_a_check_probes_now_and_says_which_targets_nobody_knows(
    start: Start, serve: Callable[[int], Any], free_port: Callable[[], int], until: Any
) -> None:
    port = free_port()
    server = serve(port)
    client = await start(
        {
            "services": {"shop": {"probes": shop(port)["probes"]}, "bare": {}},
            "exporter": {"interval": "60s"},
        }
    )
    await until(status_is(client, "shop", "up"))
    query = "/check?target=shop&target=bare&target=nobody"
    healthy = await get(client, query)
    server.kill()
    server.wait()
    # A check joins a run that began a moment ago; after that moment it sees the truth.
    hurt = await until(lambda: unhealthy(client, query))

    assert healthy["results"]["shop"]["healthy"] is True
    assert healthy["results"]["shop"]["status"] == "up"
    assert healthy["results"]["bare"]["healthy"] is False  # no evidence is not health
    assert healthy["results"]["nobody"] == {"known": False, "healthy": False}
    assert hurt["results"]["shop"]["reason"] == "connect_refused"
    assert set(hurt["results"]["shop"]) == {
        *("known", "healthy", "status", "since", "recovered_at", "slow", "reason", "detail"),
        *("response_time", "process", "trouble"),
    }


async def unhealthy(client: Client, query: str) -> Any:
    answer = await get(client, query)
    return None if answer["results"]["shop"]["healthy"] else answer


@pytest.mark.parametrize("query", ["", "&".join(f"target=t{number}" for number in range(51))])
async def test_a_check_of_nothing_or_of_too_much_is_400(start: Start, query: str) -> None:
    client = await start({"services": {}})

    async with client.get(f"/check?{query}") as answer:
        assert answer.status == 400


async def test_concurrent_checks_share_one_run(
    start: Start, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections, asked = 0, 0
    go_on = asyncio.Event()
    check = Scheduler.check

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections > 1:
            await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async def counted(scheduler: Scheduler, *given: Any, **named: Any) -> Any:
        nonlocal asked
        asked += 1
        return await check(scheduler, *given, **named)

    monkeypatch.setattr(Scheduler, "check", counted)
    monkeypatch.setattr(scheduling, "JOIN_WITHIN", 60.0)  # however slow the machine is
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        probes = shop(server.sockets[0].getsockname()[1])["probes"]
        section = {"interval": "60s", "timeout": "30s"}
        client = await start({"services": {"shop": {"probes": probes}}, "exporter": section})
        await until(status_is(client, "shop", "up"))
        checks = [asyncio.create_task(get(client, "/check?target=shop")) for _ in range(20)]
        await until(lambda: asked == 20 and connections == 2)
        go_on.set()
        await asyncio.gather(*checks)

    assert connections == 2


def lint(promtool: str, text: str) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [promtool, "check", "metrics"], check=False, input=text.encode(), capture_output=True
    )
    return done.returncode, done.stdout, done.stderr


def names_in(parse: Callable[[str], Any], text: str) -> set[str]:
    return {family.name for family in parse(text)}


async def test_metrics_are_clean_and_complete(
    start: Start,
    serve: Callable[[int], Any],
    free_port: Callable[[], int],
    binary: Callable[[str], str],
    until: Any,
) -> None:
    port = free_port()
    serve(port)
    dead = {"probes": [{"tcp": f"127.0.0.1:{free_port()}"}], "host": 'a"b\\c'}
    edge = {"from": "shop", "to": "dead", "probe": {"tcp": f"127.0.0.1:{port}"}}
    client = await start({"services": {"shop": shop(port), "dead": dead}, "integrations": [edge]})
    await until(status_is(client, "shop", "up"))
    await until(status_is(client, "dead", "down"))

    async with client.get("/metrics") as answer:
        text = await answer.text()
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    async with client.get("/metrics", headers=accept) as answer:
        openmetrics = await answer.text()
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")

    assert lint(binary("promtool"), text) == (0, b"", b"")
    names = names_in(parse_text, text)
    assert names == names_in(parse_openmetrics, openmetrics)
    assert names >= {f"soulfra_{name}" for name in EXPECTED}
    assert names >= OWN_PROCESS
    values = await metrics(client)
    assert values['soulfra_service_up{target="shop"}'] == 1
    assert values['soulfra_service_up{target="dead"}'] == 0
    assert values['soulfra_probe_failures_total{target="shop",probe="http",reason="timeout"}'] == 0
    path = '{source="shop",destination="dead"}'
    assert values[f"soulfra_dependency_last_success_timestamp_seconds{path}"] == pytest.approx(
        time.time(), abs=60
    )
    assert values[f"soulfra_dependency_timeout_seconds{path}"] == 0.5
    assert values["process_resident_memory_bytes"] > 10_000_000
    assert values["process_open_fds"] > 3
    assert [value for name, value in values.items() if name.startswith("python_info{")] == [1]
    assert values['soulfra_probe_failures_total{target="dead",probe="tcp",reason="connect_refused"}'] >= 2
    assert values['soulfra_dependency_success{source="shop",destination="dead"}'] == 1
    assert values['soulfra_process_num_procs{target="shop"}'] == 1
    assert values['soulfra_exporter_internal_errors_total{place="probe"}'] == 0


EXPECTED = (
    "service_up",
    "probe_success",
    "probe_attempts",
    "probe_failures",
    "probe_unconfirmed_failures",
    "probe_duration_seconds",
    "probe_phase_duration_seconds",
    "probe_last_run_timestamp_seconds",
    "probe_last_success_timestamp_seconds",
    "probe_interval_seconds",
    "probe_timeout_seconds",
    "probe_tls_not_after_timestamp_seconds",
    "probe_timeout_threshold_seconds",
    "service_error_threshold",
    "target_info",
    "process_cpu_seconds",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_threads",
    "process_start_time_seconds",
    "process_num_procs",
    "dependency_success",
    "dependency_attempts",
    "dependency_failures",
    "dependency_duration_seconds",
    "dependency_last_run_timestamp_seconds",
    "dependency_last_success_timestamp_seconds",
    "dependency_interval_seconds",
    "dependency_timeout_seconds",
    "prober_blind",
    "exporter_build_info",
    "exporter_config_last_reload_successful",
    "exporter_config_last_reload_success_timestamp_seconds",
    "exporter_targets",
    "exporter_probes_in_progress",
    "exporter_schedule_lag_seconds",
    "exporter_event_loop_lag_seconds",
    "exporter_probes_skipped",
    "exporter_fast_path_posts",
    "exporter_fast_path_failures",
    "exporter_internal_errors",
)


OWN_PROCESS = {
    *("process_cpu_seconds", "process_resident_memory_bytes", "process_virtual_memory_bytes"),
    *("process_start_time_seconds", "process_open_fds", "process_max_fds", "python_info"),
}


async def test_an_unknown_service_has_no_up_sample(start: Start) -> None:
    client = await start({"services": {"bare": {}}})

    values = await metrics(client)

    assert not [name for name in values if name.startswith("soulfra_service_up")]
    assert values["soulfra_exporter_targets"] == 1


async def test_probe_speaks_blackbox(
    start: Start, serve: Callable[[int], Any], free_port: Callable[[], int], until: Any
) -> None:
    port = free_port()
    serve(port)
    dead = {"probes": [{"tcp": f"127.0.0.1:{free_port()}"}]}
    client = await start({"services": {"shop": shop(port), "dead": dead}})
    await until(status_is(client, "shop", "up"))

    async with client.get("/probe?target=shop") as answer:
        good = await answer.text()
    async with client.get("/probe?target=dead") as answer:
        assert answer.status == 200
        bad = await answer.text()
    async with client.get("/probe?target=nobody") as answer:
        assert answer.status == 400

    assert "\nprobe_success 1\n" in good
    assert "\nprobe_http_status_code 200\n" in good
    assert "\nprobe_success 0\n" in bad
    assert 'probe_failure_info{probe="tcp",reason="connect_refused"} 1' in bad


async def test_probe_answers_within_the_scrape_timeout(
    start: Start, serve: Callable[[int], Any], free_port: Callable[[], int], until: Any
) -> None:
    port = free_port()
    server = serve(port)
    service = {"probes": [{"http": f"http://127.0.0.1:{port}/", "timeout": "10s"}]}
    client = await start({"services": {"shop": service}})
    await until(status_is(client, "shop", "up"))
    server.send_signal(signal.SIGSTOP)

    started = time.monotonic()
    header = {"X-Prometheus-Scrape-Timeout-Seconds": "0.5"}
    async with client.get("/probe?target=shop", headers=header) as answer:
        text = await answer.text()

    assert time.monotonic() - started < 3
    assert "\nprobe_success 0\n" in text
    assert 'probe_failure_info{probe="http",reason="timeout"} 1' in text


async def test_probe_keeps_what_answered_before_the_scrape_timeout(
    start: Start, serve: Callable[[int], Any], free_port: Callable[[], int], until: Any
) -> None:
    answering, hanging = free_port(), free_port()
    serve(answering)
    hung = serve(hanging)
    probes = [
        {"http": f"http://127.0.0.1:{answering}/", "name": "quick"},
        {"http": f"http://127.0.0.1:{hanging}/", "name": "late", "timeout": "10s"},
    ]
    client = await start({"services": {"shop": {"probes": probes}}, "exporter": {"interval": "60s"}})
    await until(status_is(client, "shop", "up"))
    hung.send_signal(signal.SIGSTOP)

    header = {"X-Prometheus-Scrape-Timeout-Seconds": "0.5"}
    async with client.get("/probe?target=shop", headers=header) as answer:
        text = await answer.text()
    hung.send_signal(signal.SIGCONT)

    assert "\nprobe_success 0\n" in text
    assert "\nprobe_http_status_code 200\n" in text
    assert 'probe_failure_info{probe="late",reason="timeout"} 1' in text
    assert 'probe="quick"' not in text

    async def recorded() -> bool:
        probe = (await get(client, "/state"))["services"]["shop"]["probes"]["late"]
        return len(probe["recent"]) >= 2

    await until(recorded)  # the scraper has gone, what was begun is seen to its end


async def test_ready_only_after_every_probe_has_run(
    start: Start, serve: Callable[[int], Any], free_port: Callable[[], int], until: Any
) -> None:
    port = free_port()
    serve(port).send_signal(signal.SIGSTOP)
    client = await start({"services": {"shop": {"probes": shop(port)["probes"]}}})

    async def code(path: str) -> int:
        async with client.get(path) as answer:
            return answer.status

    assert (await code("/-/ready"), await code("/-/healthy")) == (503, 200)

    async def ready() -> bool:
        return await code("/-/ready") == 200

    await until(ready)


async def test_reload_drops_removed_targets_and_keeps_what_is_known_of_the_others(
    start: Start,
    serve: Callable[[int], Any],
    free_port: Callable[[], int],
    until: Any,
    config_file: Path,
) -> None:
    port = free_port()
    serve(port)
    client = await start({"services": {"shop": shop(port), "old": shop(port)}})
    before = await until(status_is(client, "shop", "up"))
    write(config_file, {"exporter": RHYTHM, "services": {"shop": shop(port), "new": shop(port)}})

    async with client.post("/-/reload") as answer:
        assert answer.status == 200
    after = (await get(client, "/state"))["services"]

    assert set(after) == {"shop", "new"}
    assert (after["shop"]["status"], after["shop"]["since"]) == ("up", before["since"])
    assert 'target="old"' not in "".join(await metrics(client))
    await until(status_is(client, "new", "up"))


async def test_a_reload_with_mistakes_changes_nothing_and_names_them_all(
    start: Start, config_file: Path
) -> None:
    client = await start({"services": {"shop": {}}})
    write(config_file, {"services": {"a": {"probs": []}, "b": {"process": {}}}})

    async with client.post("/-/reload") as answer:
        assert answer.status == 400
        mistakes = (await answer.json())["mistakes"]

    assert len(mistakes) == 2
    assert "services.a.probs: unknown key" in mistakes[0]
    assert set((await get(client, "/state"))["services"]) == {"shop"}
    assert (await metrics(client))["soulfra_exporter_config_last_reload_successful"] == 0


async def test_a_reload_that_fails_by_itself_is_told_and_counted(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = await start({"services": {"shop": {}}})

    def faulty(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("exporter.app.load_config", faulty)
    caplog.set_level(logging.CRITICAL)

    async with client.post("/-/reload") as answer:
        assert answer.status == 500
    values = await metrics(client)

    assert values['soulfra_exporter_internal_errors_total{place="reload"}'] == 1
    assert values["soulfra_exporter_config_last_reload_successful"] == 0


async def test_a_signal_to_reload_that_fails_by_itself_is_in_the_log(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(config_file, {})
    exporter = Exporter(config_file, load_config(config_file, WatchConfig), "127.0.0.1:1")

    def faulty(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("exporter.app.load_config", faulty)
    await exporter.reload_by_signal()

    assert exporter.counters.internal_errors["reload"] == 1
    assert "the configuration could not be applied" in caplog.text


GUARDED = (("POST", "/-/reload"), ("GET", "/check?target=shop"), ("GET", "/probe?target=shop"))
READ = ("/", "/metrics", "/state", "/-/healthy", "/-/ready")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "[::2]:1", ""])
@pytest.mark.parametrize(("method", "path"), [*GUARDED, *(("GET", path) for path in READ)])
async def test_a_name_that_only_foreign_dns_leads_here_is_refused(
    start: Start, method: str, path: str, host: str
) -> None:
    client = await start({"services": {"shop": {}}})

    async with client.request(method, path, headers={"Host": host}) as answer:
        assert answer.status == 403
        assert await answer.json() == {"error": "only this machine's own names are served"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9877", "[::1]:9877", "[::1]"])
async def test_the_names_of_this_machine_are_served(start: Start, host: str) -> None:
    client = await start({"services": {"shop": {}}})

    for method, path in GUARDED:
        own = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        async with client.request(method, path, headers=own) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:1"},  # another program's page on this machine
        {"Sec-Fetch-Site": "cross-site"},  # an image or a script of a page: browsers send no Origin then
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_foreign_page_starts_and_changes_nothing(start: Start, headers: Mapping[str, str]) -> None:
    client = await start({"services": {"shop": {}}})
    before = (await metrics(client))["soulfra_exporter_config_last_reload_success_timestamp_seconds"]

    for method, path in GUARDED:
        async with client.request(method, path, headers=headers) as answer:
            assert answer.status == 403
    async with client.get("/metrics", headers=headers) as answer:
        assert answer.status == 200

    after = (await metrics(client))["soulfra_exporter_config_last_reload_success_timestamp_seconds"]
    assert after == before


async def test_reload_is_post_only(start: Start) -> None:
    client = await start({"services": {}})

    async with client.get("/-/reload") as answer:
        assert answer.status == 405


async def test_the_page_shows_targets_and_escapes_what_services_say(
    start: Start, serve: Callable[[int], Any], free_port: Callable[[], int], until: Any
) -> None:
    port = free_port()
    serve(port)
    probe = {"http": f"http://127.0.0.1:{port}/", "expect": {"json": {"status": "<b>"}}}
    client = await start({"services": {"shop": {"probes": [probe]}}})
    await until(status_is(client, "shop", "down"))

    async with client.get("/") as answer:
        page = await answer.text()

    assert "shop" in page
    assert 'href="/metrics"' in page
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


async def test_most_targets_failing_at_once_is_told_as_blindness(
    start: Start, free_port: Callable[[], int], until: Any
) -> None:
    services = {f"s{number}": {"probes": [{"tcp": f"127.0.0.1:{free_port()}"}]} for number in range(4)}
    client = await start({"services": services})
    await until(status_is(client, "s0", "down"))

    checked = await get(client, "/check?target=s0&peers=true")

    assert checked["prober_blind"] is True
    assert (await metrics(client))["soulfra_prober_blind"] == 1


async def test_a_fault_of_a_probe_itself_is_counted_and_never_makes_a_service_down(
    start: Start, monkeypatch: pytest.MonkeyPatch, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def faulty(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("exporter.probes.tcp.probe", faulty)
    caplog.set_level(logging.CRITICAL)
    client = await start({"services": {"shop": {"probes": [{"tcp": "127.0.0.1:1"}]}}})
    counted = 'soulfra_exporter_internal_errors_total{place="probe"}'

    async def faults() -> bool:
        return (await metrics(client))[counted] >= 5

    await until(faults)
    service = (await get(client, "/state"))["services"]["shop"]
    checked = (await get(client, "/check?target=shop"))["results"]["shop"]
    values = await metrics(client)

    assert (service["status"], service["failing"]) == ("unknown", None)
    assert service["probes"]["tcp"]["last"]["reason"] == "internal"
    assert (checked["healthy"], checked["reason"]) == (None, "internal")
    assert values['soulfra_probe_failures_total{target="shop",probe="tcp",reason="internal"}'] >= 5
    assert values["soulfra_prober_blind"] == 0


async def test_a_real_failure_is_told_before_a_fault_of_our_own(
    start: Start,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def faulty(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("exporter.probes.tcp.probe", faulty)
    caplog.set_level(logging.CRITICAL)
    client = await start(
        {"services": {"shop": {"probes": [{"tcp": "127.0.0.1:1"}], "process": {"port": free_port()}}}}
    )

    checked = (await get(client, "/check?target=shop"))["results"]["shop"]

    assert (checked["healthy"], checked["reason"]) == (False, "gone")


async def test_concurrency_is_bounded_and_what_had_to_wait_is_counted(
    start: Start, serve: Callable[[int], Any], free_port: Callable[[], int], until: Any
) -> None:
    port = free_port()
    serve(port).send_signal(signal.SIGSTOP)
    services = {f"s{number}": {"probes": shop(port)["probes"]} for number in range(4)}
    client = await start({"services": services, "exporter": {"concurrency": 1}})

    async def skipped() -> bool:
        values = await metrics(client)
        assert values["soulfra_exporter_probes_in_progress"] <= 1
        return values['soulfra_exporter_probes_skipped_total{reason="concurrency"}'] > 0

    await until(skipped)


async def test_a_full_disk_is_told_and_its_service_stays_up(
    start: Start, serve: Callable[[int], Any], free_port: Callable[[], int], until: Any, tmp_path: Path
) -> None:
    port = free_port()
    serve(port)
    disk = {"filesystem": str(tmp_path), "name": "disk", "min_free": "100%"}
    client = await start({"services": {"db": {"probes": [{"tcp": f"127.0.0.1:{port}"}, disk]}}})
    series = 'soulfra_probe_trouble{target="db",probe="disk",problem="disk_full"}'

    async def told() -> bool:
        return (await metrics(client)).get(series) == 1

    await until(told)
    service = (await get(client, "/state"))["services"]["db"]
    checked = (await get(client, "/check?target=db"))["results"]["db"]
    values = await metrics(client)

    assert (service["status"], service["failing"]) == ("up", None)
    assert (service["trouble"]["problem"], service["trouble"]["reason"]) == ("disk_full", "limit")
    assert (checked["healthy"], checked["trouble"]["probe"]) == (True, "disk")
    assert values['soulfra_service_up{target="db"}'] == 1
    assert values['soulfra_probe_success{target="db",probe="disk"}'] == 0


async def test_a_service_beside_an_engine_that_cannot_be_asked_is_up_and_healthy(
    start: Start, serve: Callable[[int], Any], free_port: Callable[[], int], until: Any, tmp_path: Path
) -> None:
    port = free_port()
    serve(port)
    box = {"container": "shop", "engine": f"unix://{tmp_path}/no-engine.sock"}
    client = await start({"services": {"shop": {"probes": [{"tcp": f"127.0.0.1:{port}"}, box]}}})

    await until(status_is(client, "shop", "up"))
    checked = (await get(client, "/check?target=shop"))["results"]["shop"]

    assert (checked["healthy"], checked["reason"]) == (True, "internal")
