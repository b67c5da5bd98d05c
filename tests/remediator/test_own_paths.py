"""Which paths a service lists, and which playbooks are for it because of what it offers."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from exporter.config import OwnPath, Service
from remediator.places import entries_over
from remediator.plan import PlanError, make_plan, offers
from remediator.playbook import Playbook

HERE, DATA = Path("/etc/soulfra"), Path("/var/lib/soulfra")


def own(**fields: Any) -> OwnPath:
    return OwnPath.model_validate({"path": "/srv/out", **fields})


def over(path: str, *entries: dict[str, Any]) -> list[str]:
    service = Service.model_validate({"paths": entries})
    return [str(where) for where, _ in entries_over(service, path, HERE, DATA)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"path": "/"}, "root of everything"),
        ({"path": ""}, "must be a path"),
        ({"path": "/srv/../etc"}, "must be a path"),
        ({"path": "../etc"}, "must be a path"),
        ({"path": "/srv/out/"}, "must be a path"),
        ({"path": "/srv/\0"}, "must be a path"),
        ({"mode": 488}, "in quotes"),
        ({"mode": 750}, "in quotes"),
        ({"mode": "0999"}, "in quotes"),
        ({"mode": "rwx"}, "in quotes"),
        ({"mode": "4755"}, "run as somebody else"),
        ({"mode": "2755", "kind": "file"}, "run as somebody else"),
        ({"kind": "lock", "create": True}, "only removed"),
        ({"kind": "lock", "mode": "0600"}, "only removed"),
        ({"kind": "socket"}, "'directory', 'file' or 'lock'"),
        ({"owner": -1}, "valid string"),
        ({"size": 3}, "not permitted"),
    ],
)
def test_a_wrong_entry_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        own(**given)


@pytest.mark.parametrize("mode", ["750", "0750", "2770", "1777"])
def test_modes_are_octal_digits(mode: str) -> None:
    assert own(mode=mode).mode == mode


def test_owners_may_be_numbers() -> None:
    assert (own(owner=1000, group="app").owner, own(owner=1000, group="app").group) == ("1000", "app")


def test_entries_are_those_that_are_the_path_or_contain_it_outermost_first() -> None:
    entries = [
        {"path": "/srv/out/in"},
        {"path": "/srv/out"},
        {"path": "/srv/outer"},
        {"path": "/srv/out/in/f", "kind": "file"},
    ]

    assert over("/srv/out/in/f", *entries) == ["/srv/out", "/srv/out/in", "/srv/out/in/f"]
    assert over("/srv/out/in/g", *entries) == ["/srv/out", "/srv/out/in"]
    assert over("/srv/out", *entries) == ["/srv/out"]
    assert over("/srv", *entries) == []
    assert over("/srv/out/in/f/g", *entries) == ["/srv/out", "/srv/out/in"]


@pytest.mark.parametrize(
    "path", ["srv/out", "/srv/out/../../etc", "/srv//out", "/srv/out/.", "/srv/out\0", ""]
)
def test_what_is_no_plain_name_is_covered_by_nothing(path: str) -> None:
    assert over(path, {"path": "/srv/out"}) == []


def test_relative_entries_begin_at_the_configuration_or_at_the_data() -> None:
    assert over("/etc/soulfra/out/a", {"path": "./out"}) == ["/etc/soulfra/out"]
    assert over("/var/lib/soulfra/q", {"path": "{data}/q", "kind": "lock"}) == ["/var/lib/soulfra/q"]


# -- what a service offers ----------------------------------------------------------------------------


def playbook(*steps: dict[str, Any]) -> Playbook:
    rungs = [{"steps": [step]} for step in steps]
    return Playbook.model_validate({"name": "p", "match": ["x=y"], "if_offered": True, "rungs": rungs})


RESTART = {"restart": {"service": "{{ target }}"}}
HOOK = {"hook": {"service": "{{ target }}", "hook": "reconnect_redis"}}
FILE = {"file": {"service": "{{ target }}", "path": "{{ labels.path }}"}}


@pytest.mark.parametrize(
    ("service", "steps", "declared", "offered"),
    [
        ({}, [RESTART], False, False),
        ({"restart": {"command": ["x"]}}, [RESTART], False, True),
        ({"restart": {"command": ["x"]}}, [HOOK, RESTART], False, False),
        ({"hooks": {"reconnect_redis": "http://127.0.0.1/"}}, [HOOK], False, True),
        ({"hooks": {"other": "http://127.0.0.1/"}}, [HOOK], False, False),
        ({}, [FILE], True, True),
        ({}, [FILE], False, False),
        ({}, [{"wait": {"seconds": 1}}], False, True),
    ],
)
def test_a_playbook_is_for_services_that_have_what_its_steps_need(
    service: dict[str, Any], steps: list[dict[str, Any]], declared: bool, offered: bool
) -> None:
    assert offers(Service.model_validate(service), playbook(*steps), path_is_declared=declared) is offered


def plan(service: dict[str, Any], step: dict[str, Any] = FILE, **labels: str) -> Any:
    services = {"web": Service.model_validate(service), "other": Service()}
    values = {"target": "web", "labels": labels}
    return make_plan(playbook(step), values, services, str).rungs[0].steps[0].args


def test_a_planned_mend_names_the_service_and_the_path_as_it_came() -> None:
    args = plan({"paths": [{"path": "/srv/out"}]}, path="/srv/out/{{ 7*7 }}")

    assert (args.service, args.path) == ("web", "/srv/out/{{ 7*7 }}")


@pytest.mark.parametrize(
    ("service", "step", "told"),
    [
        ({}, FILE, "has no paths"),
        ({"paths": [{"path": "/a"}]}, {"file": {"service": "other", "path": "/a"}}, "has no paths"),
        ({"paths": [{"path": "/a"}]}, {"file": {"service": "no", "path": "/a"}}, "not a configured service"),
    ],
)
def test_a_mend_of_what_is_not_there_is_no_plan(
    service: dict[str, Any], step: dict[str, Any], told: str
) -> None:
    with pytest.raises(PlanError, match=told):
        plan(service, step, path="/a")


def test_a_mend_without_a_path_is_no_plan() -> None:
    with pytest.raises(PlanError, match="path"):
        plan({"paths": [{"path": "/a"}]})
