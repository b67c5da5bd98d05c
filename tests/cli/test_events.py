"""What applications told of, as the commands show it: from a real remediator's application and store."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import Result

from remediator.run import Outcome, Run, Trigger
from remediator.signals import ErrorState

Soulfra = Callable[..., Result]

WIDTH = 100
OUT = "/srv/converter/out/a.md"
HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202egone\r\n[31m" + "x" * 5000


def frame(function: str, line: int, *, in_app: bool = True) -> dict[str, Any]:
    file = "/srv/app/convert.py" if in_app else "/usr/lib/python3/shutil.py"
    return {
        "module": "convert" if in_app else "shutil",
        "function": function,
        "file": file,
        "line": line,
        "in_app": in_app,
    }


def refused(**changes: Any) -> dict[str, Any]:
    """Make the event of a file that may not be written."""
    raised = [
        {
            "type": "ConvertError",
            "message": "cannot convert a.md",
            "frames": [frame("main", 9), frame("serve", 8), frame("convert", 7), frame("write", 6)],
        },
        {
            "type": "PermissionError",
            "message": f"[Errno 13] Permission denied: '{OUT}'",
            "relation": "cause",
            "frames": [frame("write", 5), frame("copyfile", 250, in_app=False)],
        },
    ]
    made = {
        "service": "mobile-converter",
        "kind": "logged",
        "message": "cannot convert a.md",
        "handled": True,
        "raised": raised,
        "facts": {"errno": 13, "path": OUT},
        "context": {"logger": "convert"},
        "release": "1.4.2",
        "system": {
            "pid": 4711,
            "rss": 25 * 2**20,
            "files": 60,
            "files_limit": 1024,
            "threads": 3,
            "memory_total": 24 * 2**30,
            "memory_available": 12 * 2**30,
            "disk_total": 100 * 2**30,
            "disk_free": 7 * 2**30,
            "load": 0.5,
            "cores": 2,
        },
    }
    return {**made, **changes}


def seen(status: str, **facts: Any) -> dict[str, Any]:
    return {"status": status, "since": 1_795_833_262.0, "response_time": 0.012, "failing": None, **facts}


def told(soulfra: Soulfra, *arguments: str) -> str:
    done = soulfra(*arguments)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def lines_below(text: str, heading: str) -> list[str]:
    section = text.partition(f"\n{heading}\n")[2].partition("\n\n")[0]
    return [line.strip() for line in section.splitlines()]


def test_explain_tells_what_was_seen_how_often_and_why_it_is_judged_so(
    soulfra: Soulfra, application: Any
) -> None:
    application.post("/errors", refused())
    (error,) = application.post("/errors", refused(count=2))["errors"]

    story = told(soulfra, "explain", error)

    assert f"{error}  permission_denied of mobile-converter, " in story
    assert f"  about {OUT}" in story.splitlines()
    first, *event = lines_below(story, "What was seen")
    assert first.startswith("v1.")
    assert " 3 times " in first
    assert event == [
        "logged, handled: the program went on, release 1.4.2",
        "ConvertError: cannot convert a.md",
        "in convert.write /srv/app/convert.py:6",
        "in convert.convert /srv/app/convert.py:7",
        "in convert.serve /srv/app/convert.py:8",
        f"caused by PermissionError: [Errno 13] Permission denied: '{OUT}'",
        "in convert.write /srv/app/convert.py:5",
        f"errno=13 path={OUT}",
        "logger=convert",
    ]
    assert any("PermissionError" in line for line in lines_below(story, "Why it is judged so"))
    assert "Signals" not in story


def test_explain_tells_the_state_it_happened_in(soulfra: Soulfra, application: Any) -> None:
    (error,) = application.post("/errors", refused())["errors"]
    failing = {"probe": "tcp", "reason": "connect_refused", "detail": "connection refused"}
    process = {"pid": 4711, "resident_bytes": 30 * 2**20, "open_fds": 61, "max_fds": 1024}
    application.store.keep_sight(
        error,
        {
            "at": 1_795_833_262.0,
            "services": {
                "mobile-converter": seen("up", process=process, slow=True),
                "redis": seen("down", failing=failing),
                "cache": {"missing": "the exporter does not know the target"},
            },
        },
    )

    story = told(soulfra, "explain", error)

    assert lines_below(story, "The state when it happened") == [
        "process 4711: 25 MiB of memory, 60 of 1024 handles, 3 threads",
        "host: memory 12 GiB free of 24 GiB, disk 7.0 GiB free of 100 GiB, load 0.5 on 2 cores",
    ]
    mine, cache, redis = unwrapped(lines_below(story, "What the exporter had seen"))
    assert mine.startswith("mobile-converter: up since ")
    assert mine.endswith("slow, answered in 12 ms, process 4711, 30 MiB of memory, 61 of 1024 handles")
    assert redis.endswith(", tcp connect_refused connection refused")
    assert cache == "cache: the exporter does not know the target"


def unwrapped(lines: list[str]) -> list[str]:
    """Put together what was wrapped: what goes on has no name in front."""
    whole: list[str] = []
    for line in lines:
        if line.partition(" ")[0].endswith(":"):
            whole.append(line)
        else:
            whole[-1] += f" {line}"
    return whole


def test_explain_suggests_a_fix_and_says_what_came_of_it_before(soulfra: Soulfra, application: Any) -> None:
    (error,) = application.post("/errors", refused())["errors"]
    ran(application, error, Outcome.RECOVERED, Outcome.FAILED, Outcome.RECOVERED)

    story = told(soulfra, "explain", error)

    suggested = unwrapped(lines_below(story, "What is suggested"))
    headings = [line.partition(":")[0] for line in suggested if not line.startswith("http")]
    text = " ".join(suggested)
    assert "cause" in headings
    assert "mend" in headings
    assert "setting:     services.mobile-converter.paths" in text
    assert "action: file" in text
    assert "seen before: file recovered it 2 of 3 times, median 4.0 s" in text
    assert "https://" in text


def test_the_tables_of_decisions_and_steps_are_folded(soulfra: Soulfra, remediator: Any) -> None:
    at = "2026-01-02T03:04:05.000Z"
    step = {"action": "file", "args": {"argv": "deep " * 40}, "state": "failed", "attempt": 1}
    run = {"id": "R_1", "steps": [{**step, "startedAt": at, "result": "it is not as declared " * 9}]}
    decision = {"at": at, "times": 1, "verdict": "deferred", "reason": "approval_rejected"}
    decision |= {"playbook": "process-exhausted", "run": "R_0123456789ab", "detail": "a reason " * 30}
    error = {"id": "SE_1", "type": "other", "service": "web", "severity": "low", "message": "m"}
    counts = {"attempts": 1, "relapses": 0}
    remediator.on("GET /errors/SE_1", {"error": {**error, **counts}, "decisions": [decision], "runs": [run]})

    lines = told(soulfra, "explain", "SE_1").splitlines()

    assert max(map(len, lines)) <= WIDTH
    assert "".join(lines).count("deep") == 40
    assert "".join(lines).count("declared") == 9


def ran(application: Any, error_id: str, *outcomes: Outcome) -> None:
    """Put down runs of the file playbook for an error like this one, that is over."""
    now = application.store.get_error(error_id)
    before = replace(
        now, id="SE_00000001", open=False, state=ErrorState.RECOVERED, closed_at=now.first_seen - 60.0
    )
    application.store.add_error(before)
    for number, outcome in enumerate(outcomes):
        begun = 1000.0 * (number + 1)
        run = Run(
            id=f"R_00000000000{number}",
            target=now.target,
            playbook="file-repair",
            trigger=Trigger.ALERT,
            started_at=begun,
            owner="here",
            boot="b",
            token=str(number),
            lease_until=begun + 30.0,
            error_id=before.id,
            plan=({"steps": [{"action": "file"}]},),
        )
        assert application.store.begin_run(run, None)
        assert application.store.end_run(replace(run, outcome=outcome, ended_at=begun + 4.0), None)


def test_an_event_of_two_words_is_a_short_story(soulfra: Soulfra, application: Any) -> None:
    (error,) = application.post("/errors", {"service": "ai-router", "message": "all is lost"})["errors"]

    story = told(soulfra, "explain", error)

    assert lines_below(story, "What was seen")[1:] == ["reported", "all is lost"]
    for heading in ("The state when it happened", "What the exporter had seen"):
        assert heading not in story


def test_of_many_fingerprints_the_newest_are_told(soulfra: Soulfra, application: Any) -> None:
    for number in range(9):
        event = {
            "service": "ai-router",
            "message": f"Redis went away at place {chr(97 + number)}",
            "problem": "redis_unavailable",
            "fingerprint": f"place {number}",
        }
        (error,) = application.post("/errors", event)["errors"]

    lines = lines_below(told(soulfra, "explain", error), "What was seen")

    assert sum(line.startswith("v1.") for line in lines) == 5
    assert lines[-1] == "and 4 more fingerprints: --json has all"


def test_hostile_texts_neither_steer_the_terminal_nor_fill_it(soulfra: Soulfra, application: Any) -> None:
    event = refused(
        message=HOSTILE,
        release=HOSTILE,
        facts={"path": f"/srv/{HOSTILE}", "method": HOSTILE},
        context={HOSTILE: [HOSTILE] * 50},
        system={"pid": "many", "rss": 10**300, "files": -1, "load": True, HOSTILE: HOSTILE},
        raised=[{"type": HOSTILE, "message": HOSTILE, "frames": [frame(HOSTILE, 1)] * 40, "notes": [HOSTILE]}]
        * 8,
    )
    (error,) = application.post("/errors", event)["errors"]

    story = told(soulfra, "explain", error)

    assert not [letter for letter in story if not letter.isprintable() and letter != "\n"]
    assert max(map(len, story.splitlines())) <= WIDTH
    assert len(story.splitlines()) < 100
    assert "\x1b" not in told(soulfra, "errors")


@pytest.mark.parametrize("missing", ["context", "system", "raised", "facts"])
def test_what_was_left_out_of_a_large_event_breaks_no_story(
    soulfra: Soulfra, application: Any, missing: str
) -> None:
    large = {f"key {number}": "word " * 200 for number in range(90)}
    frames = [frame("word " * 50, number) for number in range(50)]
    given: dict[str, Any] = {"raised": [{"type": "E", "frames": frames}] * 8} if missing == "raised" else {}
    (error,) = application.post("/errors", refused(**{missing: large, **given}))["errors"]

    assert "What was seen" in told(soulfra, "explain", error)


def test_errors_have_a_column_for_subjects_where_there_is_one(soulfra: Soulfra, application: Any) -> None:
    application.post("/errors", {"service": "ai-router", "message": "timeout", "problem": "network_timeout"})
    assert "SUBJECT" not in told(soulfra, "errors")

    application.post("/errors", refused(facts={"errno": 13, "path": f"/srv/{'deep/' * 20}a.md"}))
    (line,) = [line for line in told(soulfra, "errors").splitlines() if "mobile-converter" in line]

    assert "…" in line
    assert "/deep/a.md  " in line


@pytest.mark.parametrize(
    ("filters", "services"),
    [
        (("--type", "permission_denied"), {"mobile-converter"}),
        (("--type", "network_timeout"), {"ai-router"}),
        (("--type", "stale_lock"), set()),
        (("--severity", "high"), {"ai-router"}),
        (("--service", "ai-router"), {"ai-router"}),
        (("--state", "pending", "--since", "1h"), {"ai-router", "mobile-converter"}),
    ],
)
def test_errors_of_applications_are_found_by_every_filter(
    soulfra: Soulfra, application: Any, filters: tuple[str, ...], services: set[str]
) -> None:
    timeout = {"service": "ai-router", "problem": "network_timeout", "severity": "high"}
    application.post("/errors", {**timeout, "message": "OpenAI API timeout"})
    application.post("/errors", refused())

    answer = json.loads(told(soulfra, "errors", *filters, "--json"))

    assert {error["service"] for error in answer["errors"]} == services


def test_a_type_that_there_is_not_is_refused_with_those_that_there_are(
    soulfra: Soulfra, application: Any
) -> None:
    done = soulfra("errors", "--type", "gremlins")

    assert done.exit_code == 1
    assert "stale_lock" in done.stderr


def test_explain_with_json_is_the_api_s_answer(soulfra: Soulfra, application: Any) -> None:
    (error,) = application.post("/errors", refused())["errors"]

    answer = json.loads(told(soulfra, "explain", error, "--json"))

    assert answer["error"]["subject"] == OUT
    assert answer["error"]["events"][0]["facts"]["path"] == OUT
    assert answer["error"]["suggestedFix"]["action"] == "file"


def test_heartbeats_are_a_table(soulfra: Soulfra, application: Any) -> None:
    application.post("/heartbeats/nightly-export/0")

    done = soulfra("heartbeats")

    assert done.exit_code == 0
    heads, loop, export = done.stdout.splitlines()
    assert heads.split() == ["NAME", "STATUS", "LAST", "SUCCESS", "PERIOD", "GRACE"]
    assert loop.split() == ["mail-loop", "new", "never", "90s", "10s"]
    assert export.split()[:2] == ["nightly-export", "up"]
    assert export.split()[-2:] == ["1d", "1h"]


def test_a_failed_heartbeat_is_exit_status_3(soulfra: Soulfra, application: Any) -> None:
    application.post("/heartbeats/nightly-export/fail")

    assert soulfra("heartbeats").exit_code == 3
    assert soulfra("heartbeats", "--json").exit_code == 3


@pytest.mark.parametrize(
    ("status", "code"), [("new", 0), ("running", 0), ("up", 0), ("late", 0), ("failed", 3), ("missed", 3)]
)
def test_failed_and_missed_heartbeats_are_exit_status_3(
    soulfra: Soulfra, remediator: Any, status: str, code: int
) -> None:
    beats = [{"name": "a", "status": "up", "period": 1000, "grace": 0}, {"name": "b", "status": status}]
    remediator.on("GET /heartbeats", {"heartbeats": beats})

    assert soulfra("heartbeats").exit_code == code


def test_no_heartbeats_are_told_as_such(soulfra: Soulfra, remediator: Any) -> None:
    remediator.on("GET /heartbeats", {"heartbeats": []})

    done = soulfra("heartbeats")

    assert (done.exit_code, done.stdout) == (0, "no heartbeats are configured\n")
