"""The examples of docs/api.md are as the application answers, key by key."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from remediator.calls import call

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)]


def example(*keys: str) -> Any:
    """Return the one example that has these keys."""
    (found,) = [value for value in EXAMPLES if set(keys) <= value.keys()]
    return found


def get(application: Any, path: str) -> Any:
    return call("GET", f"{application.url}/api/monitoring{path}", timeout=10.0).json()


def an_error(application: Any) -> str:
    shown = example("error", "runs")["error"]
    events = [{**event, "id": "", "raised": []} for event in shown["events"]]
    sent = {**events[0], "service": shown["service"], "system": shown["system"]}
    (error,) = application.post("/errors", sent)["errors"]
    return str(error)


def test_a_list_of_errors(application: Any) -> None:
    an_error(application)

    answer = get(application, "/errors")

    shown = example("errors", "summary")
    assert answer.keys() == shown.keys()
    assert answer["errors"][0].keys() == shown["errors"][0].keys()


def test_one_error(application: Any) -> None:
    answer = get(application, f"/errors/{an_error(application)}")

    shown = example("error", "runs")
    assert answer.keys() == shown.keys()
    assert answer["error"].keys() == shown["error"].keys()
    assert answer["error"]["suggestedFix"].keys() == shown["error"]["suggestedFix"].keys()
    assert answer["error"]["suggestedFix"]["action"] == shown["error"]["suggestedFix"]["action"]
    for key in ("type", "service", "subject"):
        assert answer["error"][key] == shown["error"][key]


def test_one_event_and_a_batch(application: Any) -> None:
    one = re.search(r"-d '(\{\"service\".*?\})'", PAGE)
    assert one is not None

    assert application.post("/errors", json.loads(one[1])).keys() == example("accepted", "id").keys()
    batch = example("sender", "seq")
    assert application.post("/errors", batch)["accepted"] == len(batch["events"])
    assert application.post("/errors", batch)["repeated"]


@pytest.mark.parametrize("word", ["", "/start", "/success", "/fail", "/0", "/17"])
def test_what_is_known_of_a_heartbeat(application: Any, word: str) -> None:
    text = re.search(r"The answer is what is known: `\{(.*?)\}`", PAGE, flags=re.DOTALL)
    assert text is not None

    answer = application.post(f"/heartbeats/nightly-export{word}")

    assert answer.keys() == set(re.findall(r'"(\w+)"', text[1]))
    assert f"`{answer['status']}`" in PAGE
