"""``soulfra check`` finds mistakes in and between configuration, playbooks and rules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from remediator.cli import main

Check = Callable[..., Result]

RESTART = {"restart": {"service": "front"}}


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def check(config: dict[str, Any] | str, rules: dict[str, Any] | None = None) -> Result:
        file = tmp_path / "soulfra.yml"
        file.write_text(config if isinstance(config, str) else yaml.safe_dump(config), encoding="utf-8")
        arguments = ["check", "--config", str(file)]
        if rules is not None:
            folder = tmp_path / "rules"
            folder.mkdir()
            (folder / "own.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
            arguments += ["--rules", str(folder)]
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return check


def playbook(alert: str = "SoulfraServiceDown", step: dict[str, Any] = RESTART) -> dict[str, Any]:
    return {"name": "mine", "match": [f'alertname="{alert}"'], "rungs": [{"steps": [step]}]}


def front(**more: Any) -> dict[str, Any]:
    return {"front": {"process": {"port": 4999}, "restart": {"command": ["{python}"]}, **more}}


def test_no_services_at_all_is_fine(check: Check) -> None:
    done = check({"services": {}})

    assert done.exit_code == 0
    assert done.stdout.startswith("OK: 0 services, ")


def test_the_example_platform_is_fine() -> None:
    done = CliRunner().invoke(main, ["check", "--config", "examples/platform/soulfra.yml"])

    assert done.exit_code == 0, done.output
    assert done.stderr == ""


def test_alerts_without_a_playbook_are_named(check: Check) -> None:
    done = check({"services": {}})

    assert "SoulfraEdgeFailing" in done.stdout.splitlines()[1]
    assert "SoulfraServiceDown" not in done.stdout.splitlines()[1]


def test_every_mistake_stands_on_its_own_line_with_its_place(check: Check, tmp_path: Path) -> None:
    done = check("services:\n  front:\n    colour: red\nexporter:\n  interval: 5\n  listen: nowhere\n")

    file = tmp_path / "soulfra.yml"
    assert done.exit_code == 2
    assert [line.split(": ")[:2] for line in done.stderr.splitlines()] == [
        [f"{file}:3", "services.front.colour"],
        [f"{file}:5", "exporter.interval"],
        [f"{file}:6", "exporter.listen"],
    ]
    assert done.stdout == ""


def test_a_file_that_is_not_there_is_told_in_one_line() -> None:
    done = CliRunner().invoke(main, ["check", "--config", "no-such.yml"])

    assert done.exit_code == 2
    assert done.stderr == "no-such.yml: cannot be read: No such file or directory\n"


def test_a_playbook_for_an_alert_that_no_rule_raises_is_a_mistake(check: Check, tmp_path: Path) -> None:
    done = check({"services": front(), "playbooks": [playbook("SoulfraServiceGone")]})

    assert done.exit_code == 2
    assert "mine: no rule has the alertname 'SoulfraServiceGone'" in done.stderr
    assert done.stderr.startswith(f"{tmp_path / 'soulfra.yml'}:")


def test_a_step_for_a_service_that_is_not_there_is_a_mistake(check: Check) -> None:
    done = check({"services": {}, "playbooks": [playbook()]})

    assert "mine: there is no service 'front'" in done.stderr


def test_a_hook_that_the_service_does_not_offer_is_a_mistake(check: Check) -> None:
    step = {"hook": {"service": "front", "hook": "reconnect_redis"}}

    done = check({"services": front(), "playbooks": [playbook(step=step)]})

    assert "mine: the service 'front' has no hook 'reconnect_redis'" in done.stderr


def test_a_restart_of_a_service_that_cannot_be_restarted_is_a_mistake(check: Check) -> None:
    done = check({"services": {"front": {"process": {"port": 4999}}}, "playbooks": [playbook()]})

    assert "mine: the service 'front' has no restart section" in done.stderr


def test_a_rule_with_a_problem_that_is_on_no_list_is_a_mistake(check: Check, tmp_path: Path) -> None:
    rule = {"alert": "Mine", "expr": "vector(1)", "labels": {"problem": "sadness"}}

    config = {"playbooks": [], "alertmanager": {"people": []}}
    done = check(config, rules={"groups": [{"name": "own", "rules": [rule]}]})

    assert done.exit_code == 2
    assert "Mine: there is no problem 'sadness'" in done.stderr
    assert done.stderr.startswith(f"{tmp_path / 'rules' / 'own.yml'}:")


def test_a_matched_alert_without_problem_never_arrives_and_is_a_mistake(check: Check) -> None:
    rule = {"alert": "Mine", "expr": "vector(1)"}

    done = check(
        {"services": front(), "playbooks": [playbook("Mine")]},
        rules={"groups": [{"name": "own", "rules": [rule]}]},
    )

    assert "mine: the alert Mine lacks the label problem, so Alertmanager keeps it" in done.stderr


def test_a_service_that_nobody_can_restart_is_a_warning(check: Check) -> None:
    done = check({"services": {"front": {"process": {"port": 4999}}}})

    assert done.exit_code == 0
    assert "warning: services.front: has no restart section" in done.stderr


def test_a_token_that_cannot_be_read_is_a_warning_without_the_token(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORT_TOKEN", "too-short")

    done = check({"remediator": {"tokens": [{"name": "ops", "role": "operator", "env": "SHORT_TOKEN"}]}})

    assert "warning: remediator.tokens: token ops: the variable SHORT_TOKEN" in done.stderr
    assert "too-short" not in done.output


def test_many_services_that_nobody_can_restart_are_one_warning(check: Check) -> None:
    done = check({"services": {f"s{i}": {"process": {"port": 4999}} for i in range(5000)}})

    lines = [line for line in done.stderr.splitlines() if "no restart section" in line]
    assert len(lines) == 1
    assert "services.s0: has no restart section" in lines[0]
    assert lines[0].endswith("(and 4,999 more services)")


def test_a_web_config_with_mistakes_is_a_mistake(check: Check, tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: gone.pem, key_file: gone.key}\n")

    done = check({"exporter": {"web_config": "web.yml"}})

    assert done.exit_code == 2
    assert "web.yml:1: tls_server_config.cert_file: cannot be read" in done.stderr


def test_users_at_the_exporter_keep_the_remediator_out_and_are_a_warning(
    check: Check, tmp_path: Path
) -> None:
    hashed = "$2y$04$" + "a" * 53
    (tmp_path / "web.yml").write_text(yaml.safe_dump({"basic_auth_users": {"ops": hashed}}))

    kept_out = check({"exporter": {"listen": "127.0.0.1:39877", "web_config": "web.yml"}})
    another_way = check(
        {
            "exporter": {"listen": "127.0.0.1:39877", "web_config": "web.yml"},
            "remediator": {"exporter": "http://127.0.0.1:39878"},
        }
    )

    told = "exporter.web_config: the port wants a password or a certificate, which the remediator"
    assert told in kept_out.stderr
    assert kept_out.exit_code == 0
    assert "exporter.web_config" not in another_way.stderr
