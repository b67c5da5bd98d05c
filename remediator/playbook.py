"""Playbooks as people write them: strict models, pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from exporter.fields import Duration, Name, Strict
from remediator.match import Matcher, parse_matcher
from remediator.run import PROVES_ITSELF
from soulfra_monitor.durations import parse_duration

BUDGET_LIMIT = 7 * 86400.0
"""Seconds. The longest window of a budget; past runs are looked at no further back than a little more."""


class Mode(StrEnum):
    """How far a playbook may go."""

    OFF = "off"
    SHADOW = "shadow"  # plan and record, never execute
    APPROVE = "approve"  # a person says yes first
    AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At most so many runs in a window."""

    count: int
    window: float  # seconds


def _read_budget(value: object) -> object:
    if isinstance(value, Budget):
        return value
    count, slash, window = str(value).partition("/")
    if not slash or not count.strip().isdecimal():
        raise ValueError(f"{value!r} is not a budget; write for example 3/1h")
    budget = Budget(count=int(count), window=parse_duration(window.strip()))
    if not 0 < budget.window <= BUDGET_LIMIT:
        raise ValueError(f"{value!r}: the window must be longer than 0s and at most 7d")
    return budget


def _read_budgets(value: object) -> object:
    return tuple(_read_budget(item) for item in (value if isinstance(value, list | tuple) else [value]))


def _read_share(value: object) -> object:
    if isinstance(value, str) and value.endswith("%") and value[:-1].strip().isdecimal():
        if not 0 < int(value[:-1]) < 100:  # noqa: PLR2004 - per cent
            raise ValueError("must be from 1% to 99%: the service to repair is not up itself")
        return int(value[:-1]) / 100
    return value


Budgets = Annotated[tuple[Budget, ...], BeforeValidator(_read_budgets)]


class Limits(Strict):
    """How often a playbook may run, and next to what."""

    per_target: Budgets = ()
    per_playbook: Budgets = ()
    everywhere: Budgets = ()
    at_once: Annotated[int, Field(ge=1)] | None = None
    min_healthy: Annotated[float, BeforeValidator(_read_share), Field(ge=0)] | None = None
    """A share below 1 (or ``50%``) of all services, or from 1 up a number of them."""

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Every budget, whatever it counts."""
        return (*self.per_target, *self.per_playbook, *self.everywhere)


class Retry(Strict):
    """How often one step is tried again inside its rung; a permanent refusal ends it at once."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 1
    backoff: Annotated[float, Field(ge=0, le=60)] = 1.0  # seconds before the second try, doubled after each


class RestartArgs(Strict):
    """Restart a service of the inventory as its configuration says, gracefully first."""

    service: str


