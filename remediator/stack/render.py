"""The shipped Prometheus and Alertmanager configurations with the addresses of this stack in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from remediator.config import Role, StackConfig, Token, read_token
from remediator.stack.ports import reachable
from soulfra_monitor.durations import format_duration, parse_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Where the written configurations are."""

    prometheus: Path
    alertmanager: Path


def render(config: StackConfig, rules: Path, data: Path) -> Rendered:
    """Write both configurations and the rules into *data*. Raises OSError, and ValueError for a bad token."""
    files = Rendered(
        prometheus=data / "prometheus" / "prometheus.yml",
        alertmanager=data / "alertmanager" / "alertmanager.yml",
    )
    shipped = yaml.safe_load((rules / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    usual = shipped["global"]["evaluation_interval"]
    written = []
    for source in sorted(rules.glob("*.yml")):
        target = files.prometheus.parent / "rules" / source.name
        _write(target, rule_groups(_read(source), usual, config.prometheus.scrape_interval))
        written.append(target)
    _write(files.prometheus, prometheus_config(shipped, config, written))
    credentials = _credentials(config.remediator.tokens, files.alertmanager.parent)
    _write(files.alertmanager, alertmanager_config(_read_alertmanager(rules), config, credentials))
    return files


def prometheus_config(shipped: Mapping[str, Any], config: StackConfig, rules: list[Path]) -> dict[str, Any]:
    """Return the shipped Prometheus configuration for this stack."""
    interval = config.prometheus.scrape_interval
    addresses = {
        "soulfra-exporter": config.exporter.listen,
        "soulfra-remediator": config.remediator.listen,
        "prometheus": config.prometheus.listen,
    }
    jobs = [
        {**job, "static_configs": [{"targets": [reachable(addresses[job["job_name"]])]}]}
        for job in shipped["scrape_configs"]
    ]
    own = [{"static_configs": [{"targets": [reachable(config.alertmanager.listen)]}]}]
    return {
        **shipped,
        "global": {
            **shipped["global"],
            "scrape_interval": format_duration(interval),
            "scrape_timeout": format_duration(interval * 0.8),
            "evaluation_interval": format_duration(interval),
        },
        "rule_files": [str(path) for path in rules],
        "alerting": {**shipped["alerting"], "alertmanagers": own},
        "scrape_configs": jobs,
    }


def rule_groups(shipped: Mapping[str, Any], usual: str, interval: float) -> dict[str, Any]:
    """Return the rules, with groups that are evaluated at every scrape evaluated at ours."""
    return {
        **shipped,
        "groups": [
            {**group, "interval": format_duration(interval)}
            if parse_duration(group.get("interval", usual)) == parse_duration(usual)
            else group
            for group in shipped["groups"]
        ],
    }


def alertmanager_config(
    shipped: Mapping[str, Any], config: StackConfig, credentials: Path | None
) -> dict[str, Any]:
    """Return the shipped Alertmanager configuration for this stack."""
    url = f"http://{reachable(config.remediator.listen)}/api/monitoring/alerts"
    access = {"http_config": {"authorization": {"credentials_file": str(credentials)}}} if credentials else {}
    people = [{"url": str(address), "send_resolved": True} for address in config.alertmanager.people]
    change: dict[str, Callable[[Any], Any]] = {
        "remediator": lambda hook: {**hook, "url": url, **access},
        "remediator-watchdog": lambda hook: {**hook, "url": url, **access},
    }
    receivers = []
    for receiver in shipped["receivers"]:
        name = receiver["name"]
        hooks = [change[name](hook) for hook in receiver["webhook_configs"]] if name in change else []
        hooks += people if name == "people" else []
        receivers.append({**receiver, "webhook_configs": hooks} if hooks else receiver)
    return {**shipped, "receivers": receivers}


def _credentials(tokens: tuple[Token, ...], folder: Path) -> Path | None:
    """Write the token that Alertmanager shows the remediator where only this user can read it."""
    token = next((token for token in tokens if token.role is Role.ALERTMANAGER), None)
    if token is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "remediator.token"
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(read_token(token), encoding="utf-8")
    return file


def _read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _read_alertmanager(rules: Path) -> Any:
    return _read(rules / "alertmanager" / "alertmanager.yml")


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    file.write_text(
        f"# Written by soulfra up; a change made here is lost at its next start.\n{text}", encoding="utf-8"
    )
