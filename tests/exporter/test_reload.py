"""A reload takes effect as a whole or not at all."""

import asyncio
import errno
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml
from aiohttp.test_utils import TestClient, TestServer

from exporter import scheduler as scheduling
from exporter.app import Exporter, make_app
from exporter.config import WatchConfig
from exporter.kinds import Tls
from exporter.loading import load_config
from exporter.probes import probe_function
from exporter.state import Verdict
from exporter.webconfig import load_web_config

HASH = bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()
AUTH = {"Authorization": "Basic YTp4"}  # a:x
DISCOVERY = {
    "name": "files",
    "file_sd": {"files": ["targets.json"]},
    "allow_targets": ["127.0.0.0/8"],
    "service": {"name": "{{ labels.name }}", "probes": [{"tcp": "{{ address }}"}]},
}


def good(port: int) -> dict[str, Any]:
    return {
        "exporter": {
            "alertmanagers": [f"http://127.0.0.1:{port}"],
            "interval": "60s",
            "web_config": "web.yml",
        },
        "services": {"dead": {"probes": [{"tcp": f"127.0.0.1:{port}", "confirm": 1}]}},
        "discovery": [DISCOVERY],
    }


class Watched:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.config = good(port)
        self.file = folder / "soulfra.yml"
        (folder / "web.yml").write_text(yaml.safe_dump({"basic_auth_users": {"a": HASH}}))
        targets = [{"targets": [f"127.0.0.1:{port}"], "labels": {"name": "found"}}]
        (folder / "targets.json").write_text(json.dumps(targets))
        self.write(self.config)
        self.exporter = Exporter(
            self.file,
            load_config(self.file, WatchConfig),
            "127.0.0.1:1",
            web_config=load_web_config(folder / "web.yml"),
        )
        self.client: TestClient[Any, Any] = TestClient(TestServer(make_app(self.exporter)))

    def write(self, config: Any) -> None:
        self.file.write_text(config if isinstance(config, str) else yaml.safe_dump(config))

    async def reload(self) -> tuple[int, Any]:
        async with self.client.post("/-/reload", headers=AUTH) as answer:
            return answer.status, await answer.json()

    def everything(self) -> dict[str, Any]:
        """Return what a reload could change; compared by identity where things have one."""
        exporter = self.exporter
        return {
            "services": {name: id(state) for name, state in exporter.world.services.items()},
            "probes": [id(p) for s in exporter.world.services.values() for p in s.probes.values()],
            "verdicts": [state.verdict for state in exporter.world.services.values()],
            "edges": dict(exporter.world.edges),
            "config": id(exporter.config),
            "alerts": dict(exporter.publisher._published),
            "path": id(exporter.publisher._path),
            "protection": id(exporter.door.config),
            "found": exporter.discoverer.origins(),
            "counts": {name: id(counts) for name, counts in exporter.discoverer.counts.items()},
            "since": exporter.counters.reload_success_at,
        }


@pytest.fixture
async def watched(
    tmp_path: Path, free_port: Callable[[], int], until: Callable[..., Any]
) -> AsyncIterator[Watched]:
    one = Watched(tmp_path, free_port())
    await one.client.start_server()
    await one.exporter.start()
    services = one.exporter.world
    await until(lambda: set(services.services) == {"dead", "found"} and services.ready)
    await until(lambda: one.exporter.publisher._published)
    yield one
    await one.exporter.stop()
    await one.client.close()


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "yaml": lambda _: "services: [",
    "unknown key": lambda config: {**config, "servces": {}},
    "one bad service among changed ones": lambda config: {
        **config,
        "services": {"new": {}, "dead": {"probes": [{"tcp": "x"}]}},
    },
    "template of a source": lambda config: {
        **config,
        "discovery": [{**DISCOVERY, "service": {"host": "{{ nobody }}"}}],
    },
    "missing web config": lambda config: {**config, "exporter": {"web_config": "absent.yml"}},
    "missing modules": lambda config: {**config, "exporter": {"modules_file": "absent.yml"}},
    "shard": lambda config: {**config, "exporter": {**config["exporter"], "shard": "4/3"}},
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_bad_reload_changes_nothing_at_all(watched: Watched, broken: str) -> None:
    before = watched.everything()
    watched.write(BROKEN[broken](watched.config))

    status, told = await watched.reload()

    assert status == 400
    assert told["mistakes"]
    assert watched.everything() == before
    assert not watched.exporter.counters.reload_successful
    await watched.exporter.reload_by_signal()
    assert watched.everything() == before


async def test_a_bad_web_config_stops_a_reload_of_everything(watched: Watched) -> None:
    before = watched.everything()
    watched.write({**watched.config, "services": {"new": {}}})
    (watched.folder / "web.yml").write_text("basic_auth_users: {a: plain}")

    status, told = await watched.reload()

    assert status == 400
    assert "web.yml:1: basic_auth_users.a: must be a bcrypt hash" in told["mistakes"][0]
    assert watched.everything() == before


async def test_after_mending_the_reload_takes_effect_and_is_told(watched: Watched) -> None:
    watched.write("services: [")
    await watched.reload()
    began = watched.exporter.counters.reload_success_at
    kept = watched.exporter.world.services["found"].probes["tcp"]
    watched.write({**watched.config, "services": {"new": {}}})

    status, _ = await watched.reload()

    assert status == 200
    assert set(watched.exporter.world.services) == {"new", "found"}
    assert watched.exporter.world.services["found"].probes["tcp"] is kept
    assert watched.exporter.world.services["new"].verdict is Verdict.UNKNOWN
    async with watched.client.get("/metrics", headers=AUTH) as answer:
        text = await answer.text()
    assert "soulfra_exporter_config_last_reload_successful 1" in text
    assert watched.exporter.counters.reload_success_at > began
    assert 'target="dead"' not in text


