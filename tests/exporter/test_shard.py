"""Several exporters share the services: each is watched by exactly one."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exporter.app import Exporter
from exporter.config import WatchConfig
from exporter.loading import load_config
from exporter.serving import Overrides
from exporter.shard import Shard

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(names=st.sets(NAMES), count=st.integers(1, 9))
def test_every_service_is_on_exactly_one_shard(names: set[str], count: int) -> None:
    shards = [Shard(index, count) for index in range(count)]

    assert all(sum(shard.has(name) for shard in shards) == 1 for name in names)


def test_the_same_service_is_on_the_same_shard_on_every_machine_and_version() -> None:
    assert [Shard(index, 3).has("trust-engine") for index in range(3)] == [False, True, False]
    assert [Shard(index, 3).has("redis") for index in range(3)] == [False, True, False]


def test_shards_are_about_equally_full() -> None:
    names = [f"agent-{number}" for number in range(3000)]

    sizes = [sum(Shard(index, 3).has(name) for name in names) for index in range(3)]

    assert min(sizes) > 900


def big_config(shard: str = "0/1") -> dict[str, Any]:
    names = [f"agent-{number}" for number in range(40)]
    return {
        "exporter": {"fast_path": False, "interval": "60s", "shard": shard},
        "services": {name: {"probes": [{"tcp": "127.0.0.1:1"}]} for name in names},
        "integrations": [
            {"from": source, "to": destination, "probe": {"tcp": "127.0.0.1:1"}}
            for source, destination in pairwise(names)
        ],
        "discovery": [
            {
                "file_sd": {"files": ["targets.json"]},
                "allow_targets": ["127.0.0.0/8"],
                "service": {"name": "found-{{ address }}", "probes": [{"tcp": "{{ address }}"}]},
            }
        ],
    }


async def test_shards_partition_services_integrations_and_what_is_discovered(
    tmp_path: Path, until: Callable[..., Any]
) -> None:
    (tmp_path / "targets.json").write_text(
        '[{"targets": [' + ",".join(f'"127.0.0.1:{port}"' for port in range(1, 31)) + "]}]"
    )
    file = tmp_path / "soulfra.yml"
    file.write_text(yaml.safe_dump(big_config()))
    config = load_config(file, WatchConfig)
    parts = [
        Exporter(file, config, "127.0.0.1:1", overrides=Overrides(shard=Shard(index, 3)))
        for index in range(3)
    ]
    try:
        for part in parts:
            await part.start()
            await until(lambda part=part: any(name.startswith("found-") for name in part.world.services))

        services = [name for part in parts for name in part.world.services]
        edges = [edge for part in parts for edge in part.world.edges]

        found = {f"found-127.0.0.1-{port}" for port in range(1, 31)}
        assert len(services) == len(set(services)) == 70
        assert set(services) == set(config.services) | found
        assert len(edges) == len(set(edges)) == 39
        for part in parts:
            assert all(source in part.world.services for source, _ in part.world.edges)
    finally:
        for part in parts:
            await part.stop()


async def test_the_blind_guard_counts_the_services_of_its_shard_alone(
    tmp_path: Path, serve: Callable[[int], Any], free_port: Callable[[], int], until: Callable[..., Any]
) -> None:
    served, closed = free_port(), free_port()
    serve(served)
    config = big_config()
    for name, service in config["services"].items():
        service["probes"] = [{"tcp": f"127.0.0.1:{closed if Shard(1, 3).has(name) else served}"}]
    file = tmp_path / "soulfra.yml"
    file.write_text(yaml.safe_dump(config | {"integrations": [], "discovery": []}))
    loaded = load_config(file, WatchConfig)
    parts = [
        Exporter(file, loaded, "127.0.0.1:1", overrides=Overrides(shard=Shard(index, 3))) for index in (0, 1)
    ]
    try:
        for part in parts:
            await part.start()
            await until(lambda part=part: part.world.ready)

        assert [part.world.blind for part in parts] == [False, True]
    finally:
        for part in parts:
            await part.stop()


@pytest.mark.parametrize("text", ["", "1", "3/3", "-1/3", "0/0", "0/3/3", "a/b", "0 / 3"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="INDEX/COUNT"):
        Shard.parse(text)
