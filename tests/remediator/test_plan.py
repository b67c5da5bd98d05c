"""Labels are hostile; what they become in a plan is a plain value in its place."""

import json
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exporter.config import Service
from remediator.places import expand
from remediator.plan import VALUE_LIMIT, Plan, PlanError, make_plan
from remediator.playbook import Playbook

SERVICES = {
    "redis": Service.model_validate(
        {"restart": {"command": ["x"]}, "hooks": {"reconnect_redis": "http://127.0.0.1:1/reconnect"}}
    ),
    "web": Service(),
}
HOSTILE = [
    "$(touch /tmp/x); `id` | cat & && || > /dev/null",
    "{{ 7 * 7 }}",
    "{% for x in y %}",
    "{{ ''.__class__.__mro__ }}",
    "{# comment #}",
    "'; DROP TABLE errors; --",
    '"quoted" and \\escaped\\',
    "two\nlines\tand tab",
    " leading and trailing ",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "ünïcödé 🦊",
    "%2e%2e%2f",
]


def playbook(*steps: dict[str, Any]) -> Playbook:
    return Playbook.model_validate({"name": "p", "match": ['a="b"'], "rungs": [{"steps": list(steps)}]})


def planned(*steps: dict[str, Any], target: str = "redis", **labels: str) -> Plan:
    values = {
        "target": target,
        "problem": "service_down",
        "severity": "high",
        "labels": labels,
        "annotations": {},
    }
    return make_plan(
        playbook(*steps), values, SERVICES, partial(expand, data_folder=Path("/var/lib/soulfra"))
    )


def args(*steps: dict[str, Any], **labels: str) -> Any:
    return planned(*steps, **labels).rungs[0].steps[0].args


def command(*argv: str) -> dict[str, Any]:
    return {"command": {"argv": list(argv)}}


def refusal(*steps: dict[str, Any], **labels: str) -> str:
    with pytest.raises(PlanError) as refused:
        planned(*steps, **labels)
    return str(refused.value)


# -- values stay values -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_label_is_one_plain_argument(value: str) -> None:
    assert args(command("say", "x={{ labels.v }}", "end"), v=value).argv == ("say", f"x={value}", "end")


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_label_is_one_plain_text_in_json_and_messages(value: str) -> None:
    http = {"http": {"url": "http://127.0.0.1/x", "json": {"deep": [{"v": "{{ labels.v }}"}], "n": 1}}}
    assert args(http, v=value).json_ == {"deep": [{"v": value}], "n": 1}
    told = {"notify": {"channels": ["log"], "message": "saw {{ labels.v }}"}}
    assert args(told, v=value).message == f"saw {value}"


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_label_is_one_segment_and_one_parameter_of_an_address(value: str) -> None:
    url = args({"http": {"url": "http://127.0.0.1:9/a/{{ labels.v }}/b?v={{ labels.v }}&w=1"}}, v=value).url
    parts = urlsplit(url)
    assert parts.netloc == "127.0.0.1:9"
    assert len(parts.path.split("/")) == 4
    assert parse_qs(parts.query, keep_blank_values=True) == {"v": [value], "w": ["1"]}


@given(st.text(max_size=60))
def test_any_label_text_is_literally_in_its_place(value: str) -> None:
    assume(all(character >= " " or character in "\t\n" for character in value))
    assert args(command("say", "{{ labels.a }}", "x{{ labels.v }}y", "z"), a="1", v=value).argv == (
        "say",
        "1",
        f"x{value}y",
        "z",
    )


@given(st.text(max_size=60))
def test_no_label_text_changes_host_or_depth_of_an_address(value: str) -> None:
    try:
        url = args({"http": {"url": "http://127.0.0.1:9/a/{{ labels.v }}/b"}}, v=value).url
    except PlanError:
        return
    assert urlsplit(url).netloc == "127.0.0.1:9"
    assert len(url.split("/")) == 6
    assert not {".", ".."} & set(url.split("/"))
    assert urlsplit(url).query == urlsplit(url).fragment == ""


def test_only_the_address_itself_is_quoted() -> None:
    http = {
        "http": {
            "url": "http://127.0.0.1/{{ labels.v }}",
            "json": {"url": "{{ labels.v }}", "http": {"url": "{{ labels.v }}"}},
            "headers": {"url": "{{ labels.v }}"},
        }
    }
    found = args(http, v="a/b c")
    assert found.url == "http://127.0.0.1/a%2Fb%20c"
    assert found.json_ == {"url": "a/b c", "http": {"url": "a/b c"}}
    assert found.headers == {"url": "a/b c"}
    assert args({"command": {"argv": ["x"], "env": {"url": "{{ labels.v }}"}}}, v="a/b c").env == {
        "url": "a/b c"
    }


def test_a_text_without_a_template_stays_as_it_is() -> None:
    assert args(command("echo", "100%", "}} $HOME", "")).argv == ("echo", "100%", "}} $HOME", "")


def test_values_that_are_no_text_stay_what_they_are() -> None:
    body: dict[str, Any] = {"n": 1, "f": 1.5, "t": True, "none": None, "l": []}
    assert args({"http": {"url": "http://127.0.0.1/x", "json": body}}).json_ == body
    assert args({"wait": {"seconds": 1.5}}).seconds == 1.5


# -- what is refused, and where -----------------------------------------------------------------------


def test_an_absent_label_is_refused_with_its_name_and_place() -> None:
    told = refusal(command("a"), command("say", "ok", "{{ labels.nowhere }}"))
    assert told.startswith("rungs[0].steps[1].command.argv[2]: ")
    assert "'nowhere'" in told


