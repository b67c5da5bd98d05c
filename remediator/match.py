"""Matchers in Alertmanager's syntax, and the choice of a playbook by them. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

_MATCHER = re.compile(
    r'^\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*(?:"((?:[^"\\]|\\.)*)"|([^"\s{}]+))\s*$'
)
_ESCAPE = re.compile(r"\\([n\"\\])")  # any other backslash stands for itself, as in Alertmanager


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher:
    """One condition on one label; a label that is absent counts as empty."""

    label: str
    operator: Literal["=", "!=", "=~", "!~"]
    value: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Hold the condition against *labels*; regular expressions are anchored at both ends."""
        found = labels.get(self.label, "")
        if self.operator in ("=", "!="):
            return (found == self.value) is (self.operator == "=")
        return (re.fullmatch(self.value, found) is not None) is (self.operator == "=~")


def parse_matcher(text: str) -> Matcher:
    """Read ``label="value"``, ``!=``, ``=~`` or ``!~``. Raises ValueError with the mend."""
    found = _MATCHER.match(text)
    if not found:
        raise ValueError(f'{text!r} is not a matcher; write for example alertname="SoulfraServiceDown"')
    label, operator, quoted, bare = found.groups()
    value = (
        _ESCAPE.sub(lambda escaped: "\n" if escaped[1] == "n" else escaped[1], quoted)
        if bare is None
        else bare
    )
    if operator in ("=~", "!~"):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression: {error}") from error
    return Matcher(label=label, operator=operator, value=value)  # type: ignore[arg-type]


class Matchable(Protocol):
    """Anything that says by matchers what it is for."""

    @property
    def matchers(self) -> tuple[Matcher, ...]: ...


Choice = TypeVar("Choice", bound=Matchable)


def first_match(choices: Iterable[Choice], labels: Mapping[str, str]) -> Choice | None:
    """Return the first whose matchers all hold, in the order of the configuration."""
    return next((choice for choice in choices if matches_all(choice.matchers, labels)), None)


def matches_all(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether every matcher holds."""
    return all(matcher.matches(labels) for matcher in matchers)
