"""The whole of ``soulfra.yml`` as the remediator and the stack read it, with its playbooks."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from exporter.config import ALERTMANAGER_LISTEN, EnvironmentKey, WatchConfig
from exporter.document import ConfigError, Document, Mistake, Place, read_document
from exporter.fields import Address, Duration, Name, Strict, Url
from exporter.loading import load_config, mistakes_of
from remediator.playbook import Playbook, PlaybookFile
from remediator.policy import Settings

SHIPPED = Path(str(files("remediator"))) / "shipped" / "playbooks.yml"


class Role(StrEnum):
    """What the holder of a token may do."""

    ALERTMANAGER = "alertmanager"  # post alerts
    INGEST = "ingest"  # post error events and heartbeats
    OPERATOR = "operator"  # read and change everything
    VIEWER = "viewer"  # read


class Token(Strict):
    """A secret that opens the API; it lives in a file or in the environment, never in the configuration."""

    name: Name
    role: Role
    file: str | None = None
    env: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.env is None):
            raise ValueError("say in exactly one way where the token is: file or env")
        return self


class Channel(Strict):
    """Where notifications go."""

    log: Literal[True] | None = None
    alertmanager: Literal[True] | None = None  # as alert SoulfraEscalation, by the route of people
    webhook: Url | None = None
    webhook_env: str | None = None  # the variable that holds the address, when the address is a secret

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [
            key for key in ("log", "alertmanager", "webhook", "webhook_env") if getattr(self, key) is not None
        ]
        if len(given) != 1:
            raise ValueError("a channel is exactly one of log, alertmanager, webhook or webhook_env")
        return self


class Rate(Strict):
    """How much may come in: so many a second on average, and so many at once."""

    per_second: Annotated[float, Field(gt=0)]
    burst: Annotated[int, Field(ge=1)]


class EventsSection(Strict):
    """What is taken of applications: error events, calls, declared values."""

    enabled: bool = True
    quiet: Duration = 300.0  # events that came no more for so long are over, if the service is healthy
    per_sender: Rate = Rate(per_second=200, burst=1000)  # posts of one address; a machine has many services
    per_service: Rate = Rate(per_second=200, burst=2000)  # events of one service
    max_body: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 4 * 1024 * 1024  # bytes, as posted
    max_event: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024  # bytes, unpacked
    max_unpacked: Annotated[int, Field(ge=1024, le=256 * 1024 * 1024)] = 20 * 1024 * 1024  # bytes
    projects: Mapping[str, Name] = {}  # the service that a number in the DSN of a Sentry SDK stands for


class RemediatorSection(Strict):
    """How the remediator runs and what limits hold for all playbooks."""

    listen: Address = "127.0.0.1:3001"
    exporter: Url | None = None  # default: the exporter's own listen address
    alertmanagers: tuple[Url, ...] = ()  # default: the exporter's alertmanagers
    name: Name | None = None  # this remediator's name in leases; default: the host's
    threads: Annotated[int, Field(ge=2, le=64)] = 8
    tokens: tuple[Token, ...] = ()
    enabled: bool = True
    auto_recovery: bool = True
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    backoff: Duration = 2.0
    backoff_multiplier: Annotated[float, Field(ge=1, le=10)] = 2.0
    stable_for: Duration = 60.0
    settle: Duration = 3.0
    escalate_after: Duration = 300.0  # an error held back this long is told to people
    lease: Duration = 15.0
    evidence_timeout: Duration = 2.0
    retention: Duration = 7 * 86400.0
    summary_retention: Duration = 30 * 86400.0
    reconcile: Duration = 15.0
    events: EventsSection = EventsSection()
    watchdog: Duration = 180.0  # silence of the Watchdog alert after which people are told
    channels: Mapping[Name, Channel] = {"people": Channel(alertmanager=True), "log": Channel(log=True)}
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class PrometheusSection(Strict):
    """How ``soulfra up`` runs Prometheus."""

    listen: Address = "127.0.0.1:9090"
    command: str = "prometheus"
    scrape_interval: Duration = 5.0
    retention: Duration = 7 * 86400.0


class AlertmanagerSection(Strict):
    """How ``soulfra up`` runs Alertmanager."""

    listen: Address = ALERTMANAGER_LISTEN
    command: str | None = None  # default: prometheus-alertmanager or alertmanager, whichever is there
    people: tuple[Url, ...] = ()  # webhooks of the people's route


class DemoSection(Strict):
    """What ``soulfra up --demo`` starts beside the services."""

    load: tuple[str, ...] = ()  # argv of the load generator


PlaybookEntry = Annotated[
    Annotated[str, Tag("file")] | Annotated[Playbook, Tag("inline")],
    Discriminator(lambda value: "file" if isinstance(value, str) else "inline"),
]
"""A playbook file (``shipped`` is the one that comes along), or a playbook written in place."""


_LONGEST_SCRAPE = 20.0  # seconds; the rules' windows are made for it


class StackConfig(WatchConfig):
    """Everything in ``soulfra.yml``."""

    remediator: RemediatorSection = RemediatorSection()
    prometheus: PrometheusSection = PrometheusSection()
    alertmanager: AlertmanagerSection = AlertmanagerSection()
    demo: DemoSection = DemoSection()
    playbooks: tuple[PlaybookEntry, ...] = ("shipped",)

    @classmethod
    def environment(cls) -> dict[str, EnvironmentKey]:
        """Name the environment variables this model reads, and where their values go."""

        def remediator(key: str, read: Any) -> EnvironmentKey:
            return EnvironmentKey(place=("remediator", key), read=read)

        return {
            **super().environment(),
            "ERROR_MONITORING_ENABLED": remediator("enabled", _read_switch),
            "AUTO_RECOVERY_ENABLED": remediator("auto_recovery", _read_switch),
            "MAX_RECOVERY_ATTEMPTS": remediator("max_attempts", _read_count),
            "ERROR_LOG_LEVEL": remediator("log_level", _read_level),
            "ERROR_RETENTION_DAYS": remediator("retention", lambda text: f"{_read_count(text)}d"),
        }

    @property
    def exporter_url(self) -> str:
        """Return where the remediator asks for health."""
        return (self.remediator.exporter or f"http://{self.exporter.listen}").rstrip("/")

    @property
    def alertmanager_urls(self) -> tuple[str, ...]:
        """Return every Alertmanager that is asked and told."""
        urls = self.remediator.alertmanagers or self.exporter.alertmanagers
        return tuple(url.rstrip("/") for url in urls or (f"http://{self.alertmanager.listen}",))

    def warnings(self) -> list[str]:
        """Say what is allowed but probably not meant."""
        found = super().warnings()
        if self.prometheus.scrape_interval > _LONGEST_SCRAPE:
            limit = f"{_LONGEST_SCRAPE:g} s"
            found.append(f"prometheus.scrape_interval: above {limit} the shipped rules see too few samples")
        if "people" not in self.alertmanager.model_fields_set:
            found.append(
                "alertmanager.people: is missing, so no person hears of alerts; give webhook addresses, "
                "or [] if nobody is to be told or your own Alertmanager does it"
            )
        return found

    @property
    def settings(self) -> Settings:
        """Return the limits that hold for every playbook."""
        section = self.remediator
        recovery = self.error_monitoring.recovery if self.error_monitoring else None
        given = section.model_fields_set
        attempts = recovery.max_attempts if recovery and "max_attempts" not in given else None
        multiplier = recovery.backoff_multiplier if recovery and "backoff_multiplier" not in given else None
        return Settings(
            auto_recovery=section.auto_recovery and section.enabled,
            max_attempts=attempts or section.max_attempts,
            backoff=section.backoff,
            backoff_multiplier=multiplier or section.backoff_multiplier,
            settle=section.settle,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration with its playbooks, ready for use."""

    file: Path
    config: StackConfig
    playbooks: tuple[Playbook, ...]
    warnings: tuple[str, ...]


