"""docs/metrics-remediator.md lists what the remediator exposes."""

import re
from pathlib import Path
from typing import Any

import prometheus_client.parser
import yaml

from remediator.calls import call

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*?) ?\| (.+) \|$", re.MULTILINE)
BATCH: dict[str, Any] = {
    "sender": {"boot": "a" * 32, "service": "ai-router"},
    "seq": 1,
    "events": [{"service": "ai-router", "message": "timeout"}],
    "calls": [
        {"service": "ai-router", "method": "ask", "caller": "chat-analyzer", "count": 1, "seconds": 0.1}
    ],
    "declared": [
        {"service": "ai-router", "name": "cost", "value": 1.0, "low": 0.1, "high": 2.0},
        {"service": "ai-router", "name": "asked", "value": 1.0, "counter": True},
    ],
    "dropped": {"queue_full": 1},
}


def exposed(application: Any) -> dict[str, tuple[str, set[str], str]]:
    """Return type, labels and help of every metric, by its name as it is queried."""
    text = call("GET", f"{application.url}/metrics", timeout=10.0).body.decode()
    found: dict[str, tuple[str, set[str], str]] = {}
    for family in prometheus_client.parser.text_string_to_metric_families(text):
        if family.name.startswith("process_") or family.name.endswith("_created"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        found[name] = family.type, labels - {"le"}, family.documentation
    return found


def test_the_page_lists_every_metric_and_no_other(application: Any) -> None:
    application.post("/errors", BATCH)
    application.post("/heartbeats/nightly-export/1")
    give_samples(application.metrics)

    rows = ROW.findall((DOCS / "metrics-remediator.md").read_text(encoding="utf-8"))
    written = {name: (kind, set(filter(None, labels.split(", "))), text) for name, kind, labels, text in rows}

    wanted = exposed(application)
    assert not wanted.keys() - written.keys()
    assert written == wanted
    assert len(rows) == len(written)


def give_samples(metrics: Any) -> None:
    """Give each metric that has labels one sample, so that they are seen."""
    for metric in vars(metrics).values():
        names = getattr(metric, "_labelnames", ())
        if names:
            metric.labels(*("x" for _ in names))


def test_its_rules_are_those_on_these_metrics() -> None:
    page = (DOCS / "metrics-remediator.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\((runbooks/\w+\.md)\) \| .* \| `(\w+)` \|$", page, re.MULTILINE)
    rules = yaml.safe_load((DOCS.parent / "rules" / "soulfra.yml").read_text(encoding="utf-8"))
    of_applications = re.compile(r"soulfra_(error_events|calls|heartbeat|declared|sender)_")

    assert {(name, problem) for name, _, problem in rows} == {
        (rule["alert"], rule["labels"]["problem"])
        for group in rules["groups"]
        for rule in group["rules"]
        if of_applications.search(rule["expr"])
    }
    assert [runbook for _, runbook, _ in rows if not (DOCS / runbook).exists()] == []