class HttpArgs(Strict):
    """Call an address; any status in ``expect`` is success."""

    url: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: Mapping[str, str] = {}
    json_: Any = Field(default=None, alias="json")
    expect: tuple[int, ...] = (200, 201, 202, 204)

    @field_validator("url")
    @classmethod
    def _host_is_fixed(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError("must be an http:// or https:// address")
        if "{" in parts.netloc:
            raise ValueError("the host must not come from a template: whoever writes labels would choose it")
        return url


_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh"})
_TAKES_SCRIPT = re.compile(r"-[A-Za-z]*c[A-Za-z]*")  # -c, alone or among other letters


def _has_template(text: str) -> bool:
    return any(mark in text for mark in ("{{", "{%"))


def _scripts(argv: tuple[str, ...]) -> Iterator[str]:
    """Find what a shell in *argv* would read as program text: what follows -c, up to its first operand."""
    for index, word in enumerate(argv):
        if word.rpartition("/")[2] not in _SHELLS:
            continue
        given = argv[index + 1 :]
        asked = next((at for at, option in enumerate(given) if _TAKES_SCRIPT.fullmatch(option)), len(given))
        for text in given[asked + 1 :]:
            yield text
            if not text.startswith(("-", "+")):
                break


class CommandArgs(Strict):
    """Run a program; an argument list, never a shell."""

    argv: Annotated[tuple[str, ...], Field(min_length=1)]
    cwd: str | None = None
    env: Mapping[str, str] = {}

    @field_validator("cwd")
    @classmethod
    def _folder_is_fixed(cls, cwd: str | None) -> str | None:
        if cwd is not None and _has_template(cwd):
            raise ValueError(
                "the folder must not come from a template: whoever writes labels would choose it"
            )
        return cwd

    @field_validator("argv")
    @classmethod
    def _script_is_fixed(cls, argv: tuple[str, ...]) -> tuple[str, ...]:
        if any(_has_template(text) for text in _scripts(argv)):
            raise ValueError(
                "a shell's -c must not have a template in it: whoever writes labels would write commands; "
                'give the value as an argument: [sh, -c, \'echo "$1"\', sh, "{{ labels.x }}"]'
            )
        return argv

    @field_validator("argv")
    @classmethod
    def _program_is_fixed(cls, argv: tuple[str, ...]) -> tuple[str, ...]:
        if "{" in argv[0]:
            raise ValueError(
                "the program must not come from a template: whoever writes labels would choose it"
            )
        return argv


class HookArgs(Strict):
    """Call a hook that a service of the inventory offers, for example reconnect_redis."""

    service: str
    hook: str


class FileArgs(Strict):
    """Mend what a service lists under ``paths``: the entries that are the path or contain it."""

    service: str
    path: str


class WaitArgs(Strict):
    """Do nothing for a while."""

    seconds: Annotated[float, Field(gt=0, le=300)]


class NotifyArgs(Strict):
    """Tell channels something."""

    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    message: str


STEP_ARGS: dict[str, type[Strict]] = {
    "restart": RestartArgs,
    "http": HttpArgs,
    "command": CommandArgs,
    "hook": HookArgs,
    "file": FileArgs,
    "wait": WaitArgs,
    "notify": NotifyArgs,
}
"""What each action takes. The same keys as ``remediator.actions.ACTIONS``; a test holds them together."""

_COMMON = ("timeout", "retry", "on_crash")


class PlaybookStep(Strict):
    """One action with its arguments, still with templates in them."""

    action: str
    args: Strict
    timeout: Duration = 30.0
    retry: Retry = Retry()
    on_crash: Literal["verify", "rerun", "fail"] = "verify"
    """What follows when the remediator died in it and the service is unhealthy: try again after waiting for
    the effect (``verify``), try again at once (``rerun``), or give the error up (``fail``)."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels this step tells, if it tells any."""
        return self.args.channels if isinstance(self.args, NotifyArgs) else ()

    @model_validator(mode="before")
    @classmethod
    def _one_action(cls, value: object) -> object:
        if not isinstance(value, dict) or "action" in value:
            return value
        names = [key for key in value if key not in _COMMON]
        if len(names) != 1 or names[0] not in STEP_ARGS:
            given = ", ".join(map(str, names)) or "none"
            raise ValueError(f"a step has exactly one action of {', '.join(STEP_ARGS)}; here: {given}")
        common = {key: value[key] for key in _COMMON if key in value}
        return {"action": names[0], "args": _read_args(names[0], value[names[0]]), **common}


def _read_args(name: str, value: object) -> Strict:
    try:
        return STEP_ARGS[name].model_validate(value)
    except ValidationError as error:
        told = [f"{'.'.join(map(str, item['loc'])) or name}: {item['msg']}" for item in error.errors()]
        raise ValueError(f"{name}: {'; '.join(told)}") from error


class Verify(Strict):
    """When a rung counts as a recovery: so many healthy probes in a row before the deadline."""

    healthy: Annotated[int, Field(ge=1, le=100)] = 3
    every: Duration = 0.25
    within: Duration = 30.0


class Rung(Strict):
    """One try: steps in order, then their proof."""

    steps: Annotated[tuple[PlaybookStep, ...], Field(min_length=1)]
    verify: Verify = Verify()


class Escalate(Strict):
    """Whom to call when the ladder ends."""

    notify: tuple[str, ...] = ("people",)


class Playbook(Strict):
    """What to do about which signals, and within which limits."""

    name: Name
    match: Annotated[tuple[str, ...], Field(min_length=1)]
    mode: Mode = Mode.AUTO
    limits: Limits = Limits()
    cooldown: Duration = 10.0  # from the end of a run
    attempts: Annotated[int, Field(ge=1, le=20)] | None = None  # rungs per error; default: the remediator's
    if_offered: bool = False
    """Only for services that offer what its steps need: a restart section, the hook, the path. Without it the
    playbook holds for all, and what is missing is a mistake that people are told of."""
    rungs: Annotated[tuple[Rung, ...], Field(min_length=1)]
    escalate: Escalate = Escalate()

    @field_validator("mode", mode="before")
    @classmethod
    def _yaml_off_is_false(cls, value: object) -> object:
        return Mode.OFF if value is False else value  # YAML 1.1 reads a bare off as false

    @field_validator("match")
    @classmethod
    def _matchers_parse(cls, match: tuple[str, ...]) -> tuple[str, ...]:
        for text in match:
            parse_matcher(text)
        return match

    @property
    def matchers(self) -> tuple[Matcher, ...]:
        """The parsed conditions; all must hold."""
        return tuple(parse_matcher(text) for text in self.match)

    @property
    def restarts(self) -> bool:
        """Whether any step restarts a service."""
        return "restart" in self.actions

    @property
    def only_mends(self) -> bool:
        """Whether it does nothing but mend what an action proves itself, and costs a service nothing."""
        return self.actions <= PROVES_ITSELF

    @property
    def actions(self) -> frozenset[str]:
        """The names of everything that it may do."""
        return frozenset(step.action for rung in self.rungs for step in rung.steps)


class PlaybookFile(Strict):
    """The content of a playbook file."""

    playbooks: tuple[Playbook, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [playbook.name for playbook in self.playbooks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two playbooks have the same name: {', '.join(twice)}")
        return self
