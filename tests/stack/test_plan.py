"""What a stack consists of follows from its configuration, and what is missing is told before the start."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from remediator.config import load
from remediator.stack.plan import StackPlan, plan_stack, start_mistakes

Plan = Callable[..., StackPlan]


@pytest.fixture
def plan(tmp_path: Path, stack_config: Callable[..., dict[str, Any]]) -> Plan:
    def plan(*, demo: bool = False, **sections: Any) -> StackPlan:
        file = tmp_path / "soulfra.yml"
        file.write_text(yaml.safe_dump(stack_config(**sections)), encoding="utf-8")
        return plan_stack(load(file, {}), tmp_path / "data", demo=demo)

    return plan


def service(port: int, *command: str, **more: Any) -> dict[str, Any]:
    return {"process": {"port": port}, "restart": {"command": [*command]}, **more}


def test_services_are_started_after_what_they_depend_on(plan: Plan, ports: Callable[[], int]) -> None:
    found = plan(
        demo=True,
        services={
            "front": service(ports(), "{python}", depends_on=["middle"]),
            "middle": service(ports(), "{python}", depends_on=["store"]),
            "store": service(ports(), "{python}"),
        },
    )

    assert found.demo is not None
    assert [name for name, _ in found.demo.services] == ["store", "middle", "front"]


def test_without_demo_no_service_is_started_or_asked_for_its_port(
    plan: Plan, ports: Callable[[], int]
) -> None:
    found = plan(services={"front": service(ports(), "no-such-program")})

    assert found.demo is None
    assert start_mistakes(found) == []


def test_missing_programs_are_named_with_the_package_that_brings_them(plan: Plan) -> None:
    found = plan(
        prometheus={"command": "no-such-prometheus", "listen": "127.0.0.1:19090"},
        alertmanager={"command": "no-such-alertmanager", "listen": "127.0.0.1:19093"},
    )

    told = start_mistakes(found)

    assert any("no-such-prometheus" in line and "apt-get install prometheus)" in line for line in told)
    assert any("no-such-alertmanager" in line and "prometheus-alertmanager)" in line for line in told)


def test_a_missing_program_of_a_demo_service_is_named(plan: Plan, ports: Callable[[], int]) -> None:
    found = plan(demo=True, services={"front": service(ports(), "no-such-program")})

    assert start_mistakes(found) == ["services.front.restart.command: there is no program 'no-such-program'"]


def test_python_in_a_command_is_the_python_that_runs_us(plan: Plan, ports: Callable[[], int]) -> None:
    found = plan(demo=True, services={"front": service(ports(), "{python}", "-V")})

    assert start_mistakes(found) == []
    assert sys.executable == found.exporter.argv[0]


def test_exporter_and_remediator_read_the_same_file(plan: Plan, tmp_path: Path) -> None:
    found = plan()

    for part in (found.exporter, found.remediator):
        assert str(tmp_path / "soulfra.yml") in part.argv


def test_packages_that_the_example_platform_needs_are_missed_before_anything_starts(
    plan: Plan, ports: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remediator.stack.plan.find_spec", lambda name: None)
    found = plan(demo=True, services={"converter": service(ports(), "{python}", "mobile_converter.py")})

    assert any("soulfra-monitor[platform]" in told for told in start_mistakes(found))
