"""The written Prometheus and Alertmanager configurations are right, and accepted by their own tools."""

import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from remediator.config import load
from remediator.stack.render import Rendered, render
from remediator.stack.shipped import shipped_rules

Write = Callable[..., Rendered]


@pytest.fixture
def write(tmp_path: Path, stack_config: Callable[..., dict[str, Any]]) -> Write:
    def write(**sections: Any) -> Rendered:
        file = tmp_path / "soulfra.yml"
        file.write_text(yaml.safe_dump(stack_config(**sections)), encoding="utf-8")
        return render(load(file, {}).config, shipped_rules(), tmp_path / "data")

    return write


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def receiver(rendered: Rendered, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        item for item in read(rendered.alertmanager)["receivers"] if item["name"] == name
    )
    return found


def test_promtool_and_amtool_accept_what_is_written(write: Write, need: Callable[[str], None]) -> None:
    need("promtool")
    need("amtool")
    rendered = write()

    subprocess.run(["promtool", "check", "config", rendered.prometheus], check=True, capture_output=True)
    subprocess.run(["amtool", "check-config", rendered.alertmanager], check=True, capture_output=True)


def test_every_job_scrapes_the_configured_address(write: Write) -> None:
    rendered = write(exporter={"listen": "127.0.0.1:19877"}, remediator={"listen": "127.0.0.1:13001"})

    jobs = {job["job_name"]: job["static_configs"] for job in read(rendered.prometheus)["scrape_configs"]}

    assert jobs["soulfra-exporter"] == [{"targets": ["127.0.0.1:19877"]}]
    assert jobs["soulfra-remediator"] == [{"targets": ["127.0.0.1:13001"]}]


def test_prometheus_tells_the_alertmanager_of_this_stack(write: Write) -> None:
    rendered = write(alertmanager={"listen": "127.0.0.1:19093"})

    assert read(rendered.prometheus)["alerting"]["alertmanagers"] == [
        {"static_configs": [{"targets": ["127.0.0.1:19093"]}]}
    ]


def test_alerts_go_to_the_remediator_of_this_stack(write: Write) -> None:
    rendered = write(remediator={"listen": "127.0.0.1:13001"})

    for name in ("remediator", "remediator-watchdog"):
        hooks = receiver(rendered, name)["webhook_configs"]
        assert [hook["url"] for hook in hooks] == ["http://127.0.0.1:13001/api/monitoring/alerts"]


def test_the_scrape_interval_moves_rules_that_keep_pace_with_it_and_no_others(write: Write) -> None:
    rendered = write(prometheus={"listen": "127.0.0.1:19090", "scrape_interval": "1s"})

    config = read(rendered.prometheus)
    written = {group["name"]: group["interval"] for file in config["rule_files"] for group in rules_of(file)}
    shipped = {
        group["name"]: group["interval"] for file in shipped_rules().glob("*.yml") for group in rules_of(file)
    }

    assert config["global"]["scrape_interval"] == "1s"
    assert config["global"]["evaluation_interval"] == "1s"
    assert written == {name: "1s" if interval == "5s" else interval for name, interval in shipped.items()}


def rules_of(file: str | Path) -> Any:
    return read(Path(file))["groups"]


def test_people_get_the_configured_webhooks(write: Write) -> None:
    rendered = write(alertmanager={"listen": "127.0.0.1:19093", "people": ["http://127.0.0.1:18000/page"]})

    assert receiver(rendered, "people")["webhook_configs"] == [
        {"url": "http://127.0.0.1:18000/page", "send_resolved": True}
    ]


def test_alertmanager_gets_its_token_in_a_file_that_only_we_can_read(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "only-for-tests-" * 2
    monkeypatch.setenv("TOKEN_OF_ALERTMANAGER", secret)

    rendered = write(
        remediator={
            "listen": "127.0.0.1:13001",
            "tokens": [{"name": "am", "role": "alertmanager", "env": "TOKEN_OF_ALERTMANAGER"}],
        }
    )

    hook = receiver(rendered, "remediator")["webhook_configs"][0]
    file = Path(hook["http_config"]["authorization"]["credentials_file"])
    assert file.read_text(encoding="utf-8") == secret
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret not in rendered.alertmanager.read_text(encoding="utf-8")


def test_without_tokens_no_credentials_are_written(write: Write) -> None:
    rendered = write()

    assert "http_config" not in receiver(rendered, "remediator")["webhook_configs"][0]
    assert not list(rendered.alertmanager.parent.glob("*.token"))