def load(file: Path, environment: Mapping[str, str] | None = None) -> Loaded:
    """Read a configuration and its playbook files.

    Raises ConfigError with every mistake in all of the files at once, each with its place.
    """
    mistakes: list[Mistake] = []
    config: StackConfig | None = None
    try:
        config = load_config(file, StackConfig, environment)
    except ConfigError as error:
        mistakes += error.mistakes
    # Playbook files are read even when the main file is wrong, so that all mistakes show in one go.
    named = config.playbooks if config else _playbook_names(file)
    playbooks = _load_playbooks(file, named, mistakes)
    if config is not None:
        mistakes += _cross_mistakes(file, config, playbooks)
    if mistakes or config is None:
        raise ConfigError(mistakes)
    return Loaded(file=file, config=config, playbooks=playbooks, warnings=tuple(config.warnings()))


def _playbook_names(file: Path) -> tuple[str, ...]:
    try:
        data = read_document(file).data
    except ConfigError:
        return ()  # told already
    named = data.get("playbooks", ["shipped"]) if isinstance(data, dict) else []
    return tuple(item for item in named if isinstance(item, str)) if isinstance(named, list) else ()


def _load_playbooks(
    file: Path, named: tuple[str | Playbook, ...], mistakes: list[Mistake]
) -> tuple[Playbook, ...]:
    playbooks: list[Playbook] = []
    for item in named:
        if isinstance(item, Playbook):
            playbooks.append(item)
            continue
        try:
            path = SHIPPED if item == "shipped" else file.parent / item
            playbooks += _read_playbooks(read_document(path))
        except ConfigError as error:
            mistakes += error.mistakes
    return tuple(playbooks)