async def test_a_good_web_config_does_not_hide_that_the_configuration_has_mistakes(watched: Watched) -> None:
    watched.write("services: [")
    await watched.reload()

    await watched.exporter.reload_protection()

    assert not watched.exporter.counters.reload_successful


async def test_many_reloads_at_once_are_one_after_the_other(watched: Watched) -> None:
    results = await asyncio.gather(*(watched.reload() for _ in range(20)))

    assert {status for status, _ in results} == {200}
    assert set(watched.exporter.world.services) == {"dead", "found"}


async def test_other_targets_of_a_source_cost_those_that_stay_nothing(
    watched: Watched, until: Callable[..., Any]
) -> None:
    tools = watched.exporter.scheduler._tools
    context = await tools.tls(Tls(), within=5)
    tools.resolver._kept[("shop.example", None)] = (time.monotonic() + 60, ("127.0.0.1",))
    before = dict(watched.exporter.world.services)
    targets = watched.folder / "targets.json"
    found = json.loads(targets.read_text())
    more = [*found, {"targets": found[0]["targets"], "labels": {"name": "another"}}]
    targets.write_text(json.dumps(more))
    for source in watched.exporter.discoverer._sources.values():
        await watched.exporter.discoverer._ask(source)

    after = watched.exporter.world.services
    assert set(after) == {"dead", "found", "another"}
    assert all(after[name] is state for name, state in before.items())
    assert await tools.tls(Tls(), within=5) is context
    assert tools.resolver._kept


async def test_a_reload_reads_certificates_and_names_anew_and_keeps_what_did_not_change(
    watched: Watched,
) -> None:
    tools = watched.exporter.scheduler._tools
    context = await tools.tls(Tls(), within=5)
    await tools.tls(Tls(verify=False), within=5)
    tools.resolver._kept[("shop.example", None)] = (time.monotonic() + 60, ("127.0.0.1",))
    before = dict(watched.exporter.world.services)
    new = {**watched.config["services"], "new": watched.config["services"]["dead"]}
    watched.write({**watched.config, "services": new})

    assert (await watched.reload())[0] == 200

    after = watched.exporter.world.services
    assert set(after) == {"dead", "found", "new"}
    assert after["dead"] is before["dead"]
    assert set(tools._contexts) == {Tls(), Tls(verify=False)}, "made in a thread, not at the next probe"
    assert await tools.tls(Tls(), within=5) is not context
    assert not tools.resolver._kept


async def test_another_rhythm_of_all_is_taken_by_services_that_did_not_change(watched: Watched) -> None:
    watched.write({**watched.config, "exporter": {**watched.config["exporter"], "interval": "30s"}})

    assert (await watched.reload())[0] == 200

    settings = [p.settings for s in watched.exporter.world.services.values() for p in s.probes.values()]
    assert {one.interval for one in settings} == {30.0}


@pytest.mark.parametrize("place", ["first", "last"])
async def test_a_kind_that_cannot_be_loaded_changes_nothing_and_hinders_no_later_reload(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, place: str, until: Callable[..., Any]
) -> None:
    before = watched.everything()
    load = probe_function

    def no_files_left(kind: str) -> Any:
        if kind == "dns":
            raise OSError(errno.EMFILE, "too many open files")
        return load(kind)

    monkeypatch.setattr(scheduling, "probe_function", no_files_left)
    new = {"new": {"probes": [{"dns": "127.0.0.1:1", "query": "shop.example"}]}}
    dead = {"dead": {**watched.config["services"]["dead"], "timeout_threshold": "9s", "host": "elsewhere"}}
    watched.write({**watched.config, "services": {**new, **dead} if place == "first" else {**dead, **new}})

    status, _ = await watched.reload()

    assert status == 500
    assert watched.everything() == before
    assert not watched.exporter.counters.reload_successful

    monkeypatch.setattr(scheduling, "probe_function", load)
    assert (await watched.reload())[0] == 200
    await until(lambda: watched.exporter.world.services["new"].probes["dns"].attempts)
    assert watched.exporter.world.services["dead"].host == "elsewhere"


async def test_another_rhythm_of_all_forgets_nothing_of_what_was_seen(watched: Watched) -> None:
    seen = watched.exporter.world.services["dead"].probes["tcp"].attempts
    watched.write({**watched.config, "exporter": {**watched.config["exporter"], "interval": "30s"}})

    assert (await watched.reload())[0] == 200

    service = watched.exporter.world.services["dead"]
    assert service.verdict is Verdict.DOWN
    assert service.probes["tcp"].attempts >= seen > 0


async def test_many_signals_are_one_reload_and_the_last_of_them_counts(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    reload, reloads, begun = watched.exporter.reload, [], asyncio.Event()

    async def slow() -> None:
        reloads.append(time.monotonic())
        begun.set()
        await reload()

    monkeypatch.setattr(watched.exporter, "reload", slow)
    first = asyncio.create_task(watched.exporter.reload_by_signal())
    await begun.wait()
    watched.write({**watched.config, "services": {"other": {}}})
    await asyncio.gather(first, *(watched.exporter.reload_by_signal() for _ in range(50)))

    assert len(reloads) == 2
    assert "other" in watched.exporter.world.services
