"""What a playbook may say, and how it is told what is wrong with it."""

from typing import Any

import pytest
from pydantic import ValidationError

from exporter.document import parse_document, read_document
from remediator.actions import ACTIONS
from remediator.config import SHIPPED
from remediator.playbook import STEP_ARGS, Budget, Mode, Playbook, PlaybookFile

RESTART: dict[str, Any] = {"restart": {"service": "redis"}}


def written(**changes: Any) -> dict[str, Any]:
    return {"name": "down", "match": ['target="redis"'], "rungs": [{"steps": [RESTART]}], **changes}


def step(**fields: Any) -> dict[str, Any]:
    return written(rungs=[{"steps": [fields]}])


def test_actions_and_their_arguments_are_the_same_list() -> None:
    assert set(STEP_ARGS) == set(ACTIONS)


def test_the_shipped_playbooks_are_valid_and_each_acts() -> None:
    playbooks = PlaybookFile.model_validate(read_document(SHIPPED).data).playbooks
    asking = {playbook.name for playbook in playbooks if playbook.mode is Mode.APPROVE}
    assert asking == {"process-exhausted", "call-hung"}
    assert {playbook.mode for playbook in playbooks} == {Mode.AUTO, Mode.APPROVE}
    assert {"service-down", "restart_service", "reconnect_redis", "retry_failed"} <= {
        playbook.name for playbook in playbooks
    }


@pytest.mark.parametrize("text", ["mode: off", "mode: 'off'"])
def test_a_bare_off_is_off(text: str, tmp_path: Any) -> None:
    given = parse_document(text, tmp_path / "p.yml").data
    assert Playbook.model_validate(written(**given)).mode is Mode.OFF


def test_budgets_are_written_as_one_or_several() -> None:
    one = Playbook.model_validate(written(limits={"per_target": "3/1h"})).limits
    two = Playbook.model_validate(written(limits={"per_target": ["3/1h", "7/1d"]})).limits
    assert one.per_target == (Budget(count=3, window=3600.0),)
    assert two.per_target == (Budget(count=3, window=3600.0), Budget(count=7, window=86400.0))


@pytest.mark.parametrize(("text", "share"), [("50%", 0.5), ("1%", 0.01), (0.25, 0.25), (3, 3.0)])
def test_min_healthy_is_a_share_or_a_number(text: object, share: float) -> None:
    assert Playbook.model_validate(written(limits={"min_healthy": text})).limits.min_healthy == share


def limited(name: str, value: object) -> tuple[dict[str, Any], tuple[str | int, ...]]:
    return written(limits={name: value}), ("limits", name)


STEP = ("rungs", 0, "steps", 0)

