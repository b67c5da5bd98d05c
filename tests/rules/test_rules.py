"""The shipped rules and configurations: valid, tested with promtool, and complete."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from soulfra_monitor.problems import Problem

ROOT = Path(__file__).parents[2]
RULES = ROOT / "rules/soulfra.yml"
ALERTMANAGER = ROOT / "rules/alertmanager/alertmanager.yml"
PROMETHEUS = ROOT / "rules/prometheus/prometheus.yml"
RUNBOOKS = ROOT / "docs/runbooks"
RUNBOOK_URL = "https://github.com/Soulfra/soulfra-monitor/blob/main/docs/runbooks"
DOWN = {
    "alertname": "SoulfraServiceDown",
    "target": "trust-engine",
    "problem": "service_down",
    "severity": "critical",
}

ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
SOULFRA_ALERTS = [rule for rule in ALERTS if rule["alert"] != "Watchdog"]


def succeed(*command: str | Path) -> str:
    """Run a tool that has to succeed, and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def name(rule: dict[str, Any]) -> str:
    return str(rule["alert"])


def by_series(rule: dict[str, Any]) -> bool:
    """Whether the alert's problem is a label of its series, which the exporter takes from the closed list."""
    is_told = rule["labels"]["problem"] == "{{ $labels.problem }}"
    return is_told and bool(re.search(r"by \([^)]*\bproblem\b", rule["expr"]))


def test_promtool_accepts_the_rules_with_all_lints(promtool: str) -> None:
    succeed(promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES)


def test_promtool_accepts_the_example_prometheus_config(promtool: str) -> None:
    succeed(promtool, "check", "config", PROMETHEUS)


def test_amtool_accepts_the_alertmanager_config(amtool: str) -> None:
    succeed(amtool, "check-config", ALERTMANAGER)


@pytest.mark.parametrize("path", sorted((ROOT / "rules/tests").glob("*.yml")), ids=lambda path: path.stem)
def test_the_rules_behave_as_their_promtool_tests_say(promtool: str, path: Path) -> None:
    succeed(promtool, "test", "rules", path)


def test_beside_the_rules_no_other_yaml_lies_in_their_folder() -> None:
    assert [path.name for path in (ROOT / "rules").glob("*.yml")] == ["soulfra.yml"]


@pytest.mark.parametrize("rule", ALERTS, ids=name)
def test_promtool_tests_see_each_alert_fire_and_not_fire(rule: dict[str, Any]) -> None:
    cases = [
        case
        for path in (ROOT / "rules/tests").glob("*.yml")
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == rule["alert"]
    ]

    assert any(case["exp_alerts"] for case in cases)
    assert rule["alert"] == "Watchdog" or any(not case["exp_alerts"] for case in cases)


@pytest.mark.parametrize("rule", SOULFRA_ALERTS, ids=name)
def test_each_alert_has_the_labels_that_the_remediator_builds_on(rule: dict[str, Any]) -> None:
    labels = rule["labels"]

    assert labels["problem"] in set(Problem) or by_series(rule)
    assert labels["severity"] in {"critical", "warning", "info"}
    assert (labels["severity"] == "warning") == ("impact" in labels)
    assert "target" in labels or "by (target" in rule["expr"] or "target:" in rule["expr"]


def test_no_two_alerts_share_the_target_and_problem_that_would_make_them_one_error() -> None:
    about_monitoring = [
        (rule["labels"]["target"], rule["labels"]["problem"])
        for rule in SOULFRA_ALERTS
        if rule["labels"].get("target", "{{").startswith("soulfra-")
    ]
    about_services = {
        rule["alert"]: rule["labels"]["problem"]
        for rule in SOULFRA_ALERTS
        if not rule["labels"].get("target", "{{").startswith("soulfra-")
    }

    assert len(set(about_monitoring)) == len(about_monitoring)
    assert len(set(about_services.values())) == len(about_services)


@pytest.mark.parametrize("rule", SOULFRA_ALERTS, ids=name)
def test_each_alert_names_its_problem(rule: dict[str, Any]) -> None:
    # Critical errors have problems of their own, which the counter by severity does not know.
    assert (rule["labels"]["problem"] == Problem.OTHER) is (name(rule) == "SoulfraCriticalErrors")


@pytest.mark.parametrize("rule", ALERTS, ids=name)
def test_no_label_of_an_alert_can_change_while_it_fires(rule: dict[str, Any]) -> None:
    assert "$value" not in "".join(rule["labels"].values())
    assert not re.search(r"by \([^)]*reason", rule["expr"])


@pytest.mark.parametrize("rule", ALERTS, ids=name)
def test_no_alert_keeps_firing_after_its_cause_is_gone(rule: dict[str, Any]) -> None:
    assert "keep_firing_for" not in rule


@pytest.mark.parametrize("rule", ALERTS, ids=name)
def test_each_alert_has_annotations_for_a_person(rule: dict[str, Any]) -> None:
    annotations = rule["annotations"]

    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert "{{" not in annotations["summary"]
    assert annotations["runbook_url"] == f"{RUNBOOK_URL}/{rule['alert']}.md"


@pytest.mark.parametrize("alert", [*dict.fromkeys(map(name, ALERTS)), "SoulfraEscalation"])
def test_each_alert_has_a_runbook(alert: str) -> None:
    text = (RUNBOOKS / f"{alert}.md").read_text()

    assert text.startswith(f"# {alert}\n")
    headings = ["What it means", "What Soulfra Monitor does by itself", "Check first", "Fix", "Silence"]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == headings


def test_no_runbook_is_about_an_alert_that_does_not_exist() -> None:
    alerts = {*map(name, ALERTS), "SoulfraEscalation"}

    assert {path.stem for path in RUNBOOKS.glob("*.md")} == alerts


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({"alertname": "Watchdog", "severity": "none"}, "remediator-watchdog"),
        ({**DOWN, "origin": "exporter"}, "remediator,people"),
        ({**DOWN, "origin": "prometheus"}, "remediator,people"),
        (
            {
                "alertname": "SoulfraServiceSlow",
                "target": "a",
                "problem": "service_timeout",
                "severity": "warning",
            },
            "remediator,people",
        ),
        ({**DOWN, "alertname": "SoulfraEscalation"}, "people"),
        ({"alertname": "Foreign", "problem": "other", "severity": "info"}, "remediator,nobody"),
        ({"alertname": "Foreign", "severity": "critical"}, "people"),
        ({"alertname": "Foreign", "severity": "info"}, "nobody"),
        ({"alertname": "ForeignWithoutSeverity"}, "people"),
        ({"alertname": "ForeignWithProblemOnly", "problem": "disk_full"}, "remediator,people"),
        ({"alertname": "Foreign", "problem": "disk_full", "severity": "page"}, "remediator,people"),
        ({"alertname": "Foreign", "severity": "page"}, "people"),
    ],
)
def test_alertmanager_routes_each_kind_of_alert(amtool: str, labels: dict[str, str], receivers: str) -> None:
    matched = succeed(
        amtool,
        "config",
        "routes",
        "test",
        f"--config.file={ALERTMANAGER}",
        *[f"{label}={value}" for label, value in labels.items()],
    )

    assert matched.strip() == receivers
