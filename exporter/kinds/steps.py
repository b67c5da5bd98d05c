"""``{steps: [{http: URL, capture: {...}}, {http: URL, ...}]}``: one address after another."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from exporter.fields import Strict, Url
from exporter.kinds import ProbeBase
from exporter.kinds.http import HeaderName, HttpAsk, check_json_limit
from exporter.kinds.patterns import check_re2

MOST_STEPS = 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
HOLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]{0,62})\s*\}\}")
"""Where a captured value goes: ``{{ token }}``."""


def _one_group(pattern: str) -> str:
    import re2  # noqa: PLC0415 - 3 MB, needed by configurations with such patterns only

    if re2.compile(check_re2(pattern)).groups != 1:
        raise ValueError("must have one group in parentheses, which is what is captured")
    return pattern


class Capture(Strict):
    """Where a value is found in an answer: at a path of its JSON, in a header, or by a group of a pattern."""

    json_: str | None = Field(default=None, alias="json")
    header: HeaderName | None = None
    body: Annotated[str, AfterValidator(_one_group)] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.json_, self.header, self.body)) != 1:
            raise ValueError("needs one of json, header and body")
        return self


def _steady(value: str) -> str:
    """Refuse captured values that choose whom the next step asks."""
    parts = urlsplit(value)
    if HOLE.search(parts.scheme) or "{{" in parts.netloc:
        raise ValueError("a captured value may stand in the path and the query only: the host is fixed")
    return value


def _capture_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("the name of a captured value has letters, digits and '_', and no digit first")
    return value


CaptureName = Annotated[str, AfterValidator(_capture_name)]


class HttpStep(HttpAsk):
    """One request, and what is kept of its answer for those that follow."""

    http: Annotated[Url, AfterValidator(_steady)]
    capture: Mapping[CaptureName, Capture] = {}

    def templates(self) -> Iterator[tuple[str, str]]:
        """Every text that may have captured values in it, with its key."""
        yield "http", self.http
        yield from ((f"headers.{name}", text) for name, text in self.headers.items())
        if self.body is not None:
            yield "body", self.body

    @property
    def reads_body(self) -> bool:
        """Whether something is captured from the body."""
        return any(capture.header is None for capture in self.capture.values())

    @model_validator(mode="after")
    def _body_to_capture(self) -> Self:
        if self.method == "HEAD" and self.reads_body:
            raise ValueError("an answer to HEAD has no body to capture something from; use GET")
        if any(capture.json_ is not None for capture in self.capture.values()):
            check_json_limit("a captured value of JSON", self.body_limit)
        return self


class StepsProbe(ProbeBase):
    """Send several requests in a row; the first that fails ends the run."""

    kind: ClassVar[str] = "steps"
    steps: Annotated[tuple[HttpStep, ...], Field(min_length=1, max_length=MOST_STEPS)]
    cookies: bool = False  # keep those that are set, for the run

    @model_validator(mode="after")
    def _captured_before_used(self) -> Self:
        known: set[str] = set()
        for number, step in enumerate(self.steps, 1):
            for key, text in step.templates():
                if "{{" in HOLE.sub("", text):
                    raise ValueError(f"step {number}: {key}: a captured value is written as {{{{ name }}}}")
                for name in HOLE.findall(text):
                    if name not in known:
                        raise ValueError(f"step {number}: {key}: no earlier step captures {name!r}")
            known |= set(step.capture)
        return self