def _read_playbooks(document: Document) -> tuple[Playbook, ...]:
    try:
        return PlaybookFile.model_validate(document.data).playbooks
    except ValidationError as error:
        raise ConfigError(mistakes_of(error, document)) from error


def _cross_mistakes(file: Path, config: StackConfig, playbooks: tuple[Playbook, ...]) -> list[Mistake]:
    names = [playbook.name for playbook in playbooks]
    found: list[tuple[Place, str]] = [
        (("playbooks",), f"two playbooks are named {name!r}")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    for playbook in playbooks:
        told = {channel for rung in playbook.rungs for step in rung.steps for channel in step.channels}
        unknown = sorted((told | set(playbook.escalate.notify)) - set(config.remediator.channels))
        found += [
            (("playbooks",), f"{playbook.name}: there is no channel {channel!r} in remediator.channels")
            for channel in unknown
        ]
        longest = max((budget.window for budget in playbook.limits.budgets), default=0.0)
        if longest > config.remediator.retention:
            message = (
                f"runs are forgotten sooner than the longest budget of playbook {playbook.name} counts them"
            )
            found.append((("remediator", "retention"), message))
    document = read_document(file)
    return [document.mistake(place, message) for place, message in found]


def _read_switch(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise ValueError("must be true or false")
    return text.lower() in ("true", "1", "yes", "on")


def _read_count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError("must be a whole number greater than 0")
    return int(text)


def _read_level(text: str) -> str:
    return {"WARN": "WARNING", "CRITICAL": "ERROR"}.get(text.upper(), text.upper())


def read_token(token: Token, environment: Mapping[str, str] = os.environ) -> str:
    """Return the secret itself. Raises ValueError, without the secret, when it is missing or too short."""
    if token.env is not None:
        secret = environment.get(token.env, "")
        place = f"the variable {token.env}"
    else:
        place = f"the file {token.file}"
        try:
            secret = Path(token.file or "").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ValueError(f"token {token.name}: {place} cannot be read: {reason}") from error
    if len(secret) < 16:  # noqa: PLR2004 - shorter secrets can be guessed
        raise ValueError(f"token {token.name}: {place} must hold at least 16 characters")
    return secret
