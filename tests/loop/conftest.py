"""Real stacks: Prometheus, Alertmanager, Redis, exporter, remediator and the example platform."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.harness import DemoStack, demo_config

_NEEDED = ("prometheus", "prometheus-alertmanager", "redis-server")


@pytest.fixture(scope="session", autouse=True)
def _real_parts() -> None:
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"missing: {', '.join(missing)}")
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoStack]:
    """Run the demo with limits raised, so that one test's repairs do not hold back the next one's."""
    folder = tmp_path_factory.mktemp("stack")
    config, _ = demo_config(lambda config: raise_limits(config, folder))
    with DemoStack(folder=folder, config=config) as running:
        yield running


def raise_limits(config: dict[str, Any], folder: Path) -> None:
    """Allow many repairs of one target in a short time; nothing else differs from the default."""
    shipped = Path("remediator/shipped/playbooks.yml")
    playbooks = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    for playbook in playbooks["playbooks"]:
        playbook["limits"] = {**playbook["limits"], "per_target": "100/1h", "everywhere": "1000/1h"}
        playbook["cooldown"] = "1s"
    (folder / "playbooks.yml").write_text(yaml.safe_dump(playbooks), encoding="utf-8")
    config["playbooks"] = ["playbooks.yml"]
    config["remediator"] |= {"max_attempts": 20, "backoff": "500ms", "backoff_multiplier": 1}
