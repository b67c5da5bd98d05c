"""From a playbook and an error to rendered steps. Pure: the same inputs give the same plan.

Label values are hostile. They are rendered into single values, never into program text: a value
with template or shell syntax in it stays a plain string.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from exporter.config import Service
from remediator.playbook import STEP_ARGS, HookArgs, Playbook, PlaybookStep, Retry, Verify
from soulfra_monitor.redaction import redact_value

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

    from exporter.fields import Strict

VALUE_LIMIT = 8192
_ADDRESS = re.compile(r"^rungs\[\d+\]\.steps\[\d+\]\.http\.url$")  # and no other value that is named url
_INVENTORY_ACTIONS = ("restart", "hook", "file")  # their ``service`` must be one of the inventory


_Offer = Callable[[Service, "Strict", bool], bool]
_OFFERS: Mapping[str, _Offer] = {
    "restart": lambda service, _args, _path: service.restart is not None,
    "hook": lambda service, args, _path: isinstance(args, HookArgs) and args.hook in service.hooks,
    "file": lambda _service, _args, path_is_declared: path_is_declared,
}
"""By action: whether a service has what it needs."""


class PlanError(ValueError):
    """A template that cannot be rendered, or renders to something that must not be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """One action, ready to be executed."""

    action: str
    args: "Strict"
    timeout: float  # seconds
    retry: Retry
    on_crash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRung:
    """One try with its proof."""

    steps: tuple[PlannedStep, ...]
    verify: Verify


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will do."""

    playbook: str
    rungs: tuple[PlannedRung, ...]

    def as_json(self) -> tuple[Mapping[str, Any], ...]:
        """Return the plan as the store keeps it and the API shows it: secrets masked."""
        return tuple(
            {
                "steps": [
                    {
                        "action": step.action,
                        "args": redact_value(step.args.model_dump(mode="json", by_alias=True)),
                        "timeout": step.timeout,
                    }
                    for step in rung.steps
                ],
                "verify": rung.verify.model_dump(mode="json"),
            }
            for rung in self.rungs
        )


def offers(service: Service, playbook: Playbook, *, path_is_declared: bool) -> bool:
    """Whether *service* has what every step of *playbook* needs; *path_is_declared*: the error's path is."""
    return all(
        step.action not in _OFFERS or _OFFERS[step.action](service, step.args, path_is_declared)
        for rung in playbook.rungs
        for step in rung.steps
    )


def make_plan(
    playbook: Playbook,
    values: Mapping[str, Any],
    services: Mapping[str, Service],
    expand: Callable[[str], str],
) -> Plan:
    """Render every step of *playbook* with *values*; *expand* puts our folders into a command first.

    Raises PlanError when a template names something that is not there, when a rendered argument
    would be read as an option, or when a service is not in the inventory.
    """
    rungs = tuple(
        PlannedRung(
            steps=tuple(
                _plan_step(step, values, services, expand, f"rungs[{number}].steps[{index}]")
                for index, step in enumerate(rung.steps)
            ),
            verify=rung.verify,
        )
        for number, rung in enumerate(playbook.rungs)
    )
    return Plan(playbook=playbook.name, rungs=rungs)


def _plan_step(
    step: PlaybookStep,
    values: Mapping[str, Any],
    services: Mapping[str, Service],
    expand: Callable[[str], str],
    place: str,
) -> PlannedStep:
    raw = step.args.model_dump(by_alias=True)
    if step.action == "command":
        # Before rendering: a label with {data} in it stays a plain string.
        raw["argv"] = [expand(part) for part in raw["argv"]]
    args = _render(raw, values, f"{place}.{step.action}")
    if step.action in _INVENTORY_ACTIONS:
        _check_inventory(step.action, args, services, str(values["target"]), place)
    if step.action == "command":
        _check_options(raw["argv"], args["argv"], place)
    if step.action == "http":
        _check_path(args["url"], place)
    return PlannedStep(
        action=step.action,
        args=STEP_ARGS[step.action].model_validate(args),
        timeout=step.timeout,
        retry=step.retry,
        on_crash=step.on_crash,
    )


def _render(value: Any, values: Mapping[str, Any], place: str) -> Any:
    if isinstance(value, str):
        return _render_text(value, values, place)
    if isinstance(value, Mapping):
        return {key: _render(item, values, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_render(item, values, f"{place}[{index}]") for index, item in enumerate(value)]
    return value


def _render_text(text: str, values: Mapping[str, Any], place: str) -> str:
    if "{" not in text:
        return text
    from jinja2 import TemplateError  # noqa: PLC0415 - not needed by a playbook without templates

    try:
        rendered = _templates(for_url=_ADDRESS.search(place) is not None).from_string(text).render(values)
    except TemplateError as error:
        raise PlanError(f"{place}: {error.message or type(error).__name__}") from error
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise PlanError(f"{place}: {error}") from error
    if len(rendered) > VALUE_LIMIT:
        raise PlanError(f"{place}: renders to {len(rendered)} characters, {VALUE_LIMIT} at most")
    if any(character < " " and character not in "\t\n" for character in rendered):
        raise PlanError(f"{place}: renders to control characters")
    return rendered


@cache
def _templates(*, for_url: bool) -> "SandboxedEnvironment":
    from jinja2 import StrictUndefined  # noqa: PLC0415 - as above
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,
        finalize=_quote_for_url if for_url else _no_method,
    )
    # Nothing but the values given: no range(), no cycler().
    environment.globals.clear()
    return environment


def _no_method(value: object) -> object:
    # labels.items is a method of labels, and not the label of that name.
    from jinja2 import Undefined  # noqa: PLC0415 - as above

    if callable(value) and not isinstance(value, Undefined):
        raise TypeError("names a method, not a value; write for example labels['items']")
    return value


def _quote_for_url(value: object) -> object:
    # A value stands for one path segment or parameter; it cannot add others.
    from jinja2 import Undefined  # noqa: PLC0415 - as above

    return value if isinstance(value, Undefined) else quote(str(_no_method(value)), safe="")


def _check_inventory(
    action: str, args: Mapping[str, Any], services: Mapping[str, Service], target: str, place: str
) -> None:
    service = services.get(args["service"])
    if service is None:
        raise PlanError(f"{place}.{action}: {args['service']!r} is not a configured service")
    if action == "restart" and service.restart is None:
        raise PlanError(f"{place}.restart: services.{args['service']} has no restart section")
    if action == "hook" and args["hook"] not in service.hooks:
        raise PlanError(f"{place}.hook: services.{args['service']} has no hook {args['hook']!r}")
    if action == "file" and not service.paths:
        raise PlanError(f"{place}.file: services.{args['service']} has no paths")
    if args["service"] != target:
        # Locks, pauses, budgets and approvals are the target's; another service has its own.
        raise PlanError(f"{place}.{action}: may touch {target!r} only, not {args['service']!r}")


def _check_options(templates: list[str], rendered: list[str], place: str) -> None:
    for index, (template, value) in enumerate(zip(templates, rendered, strict=True)):
        if value.startswith("-") and not template.startswith("-"):
            raise PlanError(f"{place}.command.argv[{index}]: {value!r} would be read as an option")


def _check_path(url: str, place: str) -> None:
    if not {".", ".."}.isdisjoint(urlsplit(url).path.split("/")):
        raise PlanError(f"{place}.http.url: '.' or '..' as a part of the path would lead elsewhere")
