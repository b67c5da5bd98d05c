"""Matchers mean what they mean to Alertmanager."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.match import Matcher, first_match, matches_all, parse_matcher

LABELS = {"alertname": "SoulfraServiceDown", "target": "web-12", "empty": ""}


@pytest.mark.parametrize(
    ("text", "label", "operator", "value"),
    [
        ('alertname="X"', "alertname", "=", "X"),
        ("alertname=X", "alertname", "=", "X"),
        ('  alertname  =~  "a|b"  ', "alertname", "=~", "a|b"),
        ('a!="b"', "a", "!=", "b"),
        ('a!~"b"', "a", "!~", "b"),
        ('a=""', "a", "=", ""),
        ('a="with space, comma, {brace} and = sign"', "a", "=", "with space, comma, {brace} and = sign"),
        (r'a="say \"hi\""', "a", "=", 'say "hi"'),
        (r'a="back\\slash"', "a", "=", "back\\slash"),
        (r'a="line\nbreak"', "a", "=", "line\nbreak"),
        (r'a=~"web-\d+"', "a", "=~", r"web-\d+"),
        (r'a=~"db\.example"', "a", "=~", r"db\.example"),
        (r'a=~"db\\.example"', "a", "=~", r"db\.example"),
    ],
)
def test_the_syntax_is_alertmanagers(text: str, label: str, operator: str, value: str) -> None:
    matcher = parse_matcher(text)
    assert (matcher.label, matcher.operator, matcher.value) == (label, operator, value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alertname",
        'alertname=="X"',
        '"X"',
        "=X",
        'a="b',
        'a="b" c',
        "a=b c",
        "1a=b",
        'a="b",c="d"',
        "a=",
        'a="b"c"',
    ],
)
def test_what_is_no_matcher_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a matcher; write for example"):
        parse_matcher(text)


def test_a_bad_regular_expression_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="is not a regular expression: missing"):
        parse_matcher('target=~"(web"')
    assert parse_matcher('target="(web"').value == "(web"


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('target="web-12"', True),
        ('target="web"', False),
        ('target=~"web"', False),
        ('target=~"web-.*"', True),
        (r'target=~"web-\d+"', True),
        ('target=~"x|web-12"', True),
        ('target=~"web|-12"', False),
        ('target!~"web"', True),
        ('target!~"web-.+"', False),
        ('target!="web"', True),
        ('absent=""', True),
        ('absent!=""', False),
        ('absent=~".*"', True),
        ('absent=~".+"', False),
        ('absent!="x"', True),
        ('absent!~"x"', True),
        ('empty=""', True),
    ],
)
def test_a_matcher_holds_as_in_alertmanager(text: str, holds: bool) -> None:
    assert parse_matcher(text).matches(LABELS) is holds


@given(st.text())
def test_a_quoted_value_comes_back_as_it_was(value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    matcher = parse_matcher(f'a="{escaped}"')
    assert matcher.value == value
    assert matcher.matches({"a": value})


@given(st.text(max_size=30))
def test_any_text_is_a_matcher_or_refused(text: str) -> None:
    try:
        assert isinstance(parse_matcher(text), Matcher)
    except ValueError as refused:
        assert str(refused)  # noqa: PT017 - either way is right


@dataclass(frozen=True)
class Choice:
    name: str
    matchers: tuple[Matcher, ...]


def test_the_first_choice_whose_matchers_all_hold_is_taken() -> None:
    both = (parse_matcher('alertname="SoulfraServiceDown"'), parse_matcher('target="other"'))
    choices = [Choice("none", both), Choice("first", both[:1]), Choice("second", ())]
    found = first_match(choices, LABELS)
    assert found is not None
    assert found.name == "first"
    assert first_match(choices[:1], LABELS) is None
    assert matches_all((), LABELS)
