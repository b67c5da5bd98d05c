"""The command ``check``, and how every command reads a configuration."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from exporter.document import Document, Mistake
    from remediator.config import Loaded
    from remediator.match import Matcher
    from remediator.playbook import Playbook

WRONG = 2  # exit status when a configuration has mistakes


def load_or_exit(file: Path) -> "Loaded":
    """Read a configuration; with mistakes print all of them, one a line, and exit with status 2."""
    from exporter.document import ConfigError  # noqa: PLC0415 - pydantic and all models come with it
    from remediator.config import load  # noqa: PLC0415

    try:
        loaded = load(file)
    except ConfigError as error:
        _complain(error.mistakes)
        raise SystemExit(WRONG) from error
    for warning in loaded.warnings:
        click.echo(f"{file}: warning: {warning}", err=True)
    return loaded


def _complain(mistakes: "Iterable[Mistake]") -> None:
    for mistake in mistakes:
        click.echo(str(mistake), err=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """An alert of a rule file, and where it stands."""

    name: str
    labels: dict[str, str]
    document: "Document"
    place: tuple[str | int, ...]


@click.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("soulfra.yml"),
    show_default=True,
    help="Configuration.",
)
@click.option(
    "--rules",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the Prometheus rule files. Default: the shipped rules.",
)
def check(*, config: Path, rules: Path | None) -> None:
    """Check a configuration, and that its playbooks and the rules fit together."""
    loaded = load_or_exit(config)
    from exporter.document import ConfigError  # noqa: PLC0415 - see load_or_exit
    from remediator.stack.shipped import shipped_rules  # noqa: PLC0415

    try:
        unaskable = web_config_warnings(loaded)
        alerts = list(read_alerts(rules or shipped_rules()))
    except ConfigError as error:
        _complain(error.mistakes)
        raise SystemExit(WRONG) from error
    mistakes = [
        *_rule_mistakes(alerts),
        *(_blame(loaded, text) for text in playbook_mistakes(loaded, alerts)),
    ]
    for warning in [*check_warnings(loaded), *unaskable]:
        click.echo(f"{config}: warning: {warning}", err=True)
    if mistakes:
        _complain(mistakes)
        raise SystemExit(WRONG)
    services, playbooks = len(loaded.config.services), len(loaded.playbooks)
    click.echo(f"OK: {services} services, {playbooks} playbooks, {len(alerts)} alert rules fit together")
    if lone := unanswered(loaded, alerts):
        click.echo(f"Recorded and told to people, because no playbook matches: {', '.join(lone)}")


def read_alerts(folder: Path) -> Iterator[AlertRule]:
    """Read every alert of the rule files in *folder*. Raises ConfigError."""
    from exporter.document import read_document  # noqa: PLC0415 - see load_or_exit

    for file in sorted(folder.glob("*.yml")):
        document = read_document(file)
        groups = _dict(document.data).get("groups") or []
        for g, group in enumerate(groups):
            for r, rule in enumerate(_dict(group).get("rules") or []):
                if "alert" in _dict(rule):
                    labels = {str(key): str(value) for key, value in _dict(rule.get("labels")).items()}
                    labels["alertname"] = str(rule["alert"])
                    yield AlertRule(
                        name=labels["alertname"],
                        labels=labels,
                        document=document,
                        place=("groups", g, "rules", r),
                    )


def _rule_mistakes(alerts: list[AlertRule]) -> list["Mistake"]:
    from soulfra_monitor.problems import Problem  # noqa: PLC0415 - with the others

    return [
        alert.document.mistake(
            (*alert.place, "labels", "problem"), f"{alert.name}: there is no problem {problem!r}"
        )
        for alert in alerts
        if (problem := alert.labels.get("problem")) is not None
        and problem not in list(Problem)
        and "{{" not in problem  # the series tells it
    ]


def playbook_mistakes(loaded: "Loaded", alerts: list[AlertRule]) -> list[str]:
    """Say which playbooks can never run, because what they name does not exist."""
    from remediator.match import matches_all  # noqa: PLC0415 - with the others

    found = []
    for playbook in loaded.playbooks:
        found += [f"{playbook.name}: {text}" for text in _unknown_names(loaded, playbook)]
        asked = [matcher for matcher in playbook.matchers if matcher.label == "alertname"]
        found += [
            f"{playbook.name}: no rule has the alertname {matcher.value!r}"
            for matcher in asked
            if matcher.operator in ("=", "=~") and not any(matcher.matches(alert.labels) for alert in alerts)
        ]
        found += [
            f"{playbook.name}: the alert {alert.name} lacks the label problem, so Alertmanager keeps it"
            for alert in alerts
            if asked and "problem" not in alert.labels and matches_all(asked, alert.labels)
        ]
    return found


def _unknown_names(loaded: "Loaded", playbook: "Playbook") -> Iterator[str]:
    from remediator.playbook import HookArgs, RestartArgs  # noqa: PLC0415 - with the others

    services = loaded.config.services
    for step in (step for rung in playbook.rungs for step in rung.steps):
        args = step.args
        if not isinstance(args, RestartArgs | HookArgs) or "{" in args.service:
            continue  # a template: known only when it runs, and checked against the inventory then
        if args.service not in services:
            yield f"there is no service {args.service!r}"
        elif (
            isinstance(args, HookArgs)
            and "{" not in args.hook
            and args.hook not in services[args.service].hooks
        ):
            yield f"the service {args.service!r} has no hook {args.hook!r}"
        elif isinstance(args, RestartArgs) and services[args.service].restart is None:
            yield f"the service {args.service!r} has no restart section"


def check_warnings(loaded: "Loaded") -> list[str]:
    """Say what is allowed but leaves failures to people, or would keep the remediator from starting."""
    from exporter.config import folded  # noqa: PLC0415 - see load_or_exit
    from remediator.config import read_token  # noqa: PLC0415 - see load_or_exit

    found = folded(
        (f"services.{name}", "has no restart section, so its failures are told to people")
        for name, service in loaded.config.services.items()
        if service.restart is None
    )
    for token in loaded.config.remediator.tokens:
        try:
            read_token(token)
        except ValueError as error:
            found.append(f"remediator.tokens: {error}")
    return found


def web_config_warnings(loaded: "Loaded") -> list[str]:
    """Say whom the protection of the exporter's port keeps out. Raises ConfigError with its mistakes."""
    config = loaded.config
    if config.exporter.web_config is None:
        return []
    from exporter.webconfig import load_web_config  # noqa: PLC0415 - few have one

    protection = load_web_config(loaded.file.parent / config.exporter.web_config)
    scheme, _, address = config.exporter_url.partition("://")
    if address != config.exporter.listen or (scheme == protection.scheme and not protection.authenticates):
        return []
    wants = ["TLS"] if protection.scheme == "https" else []
    wants += ["a password or a certificate"] if protection.authenticates else []
    message = (
        f"exporter.web_config: the port wants {' and '.join(wants)}, which the remediator (remediator"
        f".exporter is {config.exporter_url}) and the Prometheus of soulfra up do not give, so nothing is"
        " repaired; leave the port open on 127.0.0.1 for them, or point remediator.exporter at a way"
        " that is open to it"
    )
    return [message]