@pytest.mark.parametrize(
    ("template", "place"),
    [
        ({"http": {"url": "http://h/{{ labels.x }}"}}, "http.url"),
        ({"http": {"url": "http://h/", "json": {"a": [{"b": "{{ nothing }}"}]}}}, "http.json.a[0].b"),
        ({"http": {"url": "http://h/", "headers": {"H": "{{ labels.x }}"}}}, "http.headers.H"),
        ({"command": {"argv": ["x"], "env": {"E": "{{ labels.x.y }}"}}}, "command.env.E"),
        ({"notify": {"channels": ["log"], "message": "{{ labels.x }}"}}, "notify.message"),
        ({"restart": {"service": "{{ labels.x }}"}}, "restart.service"),
        ({"hook": {"service": "redis", "hook": "{{ labels.x }}"}}, "hook.hook"),
    ],
)
def test_every_place_is_named(template: dict[str, Any], place: str) -> None:
    assert refusal(template).startswith(f"rungs[0].steps[0].{place}: ")


@pytest.mark.parametrize(
    "template",
    [
        "{{ }}",
        "{% if %}",
        "{{ labels.v",
        "{{ 1 / 0 }}",
        "{{ labels.v + 1 }}",
        "{{ labels.v | nofilter }}",
        "{{ labels.v | format(a=1) }}",
        "{{ labels.update({'a': 'b'}) }}",
        "{{ labels.v.__class__ }}",
        "{{ range(9) }}",
        "{{ cycler(1) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ labels.values }}",
        "{{ labels.items }}",
        "{{ target.title }}",
    ],
)
def test_a_template_that_fails_is_a_plan_error_whatever_it_fails_with(template: str) -> None:
    assert refusal(command("say", template), v="%(b)s").startswith("rungs[0].steps[0].command.argv[1]: ")


def test_a_label_that_is_named_like_a_method_is_had_by_its_key() -> None:
    assert args(command("say", "{{ labels['items'] }}"), items="7").argv == ("say", "7")


def test_a_default_of_the_author_stands_for_an_absent_label() -> None:
    assert args(command("say", "{{ labels.absent | default('none') }}")).argv == ("say", "none")


@pytest.mark.parametrize("value", ["-rf", "--force", "-", "--"])
def test_a_label_cannot_become_an_option(value: str) -> None:
    told = refusal(command("rm", "{{ labels.v }}"), v=value)
    assert told.startswith("rungs[0].steps[0].command.argv[1]: ")
    assert "option" in told


def test_options_of_the_author_may_carry_labels() -> None:
    assert args(command("x", "--name={{ labels.v }}", "-v"), v="-rf").argv == ("x", "--name=-rf", "-v")


@pytest.mark.parametrize("value", [".", ".."])
def test_a_label_cannot_climb_in_a_path(value: str) -> None:
    assert "http.url" in refusal({"http": {"url": "http://h/services/{{ labels.v }}/restart"}}, v=value)


@pytest.mark.parametrize("value", ["a\x00b", "a\rb", "a\x1b[31mb"])
def test_control_characters_are_refused(value: str) -> None:
    assert "control characters" in refusal(command("say", "{{ labels.v }}"), v=value)


def test_a_value_has_a_limit() -> None:
    assert str(VALUE_LIMIT) in refusal(command("say", "{{ labels.v }}{{ labels.v }}"), v="x" * 5000)


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({"restart": {"service": "{{ labels.v }}"}}, "'../redis' is not a configured service"),
        ({"restart": {"service": "web"}}, "services.web has no restart section"),
        ({"hook": {"service": "{{ labels.v }}", "hook": "reconnect_redis"}}, "is not a configured service"),
        ({"hook": {"service": "redis", "hook": "drop"}}, "services.redis has no hook 'drop'"),
    ],
)
def test_what_is_not_in_the_inventory_is_refused(step: dict[str, Any], told: str) -> None:
    assert told in refusal(step, v="../redis")


def test_the_inventory_lets_its_own_through() -> None:
    assert args({"restart": {"service": "{{ target }}"}}).service == "redis"
    assert args({"hook": {"service": "redis", "hook": "reconnect_redis"}}).hook == "reconnect_redis"


# -- as it is kept ------------------------------------------------------------------------------------


def test_a_plan_is_kept_as_json_with_secrets_masked() -> None:
    secret = "hunter" + "2" * 12
    steps = (
        {"http": {"url": "http://h/", "headers": {"Authorization": f"Bearer {secret}"}, "json": {"a": 1}}},
        {"command": {"argv": ["x", f"--password={secret}"], "env": {"API_TOKEN": secret}}, "timeout": "7s"},
    )
    plan = planned(*steps)
    kept = json.dumps(plan.as_json())
    assert secret not in kept
    assert secret in repr(plan)
    (rung,) = plan.as_json()
    assert rung["steps"][0]["args"]["json"] == {"a": 1}
    assert [step["action"] for step in rung["steps"]] == ["http", "command"]
    assert rung["steps"][1]["timeout"] == 7.0
    assert rung["verify"] == {"healthy": 3, "every": 0.25, "within": 30.0}


def test_the_same_inputs_give_the_same_plan() -> None:
    steps = command("say", "{{ labels.v }}")
    assert planned(steps, v="x").as_json() == planned(steps, v="x").as_json()


def test_only_what_the_playbook_writes_becomes_the_data_folder() -> None:
    made = args(command("tool", "{data}/out", "{{ labels.name }}", "x{{ labels.name }}"), name="{data}")
    assert made.argv == ("tool", "/var/lib/soulfra/out", "{data}", "x{data}")