MISTAKES: dict[str, tuple[dict[str, Any], tuple[str | int, ...], str]] = {
    "no rungs": (written(rungs=[]), ("rungs",), "at least 1 item"),
    "no steps": (written(rungs=[{"steps": []}]), ("rungs", 0, "steps"), "at least 1 item"),
    "no match": (written(match=[]), ("match",), "at least 1 item"),
    "a match that is no list": (written(match='a="b"'), ("match",), "valid tuple"),
    "a bad matcher": (written(match=["redis"]), ("match",), "write for example"),
    "a bad pattern": (written(match=['a=~"("']), ("match",), "not a regular expression"),
    "an unknown key": (written(modes="auto"), ("modes",), "not permitted"),
    "an unknown mode": (written(mode="on"), ("mode",), "'off', 'shadow', 'approve' or 'auto'"),
    "a bare on": (written(mode=True), ("mode",), "'off', 'shadow', 'approve' or 'auto'"),
    "a bad name": (written(name="a b"), ("name",), "letters, digits"),
    "no such budget": (
        written(limits={"per_target": "3"}),
        ("limits", "per_target"),
        "write for example 3/1h",
    ),
    "a negative budget": (
        written(limits={"everywhere": "-1/1h"}),
        ("limits", "everywhere"),
        "write for example",
    ),
    "an endless window": (*limited("per_playbook", "3/8d"), "at most 7d"),
    "an empty window": (*limited("per_target", "3/0s"), "longer than 0s"),
    "a window without unit": (*limited("per_target", "3/60"), "500ms, 5s"),
    "a share of all": (*limited("min_healthy", "100%"), "1% to 99%"),
    "a share of none": (*limited("min_healthy", "0%"), "1% to 99%"),
    "a negative share": (
        written(limits={"min_healthy": -1}),
        ("limits", "min_healthy"),
        "greater than or equal",
    ),
    "a cooldown without unit": (written(cooldown=10), ("cooldown",), "with its unit"),
    "too many attempts": (written(attempts=99), ("attempts",), "less than or equal to 20"),
    "no action": (step(timeout="5s"), STEP, "exactly one action"),
    "an unknown action": (step(reboot={}), STEP, "here: reboot"),
    "two actions": (step(**RESTART, wait={"seconds": 1}), STEP, "here: restart, wait"),
    "a missing argument": (step(restart={}), STEP, "restart: service: Field required"),
    "an unknown argument": (step(wait={"seconds": 1, "x": 2}), STEP, "wait: x:"),
    "arguments that are none": (step(restart="redis"), STEP, "restart: restart:"),
    "a command as one text": (step(command={"argv": "rm -rf x"}), STEP, "command: argv:"),
    "no program": (step(command={"argv": []}), STEP, "command: argv:"),
    "a program from labels": (
        step(command={"argv": ["{{ labels.x }}"]}),
        STEP,
        "the program must not come from a template",
    ),
    "a host from labels": (
        step(http={"url": "http://{{ target }}/x"}),
        STEP,
        "the host must not come from a template",
    ),
    "a port from labels": (
        step(http={"url": "http://127.0.0.1:80{{ target }}/x"}),
        STEP,
        "the host must not come from a template",
    ),
    "no web address": (
        step(http={"url": "file:///etc/passwd"}),
        STEP,
        "http:// or https://",
    ),
    "an address from labels": (
        step(http={"url": "{{ labels.url }}"}),
        STEP,
        "http:// or",
    ),
    "a method of its own": (
        step(http={"url": "http://a/", "method": "BREW"}),
        STEP,
        "http: method:",
    ),
    "too long a wait": (step(wait={"seconds": 1e9}), STEP, "wait: seconds:"),
    "telling nobody": (
        step(notify={"channels": [], "message": "x"}),
        STEP,
        "notify: channels:",
    ),
    "an unknown end": (step(**RESTART, on_crash="hope"), ("rungs", 0, "steps", 0, "on_crash"), "'verify'"),
    "endless retries": (
        step(**RESTART, retry={"attempts": 99}),
        ("rungs", 0, "steps", 0, "retry", "attempts"),
        "less than or equal to 10",
    ),
    "no proof": (
        written(rungs=[{"steps": [RESTART], "verify": {"healthy": 0}}]),
        ("rungs", 0, "verify", "healthy"),
        "greater than or equal to 1",
    ),
    "no time for the proof": (
        written(rungs=[{"steps": [RESTART], "verify": {"within": "0s"}}]),
        ("rungs", 0, "verify", "within"),
        "greater than 0",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_has_its_place_and_the_mend(name: str) -> None:
    given, place, mend = MISTAKES[name]
    with pytest.raises(ValidationError) as refused:
        Playbook.model_validate(given)
    told = {item["loc"]: item["msg"] for item in refused.value.errors()}
    found = [message for location, message in told.items() if location[: len(place)] == place]
    assert found, f"{place} is not among {list(told)}"
    assert mend in found[0]


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(ValidationError) as refused:
        Playbook.model_validate(written(mode="on", cooldown=1, match=["x"], attempts=0))
    assert {item["loc"][0] for item in refused.value.errors()} == {"mode", "cooldown", "match", "attempts"}


def test_two_playbooks_of_one_name_are_a_mistake() -> None:
    with pytest.raises(ValidationError, match="two playbooks have the same name: down"):
        PlaybookFile.model_validate({"playbooks": [written(), written()]})


LABEL = "{{ labels.x }}"


@pytest.mark.parametrize(
    "argv",
    [
        ["sh", "-c", f"echo {LABEL}"],
        ["/bin/bash", "-ec", LABEL],
        ["env", "A=1", "dash", "-e", "-c", "-u", f"echo {LABEL}"],
        ["bash", "-o", "pipefail", "-c", "{% if labels.x %}true{% endif %}"],
    ],
)
def test_a_template_in_the_text_of_a_shell_is_refused(argv: list[str]) -> None:
    with pytest.raises(ValidationError, match="-c must not have a template in it"):
        Playbook.model_validate(step(command={"argv": argv}))


@pytest.mark.parametrize(
    "argv",
    [
        ["sh", "-c", 'echo "$1"', "sh", LABEL],
        ["sh", "tool.sh", LABEL],
        ["tool", "-c", LABEL],
        ["sh", "-c", "awk '{print $1}' {data}/x"],
    ],
)
def test_a_template_in_an_argument_of_its_own_is_allowed(argv: list[str]) -> None:
    Playbook.model_validate(step(command={"argv": argv}))


def test_a_template_cannot_choose_the_folder_of_a_command() -> None:
    with pytest.raises(ValidationError, match="the folder must not come from a template"):
        Playbook.model_validate(step(command={"argv": ["ls"], "cwd": f"/srv/{LABEL}"}))
