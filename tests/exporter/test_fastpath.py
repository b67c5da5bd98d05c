"""The fast path to a real Alertmanager, and past dead and blind ones."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any

import aiohttp
import pytest
import yaml

from exporter import fastpath
from exporter.app import Exporter
from exporter.config import WatchConfig
from exporter.counters import Counters
from exporter.loading import load_config
from exporter.publisher import alertmanagers_of

RHYTHM = {"interval": "200ms", "interval_on_failure": "50ms", "timeout": "500ms", "refresh": "300ms"}
SECRET = "open" + "sesame"  # built from pieces
NOBODY = "receivers: [{name: nobody}]\nroute: {receiver: nobody}\n"


@pytest.fixture
async def alertmanager(
    launch: Callable[..., Any],
    binary: Callable[[str], str],
    free_port: Callable[[], int],
    until: Any,
    tmp_path: Path,
) -> str:
    """Start a real Alertmanager and return its address."""
    config = tmp_path / "alertmanager.yml"
    config.write_text(NOBODY)
    address = f"127.0.0.1:{free_port()}"
    launch(
        binary("prometheus-alertmanager"),
        f"--config.file={config}",
        f"--storage.path={tmp_path / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    )

    async def ready() -> bool:
        try:
            async with aiohttp.request("GET", f"http://{address}/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    await until(ready)
    return f"http://{address}"


async def alerts(address: str) -> list[dict[str, Any]]:
    async with aiohttp.request("GET", f"{address}/api/v2/alerts") as answer:
        found: list[dict[str, Any]] = await answer.json()
        return found


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    exporters: list[Exporter] = []

    async def begin(services: dict[str, Any], **section: Any) -> Exporter:
        file = tmp_path / "soulfra.yml"
        config = {"exporter": {**RHYTHM, **section}, "services": services}
        file.write_text(yaml.safe_dump(config))
        exporter = Exporter(file, load_config(file, WatchConfig), "127.0.0.1:1")
        await exporter.start()
        exporters.append(exporter)
        return exporter

    yield begin
    for exporter in exporters:
        await exporter.stop()


def http(port: int) -> dict[str, Any]:
    return {"probes": [{"http": f"http://me:{SECRET}@127.0.0.1:{port}/?key={SECRET}"}]}


def another_look_at(port: int) -> dict[str, Any]:
    return {"probes": [{"http": f"http://127.0.0.1:{port}/another"}]}


async def test_a_service_that_is_down_is_told_at_once_refreshed_and_resolved(
    alertmanager: str,
    start: Callable[..., Any],
    serve: Callable[[int], Any],
    free_port: Callable[[], int],
    until: Any,
) -> None:
    port = free_port()
    dead = f"http://127.0.0.1:{free_port()}"
    exporter = await start({"shop": http(port)}, alertmanagers=[dead, alertmanager])

    [first] = await until(lambda: alerts(alertmanager))
    assert first["labels"] == {
        "alertname": "SoulfraServiceDown",
        "target": "shop",
        "problem": "service_down",
        "severity": "critical",
        "origin": "exporter",
    }
    assert "connect_refused" in first["annotations"]["description"]
    assert first["annotations"]["runbook_url"].endswith("/docs/runbooks/SoulfraServiceDown.md")
    assert first["generatorURL"].endswith("/state?target=shop")
    assert SECRET not in str(first)

    async def refreshed() -> bool:
        [alert] = await alerts(alertmanager)
        return bool(alert["endsAt"] > first["endsAt"] and alert["startsAt"] == first["startsAt"])

    await until(refreshed)
    serve(port)

    async def resolved() -> bool:
        return not await alerts(alertmanager)  # a resolved alert is not listed

    await until(resolved)
    # The dead Alertmanager held up nothing, and its failures were counted.
    assert exporter.counters.post_failures[dead] > 0
    assert exporter.counters.post_failures[alertmanager] == 0


async def test_an_alertmanager_that_comes_later_is_told_too(
    start: Callable[..., Any], free_port: Callable[[], int], until: Any
) -> None:
    taken: list[Any] = []

    async def take(request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        taken.extend(await request.json())
        return aiohttp.web.Response()

    port = free_port()
    exporter = await start({"shop": http(free_port())}, alertmanagers=[f"http://127.0.0.1:{port}"])
    await until(lambda: sum(exporter.counters.post_failures.values()) >= 2)
    runner = aiohttp.web.ServerRunner(aiohttp.web.Server(take), shutdown_timeout=0.1)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", port).start()

    await until(lambda: taken)
    await runner.cleanup()

    assert taken[0]["labels"]["target"] == "shop"


@pytest.fixture
async def stranger() -> AsyncIterator[Callable[..., Any]]:
    """Start an HTTP server that answers as told, and return its address."""
    runners: list[aiohttp.web.ServerRunner] = []

    async def begin(handle: Callable[..., Any]) -> str:
        runner = aiohttp.web.ServerRunner(aiohttp.web.Server(handle), shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    yield begin
    for runner in runners:
        await runner.cleanup()


async def test_an_alert_from_before_the_clock_was_set_back_is_taken_and_ended(
    alertmanager: str, until: Any
) -> None:
    counters = Counters()
    path = fastpath.FastPath([alertmanager], refresh=0.3, counters=counters)
    path.start()
    path.down(fastpath.Alert(target="shop", description="", starts_at=time() + 3600, link="http://x"))
    try:
        await until(lambda: alerts(alertmanager))
        path.up("shop")

        async def ended() -> bool:
            return not await alerts(alertmanager)

        await until(ended)
    finally:
        await path.stop()

    assert counters.post_failures.total() == 0


async def test_a_redirect_is_a_failure_and_is_not_followed(
    stranger: Callable[..., Any], start: Callable[..., Any], free_port: Callable[[], int], until: Any
) -> None:
    asked: list[tuple[str, str]] = []

    async def redirect(request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        asked.append((request.method, request.path))
        if request.path == "/login":
            return aiohttp.web.Response()
        return aiohttp.web.Response(status=302, headers={"Location": "/login"})

    address = await stranger(redirect)
    exporter = await start({"shop": http(free_port())}, alertmanagers=[address])

    await until(lambda: exporter.counters.post_failures[address] >= 2)

    assert set(asked) == {("POST", "/api/v2/alerts")}


async def test_a_fault_of_our_own_in_a_post_is_counted_and_does_not_end_the_sending(
    *,
    alertmanager: str,
    start: Callable[..., Any],
    free_port: Callable[[], int],
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    true_payload = fastpath.payload_of
    faults = [ZeroDivisionError(), UnicodeError()]

    def faulty(*arguments: Any) -> dict[str, Any]:
        if faults:
            raise faults.pop()
        return true_payload(*arguments)

    monkeypatch.setattr(fastpath, "payload_of", faulty)
    exporter = await start({"shop": http(free_port())}, alertmanagers=[alertmanager])

    await until(lambda: alerts(alertmanager))

    assert exporter.counters.internal_errors["fast_path"] == 2
    assert exporter.counters.post_failures[alertmanager] == 2
    assert "failed by itself" in caplog.text


async def test_a_reload_does_not_resolve_the_alert_of_a_service_that_is_still_down(
    *,
    stranger: Callable[..., Any],
    start: Callable[..., Any],
    serve: Callable[[int], Any],
    free_port: Callable[[], int],
    until: Any,
    tmp_path: Path,
) -> None:
    sent: list[dict[str, Any]] = []

    async def take(request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        sent.extend(await request.json())
        return aiohttp.web.Response()

    def resolved() -> list[dict[str, Any]]:
        return [alert for alert in sent if datetime.fromisoformat(alert["endsAt"]) <= datetime.now(UTC)]

    port = free_port()
    address = await stranger(take)
    exporter = await start({"shop": http(port)}, alertmanagers=[address])
    await until(lambda: sent)
    section = {**RHYTHM, "interval": "150ms", "confirm": 20, "alertmanagers": [address]}
    (tmp_path / "soulfra.yml").write_text(
        yaml.safe_dump({"exporter": section, "services": {"shop": another_look_at(port)}})
    )

    await exporter.reload()
    assert exporter.world.services["shop"].verdict == "unknown"
    before = len(sent)
    await until(lambda: len(sent) >= before + 2)  # refreshed while nothing is known
    assert resolved() == []

    await asyncio.to_thread(serve, port)
    await until(resolved)


@pytest.mark.parametrize("services", [{}, {"shop": {}}])
async def test_a_service_that_is_watched_no_more_is_resolved(
    *,
    alertmanager: str,
    start: Callable[..., Any],
    free_port: Callable[[], int],
    until: Any,
    tmp_path: Path,
    services: dict[str, Any],
) -> None:
    exporter = await start({"shop": http(free_port())}, alertmanagers=[alertmanager])
    await until(lambda: alerts(alertmanager))
    section = {**RHYTHM, "alertmanagers": [alertmanager]}
    (tmp_path / "soulfra.yml").write_text(yaml.safe_dump({"exporter": section, "services": services}))

    await exporter.reload()

    async def resolved() -> bool:
        return not await alerts(alertmanager)

    await until(resolved)


async def test_a_standing_alert_goes_to_an_alertmanager_that_a_reload_names(
    alertmanager: str, start: Callable[..., Any], free_port: Callable[[], int], until: Any, tmp_path: Path
) -> None:
    port = free_port()
    nobody = f"http://127.0.0.1:{free_port()}"
    exporter = await start({"shop": http(port)}, alertmanagers=[nobody])
    await until(lambda: sum(exporter.counters.post_failures.values()))

    # The first reload changes the probe, after which nothing is known of the service for long.
    for section in ({"alertmanagers": [nobody]}, {"alertmanagers": [alertmanager]}):
        exporting = {**RHYTHM, "interval": "60s", "interval_on_failure": "60s", **section}
        config = {"exporter": exporting, "services": {"shop": another_look_at(port)}}
        (tmp_path / "soulfra.yml").write_text(yaml.safe_dump(config))
        await exporter.reload()
    assert exporter.world.services["shop"].verdict == "unknown"

    await until(lambda: alerts(alertmanager))


async def test_where_alerts_go_is_logged_at_the_start_without_secrets(
    start: Callable[..., Any], free_port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, second = free_port(), free_port()
    addresses = [f"http://me:{SECRET}@127.0.0.1:{first}?key={SECRET}", f"http://127.0.0.1:{second}"]

    await start({}, alertmanagers=addresses)

    assert f"fast path: alerts go to http://127.0.0.1:{first}, http://127.0.0.1:{second}" in caplog.text
    assert SECRET not in caplog.text


async def test_nothing_is_published_while_most_targets_fail_at_once(
    alertmanager: str, start: Callable[..., Any], free_port: Callable[[], int], until: Any
) -> None:
    services = {f"s{number}": http(free_port()) for number in range(5)}
    exporter = await start(services, alertmanagers=[alertmanager])

    await until(lambda: all(state.verdict == "down" for state in exporter.world.services.values()))
    await until(lambda: len(exporter.publisher.withheld) == 5)

    assert await alerts(alertmanager) == []
    assert sum(exporter.counters.posts.values()) == 0


async def test_what_was_withheld_is_published_once_the_others_are_seen_again(
    alertmanager: str,
    start: Callable[..., Any],
    serve: Callable[[int], Any],
    free_port: Callable[[], int],
    until: Any,
) -> None:
    ports = [free_port() for _ in range(4)]
    exporter = await start(
        {f"s{number}": http(port) for number, port in enumerate(ports)}, alertmanagers=[alertmanager]
    )
    await until(lambda: len(exporter.publisher.withheld) == 4)

    for port in ports[1:]:
        await asyncio.to_thread(serve, port)

    async def told() -> bool:
        return [alert["labels"]["target"] for alert in await alerts(alertmanager)] == ["s0"]

    await until(told)


async def test_one_of_several_services_is_published_because_its_peers_answer(
    alertmanager: str,
    start: Callable[..., Any],
    serve: Callable[[int], Any],
    free_port: Callable[[], int],
    until: Any,
) -> None:
    port = free_port()
    serve(port)
    services = {"dead": http(free_port()), **{f"s{number}": http(port) for number in range(4)}}
    await start(services, alertmanagers=[alertmanager])

    found = await until(lambda: alerts(alertmanager))

    assert [alert["labels"]["target"] for alert in found] == ["dead"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ("http://127.0.0.1:9093",)),
        ({"alertmanager": {}}, ("http://127.0.0.1:9093",)),
        ({"alertmanager": {"listen": "127.0.0.1:1"}}, ("http://127.0.0.1:1",)),
        ({"alertmanager": ["not", "a", "section"]}, ("http://127.0.0.1:9093",)),
        ({"exporter": {"fast_path": False}}, ()),
        (
            {"exporter": {"alertmanagers": ["http://a:1"]}, "alertmanager": {"listen": "127.0.0.1:1"}},
            ("http://a:1",),
        ),
        ({"exporter": {"fast_path": False, "alertmanagers": ["http://a:1"]}}, ()),
    ],
)
def test_alerts_go_where_the_configuration_says(config: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert alertmanagers_of(WatchConfig.model_validate(config)) == expected


async def test_an_alertmanager_that_is_not_there_is_told_in_words(
    start: Callable[..., Any], free_port: Callable[[], int], until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await start({"shop": http(free_port())}, alertmanagers=[f"http://127.0.0.1:{free_port()}"])

    async def told() -> list[str]:
        return [message for message in caplog.messages if "does not take alerts" in message]

    [message] = await until(told)
    assert message.endswith("does not take alerts: connection refused")
