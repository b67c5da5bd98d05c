"""Services as Prometheus's http_sd finds them."""

import json
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp.test_utils import TestClient, TestServer

from exporter.app import Exporter, make_app
from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.loading import load_config

Client = TestClient[Any, Any]
Start = Callable[[dict[str, Any]], Awaitable[Client]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    running: list[tuple[Client, Exporter]] = []

    async def begin(config: dict[str, Any]) -> Client:
        file = tmp_path / "soulfra.yml"
        file.write_text(yaml.safe_dump({**config, "exporter": {"fast_path": False}}))
        exporter = Exporter(file, load_config(file, WatchConfig), "127.0.0.1:1")
        client: Client = TestClient(TestServer(make_app(exporter)))
        await client.start_server()
        await exporter.start()
        running.append((client, exporter))
        return client

    yield begin
    for client, exporter in running:
        await exporter.stop()
        await client.close()


async def test_without_services_the_list_is_empty(start: Start) -> None:
    client = await start({})

    async with client.get("/http_sd") as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        assert await answer.text() == "[]"


async def test_every_service_is_a_group_that_needs_no_relabelling(start: Start) -> None:
    client = await start(
        {
            "services": {
                "shop": {
                    "host": "box-1",
                    "labels": {"team": "sales"},
                    "probes": [{"tcp": "127.0.0.1:1"}, {"http": "http://127.0.0.1:1/"}],
                },
                "idle": {},
            }
        }
    )

    async with client.get("/http_sd") as answer:
        idle, shop = await answer.json()

    assert shop == {
        "targets": [f"127.0.0.1:{client.port}"],
        "labels": {
            "team": "sales",
            "instance": "shop",
            "__scheme__": "http",
            "__metrics_path__": "/probe",
            "__param_target": "shop",
            "__meta_soulfra_target": "shop",
            "__meta_soulfra_host": "box-1",
            "__meta_soulfra_probes": ",tcp,http,",
            "__meta_soulfra_source": "config",
        },
    }
    assert idle["labels"]["__meta_soulfra_probes"] == ","


async def test_the_users_labels_are_those_of_target_info_too(start: Start) -> None:
    client = await start({"services": {"shop": {"labels": {"team": 'a "b"\\'}}}})

    async with client.get("/metrics") as answer:
        [line] = [
            line for line in (await answer.text()).splitlines() if line.startswith("soulfra_target_info{")
        ]

    assert 'team="a \\"b\\"\\\\"' in line
    assert 'target="shop"' in line


@pytest.mark.parametrize(
    ("labels", "mistake"),
    [
        ({"target": "x"}, "'target' is a label of the exporter or of Prometheus; choose another name"),
        ({"instance": "x"}, "'instance' is a label of the exporter or of Prometheus; choose another name"),
        ({"__x": "x"}, "a label has letters, digits and '_'"),
        ({"a-b": "x"}, "a label has letters, digits and '_'"),
        ({"a" * 64: "x"}, "a label has letters, digits and '_'"),
        ({"a": "x" * 201}, "the value of a label has 200 printable characters at most"),
        ({"a": "x\ny"}, "the value of a label has 200 printable characters at most"),
        ({f"l{number}": "x" for number in range(17)}, "at most 16 entries"),
    ],
)
def test_labels_that_would_clash_or_cost_too_much_are_a_mistake(
    tmp_path: Path, labels: dict[str, str], mistake: str
) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_text(yaml.safe_dump({"services": {"a": {"labels": labels}}}))

    with pytest.raises(ConfigError) as caught:
        load_config(file, WatchConfig)

    [found] = caught.value.mistakes
    assert mistake in found.message
    assert found.place.startswith("services.a.labels")


async def test_a_real_prometheus_finds_and_scrapes_every_service(
    start: Start,
    prometheus: Callable[[dict[str, Any]], str],
    free_port: Callable[[], int],
    serve: Callable[[int], Any],
    until: Callable[..., Any],
) -> None:
    served = free_port()
    serve(served)
    names = [f"agent-{number}" for number in range(20)]
    service = {"labels": {"team": "sales"}, "probes": [{"tcp": f"127.0.0.1:{served}"}]}
    client = await start({"services": dict.fromkeys(names, service)})
    sd = {"job_name": "probes", "http_sd_configs": [{"url": str(client.make_url("/http_sd"))}]}
    address = prometheus(
        {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [sd]}
    )

    async def seen() -> list[dict[str, str]] | None:
        found = await ask(client, address, "probe_success == 1")
        return found if len(found) == len(names) else None

    series = await until(seen, deadline=60, every=0.2)

    assert {labels["instance"] for labels in series} == set(names)
    assert {(labels["job"], labels["team"]) for labels in series} == {("probes", "sales")}


async def ask(client: Client, address: str, query: str) -> list[dict[str, str]]:
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        async with client.session.get(url) as answer:
            data = json.loads(await answer.text())
    except (OSError, ValueError):
        return []
    return [result["metric"] for result in data.get("data", {}).get("result", [])]
