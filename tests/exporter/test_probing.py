"""``/probe`` by modules: who may ask what, what the answer says, and what it never gives away."""

import asyncio
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from exporter.app import Exporter, make_app
from exporter.config import WatchConfig
from exporter.loading import load_config
from exporter.observation import Observation
from exporter.probes import file as file_probe
from exporter.probes.resolver import Resolver
from exporter.scheduler import Scheduler

Client = TestClient[Any, Any]
Start = Callable[..., Awaitable[Client]]
Until = Callable[..., Awaitable[object]]
PASSWORD, TOKEN = "pass" + "word-1", "token-" + "abc-1"
HTTP = {"prober": "http", "timeout": "2s"}
LOOPBACK = ["127.0.0.1"]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    clients: list[tuple[Client, Exporter]] = []

    async def begin(
        modules: Mapping[str, Any] | None = None,
        allow: list[str] | None = None,
        services: Mapping[str, Any] | None = None,
        **section: Any,
    ) -> Client:
        given = {"fast_path": False, "modules": dict(modules or {}), "allow_targets": allow or [], **section}
        file = tmp_path / "soulfra.yml"
        file.write_text(yaml.safe_dump({"exporter": given, "services": dict(services or {})}))
        exporter = Exporter(file, load_config(file, WatchConfig), "127.0.0.1:1")
        client: Client = TestClient(TestServer(make_app(exporter)))
        await client.start_server()
        await exporter.start()
        clients.append((client, exporter))
        return client

    yield begin
    for client, exporter in clients:
        await exporter.stop()
        await client.close()