def unanswered(loaded: "Loaded", alerts: list[AlertRule]) -> list[str]:
    """Return the alerts with a problem for which no playbook is meant."""
    return sorted(
        {
            alert.name
            for alert in alerts
            if "problem" in alert.labels
            and not any(_may_match(playbook.matchers, alert.labels) for playbook in loaded.playbooks)
        }
    )


def _may_match(matchers: "Iterable[Matcher]", labels: dict[str, str]) -> bool:
    # What only the firing alert knows (target, most labels of series) may be anything.
    known = [matcher for matcher in matchers if matcher.label in labels or matcher.label == "action"]
    return bool(known) and all(matcher.matches(labels) for matcher in known)


def _blame(loaded: "Loaded", text: str) -> "Mistake":
    """Put a mistake at the playbook's name in the main file, where it stands there, else at ``playbooks``."""
    from exporter.document import Mistake, read_document  # noqa: PLC0415 - see load_or_exit

    document = read_document(loaded.file)
    name = re.split(":", text, maxsplit=1)[0]
    entries = _dict(document.data).get("playbooks") or []
    index = next((i for i, entry in enumerate(entries) if _dict(entry).get("name") == name), None)
    if index is not None:
        return document.mistake(("playbooks", index), text)
    return Mistake(file=str(loaded.file), line=None, place="playbooks", message=text)


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
