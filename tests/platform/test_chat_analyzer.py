"""The chat analyzer reads four formats alike and says what is wrong with what it cannot read."""

import json
from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from tests.platform.conftest import Running, Start

MESSAGES = [
    ("2024-05-01T10:22:00", "ann", "the export failed, what an awful error"),
    ("2024-05-01T10:23:30", "ben", "the export works again"),
    ("2024-05-01T10:24:00", "ann", "great, thanks!"),
    ("2024-05-01T11:05:00", "ben", "you are welcome"),
]
LOGS = {
    "application/json": json.dumps([{"time": t, "author": a, "text": m} for t, a, m in MESSAGES]),
    "text/csv": "Time,Author,Text\n" + "".join(f'{t},{a},"{m}"\n' for t, a, m in MESSAGES),
    "text/plain": "".join(f"[{t.replace('T', ' ')}] {a}: {m}\n" for t, a, m in MESSAGES),
    "text/markdown": "# Support\n\n## 2024-05-01\n\n"
    + "".join(f"- **{a}** ({t[11:]}): {m}\n" for t, a, m in MESSAGES),
}


@pytest.fixture(scope="module")
def analyzer(start: "Start") -> "Running":
    return start("chat_analyzer.py")


def analyze(analyzer: "Running", text: str | bytes, content_type: str) -> requests.Response:
    data = text.encode() if isinstance(text, str) else text
    return requests.post(
        f"{analyzer.url}/analyze", data=data, headers={"Content-Type": content_type}, timeout=10
    )


def insights(analyzer: "Running", text: str, content_type: str) -> dict[str, Any]:
    answer = analyze(analyzer, text, content_type)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("content_type", LOGS)
def test_every_format_gives_the_same_insights(analyzer: "Running", content_type: str) -> None:
    found = insights(analyzer, LOGS[content_type], content_type)

    assert found["messages"] == 4
    assert found["authors"] == {"ann": 2, "ben": 2}
    assert found["from"] == "2024-05-01T10:22:00+00:00"
    assert found["busiest_hour"] == {"hour": 10, "messages": 3}
    assert found["keywords"][0] == {"word": "export", "count": 2}
    assert found["response_seconds"] == {
        "median": 90.0,
        "mean": 860.0,
        "longest": 2460.0,
        "by_author": {"ben": 1275.0, "ann": 30.0},
    }
    assert found["sentiment"]["by_author"] == {"ann": -0.2, "ben": 1.0}


@pytest.mark.parametrize(
    "line",
    [
        "2024-05-01, 10:22 - ann: hi",
        "[2024-05-01 10:22:59] <ann> hi",
        "[2024-05-01 10:22] ann: 10:30 is fine: hi",
    ],
)
def test_lines_as_other_programs_write_them_are_read(analyzer: "Running", line: str) -> None:
    assert insights(analyzer, line, "text/plain")["authors"] == {"ann": 1}


def test_a_message_may_have_several_lines(analyzer: "Running") -> None:
    found = insights(analyzer, "[2024-05-01 10:22] ann: one\npelican\n\npelican", "text/plain")

    assert found["messages"] == 1
    assert found["keywords"][0] == {"word": "pelican", "count": 2}


def test_messages_are_put_in_order_of_time_whatever_their_zone(analyzer: "Running") -> None:
    log = [
        {"timestamp": 1714558980, "user": "ben", "message": "second"},
        {"timestamp": "2024-05-01T12:22:00+02:00", "user": "ann", "message": "first"},
    ]

    found = insights(analyzer, json.dumps({"messages": log}), "application/json")

    assert found["response_seconds"]["by_author"] == {"ben": 60.0}


def test_a_next_morning_is_no_reply(analyzer: "Running") -> None:
    log = "[2024-05-01 18:00] ann: bye\n[2024-05-02 09:00] ben: hello"

    assert insights(analyzer, log, "text/plain")["response_seconds"]["median"] is None


@pytest.mark.parametrize(
    ("text", "content_type", "reason"),
    [
        ("", "text/plain", "there are no messages in it"),
        ("rubbish", "text/plain", "line 1: expected '[2024-05-01 10:22] ann: hello'"),
        ("[2024-13-40 10:22] ann: hi", "text/plain", "line 1: '2024-13-40T10:22' is not a time"),
        ("{", "application/json", "not JSON: "),
        ("[" * 100_000, "application/json", "not JSON: "),
        ('{"a": 1}', "application/json", "must be a list of messages"),
        ("[3]", "application/json", "message 1: must be an object"),
        ('[{"time": 1e300, "author": "ann", "text": "x"}]', "application/json", "message 1: 1e+300 is not a"),
        ('[{"time": 1, "text": "x"}]', "application/json", "message 1: there is no 'author'"),
        ('[{"time": 1, "author": " ", "text": "x"}]', "application/json", "message 1: the author is empty"),
        ("time,text\n1,2", "text/csv", "line 1: there is no column 'author'"),
        ("time,author,text\n2024-05-01,ann", "text/csv", "line 2: there is no 'text'"),
        ('time,author,text\n2024-05-01,ann,"x', "text/csv", "not CSV: "),
        ("- **ann** (10:22): hi", "text/markdown", "line 1: a time without a day"),
        ("x", "application/xml", "application/xml is not one of application/json"),
        (b"\xff\xfe", "text/plain", "not UTF-8: "),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(
    analyzer: "Running", text: str | bytes, content_type: str, reason: str
) -> None:
    answer = analyze(analyzer, text, content_type)

    assert answer.status_code == 400
    assert reason in answer.json()["error"]


def test_a_log_that_is_too_large_is_refused(analyzer: "Running") -> None:
    answer = analyze(analyzer, "x" * (2 * 1024 * 1024 + 1), "text/plain")

    assert answer.status_code == 413


def test_without_an_address_it_has_no_link_to_the_trust_engine(analyzer: "Running") -> None:
    assert analyzer.get("/links/trust-engine").status_code == 404