@asynccontextmanager
async def site(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    """Serve every path by *answer*; yields the port."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def fine(_: web.Request) -> web.Response:
    return web.Response(text="fine")


async def probe(client: Client, headers: Any = None, **query: str) -> tuple[int, str]:
    async with client.get("/probe", params=query, headers=headers) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({}, "Target parameter is missing"),
        ({"module": "http"}, "Target parameter is missing"),
        ({"module": "nope", "target": "a.example"}, 'Unknown module "nope" (modules: http, icmp, tcp)'),
        ({"target": "a.example"}, 'Unknown module "http_2xx" (modules: http, icmp, tcp)'),
        (
            {"module": "tcp", "target": "no-port"},
            "'no-port' cannot be a target of prober tcp: must be HOST:PORT",
        ),
    ],
)
async def test_what_cannot_be_asked_is_status_400_and_says_why(
    start: Start, query: dict[str, str], told: str
) -> None:
    modules = {"http": HTTP, "tcp": {"prober": "tcp"}, "icmp": {"prober": "icmp"}}
    client = await start(modules, LOOPBACK)

    status, text = await probe(client, **query)

    assert status == 400
    assert told in text


@pytest.mark.parametrize("header", ["soon", "0", "-1", "nan"])
async def test_a_scrape_timeout_that_is_none_is_status_400(start: Start, header: str) -> None:
    client = await start({"http": HTTP}, LOOPBACK)

    status, text = await probe(
        client, {"X-Prometheus-Scrape-Timeout-Seconds": header}, module="http", target="127.0.0.1"
    )

    assert (status, text) == (400, "X-Prometheus-Scrape-Timeout-Seconds is not a number\n")


async def test_a_module_asks_a_free_target_that_is_allowed(start: Start) -> None:
    client = await start({"http": HTTP}, LOOPBACK)
    async with site(fine) as port:
        status, text = await probe(client, module="http", target=f"127.0.0.1:{port}")

    assert status == 200
    for line in ("probe_success 1", "probe_http_status_code 200", "probe_ip_protocol 4", "probe_http_ssl 0"):
        assert f"\n{line}\n" in text
    assert "probe_failure_info" not in text


async def test_without_a_module_http_2xx_is_meant(start: Start) -> None:
    client = await start({"http_2xx": HTTP}, LOOPBACK)
    async with site(fine) as port:
        status, text = await probe(client, target=f"127.0.0.1:{port}")

    assert (status, "\nprobe_success 1\n" in text) == (200, True)


async def test_a_failure_is_status_200_and_its_reason(start: Start, free_port: Callable[[], int]) -> None:
    client = await start({"http": HTTP}, LOOPBACK)

    status, text = await probe(client, module="http", target=f"127.0.0.1:{free_port()}")

    assert status == 200
    assert "\nprobe_success 0\n" in text
    assert 'probe_failure_info{probe="http",reason="connect_refused"} 1' in text


async def test_nothing_is_asked_of_a_target_that_nobody_has_allowed(start: Start) -> None:
    asked: list[str] = []

    async def note(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    client = await start({"http": HTTP}, ["10.0.0.0/8", "*.shop.example"])
    async with site(note) as port:
        for host in ("127.0.0.1", "[::ffff:127.0.0.1]"):
            status, text = await probe(client, module="http", target=f"http://{host}:{port}/x")
            assert status == 403
            assert "is not in exporter.allow_targets; write its address, network or name there" in text
        # Spellings that only the operating system takes for an address; the name is not known either.
        for host in ("2130706433", "0x7f.1", "0177.0.0.1", "localhost"):
            status, text = await probe(client, module="http", target=f"http://{host}:{port}/x")
            assert status == 403 or "\nprobe_success 0\n" in text

    assert asked == []


async def test_without_an_allow_list_there_are_no_free_targets(start: Start) -> None:
    client = await start({"http": HTTP}, services={"shop": {"probes": [{"tcp": "127.0.0.1:1"}]}})

    assert (await probe(client, module="http", target="shop.example"))[0] == 403
    status, text = await probe(client, module="http", target="shop")

    assert status == 403
    assert "shop is a service: leave module out" in text


async def test_a_name_that_leads_to_this_machine_is_not_followed_there(start: Start) -> None:
    """As after DNS rebinding: the name is allowed, what it resolves to is not."""
    client = await start({"http": HTTP}, ["*"])
    async with site(fine) as port:
        status, text = await probe(client, module="http", target=f"http://localhost:{port}/")

    assert status == 200
    assert "\nprobe_success 0\n" in text
    assert 'reason="forbidden"' in text


async def test_a_name_that_changes_its_mind_is_judged_by_the_address_that_is_connected_to(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2", "169.254.169.254"))

    async def rebind(*_: object) -> tuple[str, ...]:
        return (next(answers),)

    monkeypatch.setattr(Resolver, "addresses", rebind)
    # Looked up twice: for the version of IP, then to connect.
    client = await start({"http": HTTP}, ["127.0.0.1", "rebind.example"])
    async with site(fine) as port:
        target = f"http://rebind.example:{port}/"
        _, first = await probe(client, module="http", target=target)
        _, second = await probe(client, module="http", target=target)

    assert "\nprobe_success 1\n" in first
    assert 'reason="forbidden"' in second


async def test_a_redirect_to_a_place_that_is_not_allowed_is_not_followed(start: Start) -> None:
    asked: list[str] = []

    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.query["to"])

    async def note(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    async with site(away) as port, site(note) as secret:
        client = await start({"http": HTTP}, [f"127.0.0.1:{port}"])
        for host in (f"127.0.0.1:{secret}", f"localhost:{secret}", "169.254.169.254", f"[::1]:{secret}"):
            target = f"http://127.0.0.1:{port}/?to=http://{host}/latest"
            status, text = await probe(client, module="http", target=target)
            assert status == 200
            assert 'reason="forbidden"' in text

    assert asked == []


async def test_a_secret_of_a_module_is_not_told_to_where_the_target_redirects(start: Start) -> None:
    seen: dict[str, str | None] = {}

    async def take(request: web.Request) -> web.Response:
        seen[request.path] = request.headers.get("Authorization")
        if request.path == "/first":
            raise web.HTTPFound(request.query["to"])
        return web.Response()

    http = {"basic_auth": {"username": "ann", "password": PASSWORD}}
    client = await start({"http": {**HTTP, "http": http}}, LOOPBACK)
    async with site(take) as port, site(take) as other:
        target = f"http://127.0.0.1:{port}/first?to=http://127.0.0.1:{other}/second"
        await probe(client, module="http", target=target)

    assert seen["/first"] is not None
    assert seen["/second"] is None


async def test_debug_shows_each_step_the_metrics_and_the_module_without_its_secrets(start: Start) -> None:
    http = {
        "headers": {"X-Api-Key": TOKEN, "X-Plain": "shown"},
        "basic_auth": {"username": "ann", "password": PASSWORD},
        "body": f'{{"password": "{PASSWORD}"}}',
    }
    client = await start({"http": {**HTTP, "http": http}}, LOOPBACK)
    async with site(fine) as port:
        status, text = await probe(client, module="http", target=f"127.0.0.1:{port}", debug="true")

    assert status == 200
    for part in (
        "succeeded after",
        "connecting to 127.0.0.1",
        "answered 200 by HTTP/1.1",
        "probe_success 1",
        "Module configuration:\nprober: http\n",
        "X-Plain: shown",
        "timeout: 2s",
    ):
        assert part in text
    assert PASSWORD not in text
    assert TOKEN not in text


async def test_debug_masks_logins_that_are_sent_by_tcp(start: Start, free_port: Callable[[], int]) -> None:
    steps = [{"send": f"AUTH {PASSWORD}"}, {"send": "PING"}, {"expect": "PONG"}]
    client = await start({"tcp": {"prober": "tcp", "tcp": {"query_response": steps}}}, LOOPBACK)

    _, text = await probe(client, module="tcp", target=f"127.0.0.1:{free_port()}", debug="true")

    assert PASSWORD not in text
    assert "send: PING" in text
    assert "FAILED: connect_refused" in text


async def is_ready(client: Client) -> bool:
    async with client.get("/-/ready") as answer:
        return answer.status == 200


async def test_debug_of_a_service_runs_its_probes_and_records_nothing(start: Start, until: Until) -> None:
    async with site(fine) as port:
        services = {"shop": {"probes": [{"http": f"http://127.0.0.1:{port}/", "interval": "60s"}]}}
        client = await start(services=services, interval="60s")
        await until(lambda: is_ready(client))
        before = await (await client.get("/state", params={"target": "shop"})).json()

        status, text = await probe(client, target="shop", debug="true")
        after = await (await client.get("/state", params={"target": "shop"})).json()

    assert status == 200
    assert "shop, asked by its own probes: succeeded" in text
    assert after["services"] == before["services"]


async def test_the_timeout_of_the_module_or_of_the_scrape_ends_a_probe(start: Start) -> None:
    async def never(_: web.Request) -> web.Response:
        await asyncio.sleep(20)
        return web.Response()

    client = await start({"short": {**HTTP, "timeout": "200ms"}, "none": {"prober": "http"}}, LOOPBACK)
    async with site(never) as port:
        target = f"127.0.0.1:{port}"
        _, short = await probe(client, module="short", target=target)
        header = {"X-Prometheus-Scrape-Timeout-Seconds": "1.2"}
        _, scrape = await probe(client, header, module="none", target=target)

    assert "\nprobe_timeout_seconds 0.2\n" in short
    assert "\nprobe_timeout_seconds 0.7\n" in scrape
    for text in (short, scrape):
        assert "\nprobe_success 0\n" in text
        assert 'reason="timeout"' in text


async def test_who_gets_no_slot_in_time_is_told_so(start: Start) -> None:
    arrived = asyncio.Event()

    async def never(_: web.Request) -> web.Response:
        arrived.set()
        await asyncio.sleep(20)
        return web.Response()

    modules = {"long": {**HTTP, "timeout": "5s"}, "short": {**HTTP, "timeout": "100ms"}}
    client = await start(modules, LOOPBACK, concurrency=1)
    async with site(never) as port:
        first = asyncio.create_task(probe(client, module="long", target=f"127.0.0.1:{port}"))
        await arrived.wait()
        status, text = await probe(client, module="short", target=f"127.0.0.1:{port}")
        first.cancel()
        await asyncio.wait([first])

    assert status == 503
    assert "too many probes run at once" in text


async def test_looks_at_services_hold_places_too(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = asyncio.Event()
    check = Scheduler.check

    async def told(*args: Any, **kwargs: Any) -> Mapping[str, Observation]:
        looking.set()
        return await check(*args, **kwargs)

    async def never(_: web.Request) -> web.Response:
        await asyncio.sleep(20)
        return web.Response()

    monkeypatch.setattr(Scheduler, "check", told)
    async with site(never) as port:
        services = {"hangs": {"probes": [{"http": f"http://127.0.0.1:{port}/", "timeout": "5s"}]}}
        client = await start(services=services, concurrency=4)
        first = asyncio.create_task(probe(client, target="hangs"))
        await looking.wait()
        status, text = await probe(client, {"X-Prometheus-Scrape-Timeout-Seconds": "0.2"}, target="hangs")
        first.cancel()
        await asyncio.wait([first])

    assert status == 503
    assert "too many probes run at once" in text


async def test_what_was_asked_stands_on_the_page_with_its_log(start: Start) -> None:
    client = await start({"http": HTTP}, LOOPBACK)
    async with site(fine) as port:
        await probe(client, module="http", target=f"http://ann:{PASSWORD}@127.0.0.1:{port}/")
        page = await (await client.get("/")).text()
        log = await client.get("/logs", params={"id": "1"})
        gone = await client.get("/logs", params={"id": "9" * 5000})

    assert '<a href="/logs?id=1">logs</a>' in page
    assert PASSWORD not in page
    text = await log.text()
    assert (log.status, gone.status) == (200, 404)
    assert "Logs for the probe:" in text
    assert PASSWORD not in text


async def test_hostname_is_the_host_that_is_asked_for(start: Start) -> None:
    async def tell(request: web.Request) -> web.Response:
        return web.Response(status=200 if request.headers["Host"] == "shop.example" else 400)

    client = await start({"http": HTTP}, LOOPBACK)
    async with site(tell) as port:
        target = f"127.0.0.1:{port}"
        _, named = await probe(client, module="http", target=target, hostname="shop.example")
        _, plain = await probe(client, module="http", target=target)

    assert "\nprobe_success 1\n" in named
    assert "\nprobe_success 0\n" in plain


async def test_promtool_finds_nothing_to_say_about_an_answer(
    start: Start, binary: Callable[[str], str]
) -> None:
    promtool = binary("promtool")
    client = await start({"http": HTTP}, LOOPBACK)
    async with site(fine) as port:
        _, text = await probe(client, module="http", target=f"127.0.0.1:{port}")

    def check() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [promtool, "check", "metrics"], check=False, input=text, capture_output=True, text=True
        )

    done = await asyncio.to_thread(check)
    # The names are those of blackbox_exporter, of which promtool does not like this one.
    lines = [line for line in done.stderr.splitlines() if "probe_http_version" not in line]
    assert lines == []


async def test_a_reload_takes_new_modules_and_a_new_allow_list(start: Start, tmp_path: Path) -> None:
    client = await start({"http": HTTP}, LOOPBACK)
    file = tmp_path / "soulfra.yml"
    file.write_text(yaml.safe_dump({"exporter": {"fast_path": False, "modules": {"tcp": {"prober": "tcp"}}}}))

    await client.post("/-/reload")

    assert (await probe(client, module="http", target="127.0.0.1"))[0] == 400
    assert (await probe(client, module="tcp", target="127.0.0.1:1"))[0] == 403


async def test_looks_at_a_service_that_hangs_wait_in_one_line(
    start: Start, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(file_probe, "_find", lambda _: go_on.wait(30) and None)
    config = {"file": "/srv/dump", "timeout": "100ms"}
    client = await start(services={"dump": {"probes": [config]}}, interval="60s")
    try:
        await until(lambda: hanging() == 1)
        texts = [(await probe(client, target="dump", debug="true"))[1] for _ in range(5)]
        assert hanging() == 1
    finally:
        go_on.set()

    assert all("internal" in text for text in texts)


def hanging() -> int:
    return sum(thread.name == "patience" for thread in threading.enumerate())
