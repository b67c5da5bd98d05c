"""Ask one address after another: log in, then ask. Captured values are secrets and are told to nobody."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from urllib.parse import quote

from exporter.fields import header_text
from exporter.kinds.steps import HOLE, Capture, HttpStep, StepsProbe
from exporter.observation import Outcome, Reason, shorten
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.cookies import Cookies
from exporter.probes.http import IN_THREAD_FROM, judged, reads_files, request_of, verdict_of, wish_of
from exporter.probes.http_ask import Request, Visit, facts_of, place_of, visit
from exporter.probes.http_judge import MISSING, Finding, Judge, compiled, parse_json, unpack, value_at
from exporter.probes.http_wire import AnswerError, Wish
from exporter.probes.own_files import OwnFileError, from_files

CAPTURE_LIMIT = 16 * 1024
"""Characters of a captured value."""
_TYPE = "content-type"
_MADE = "steps"  # where what is made ready is kept from run to run

Values = dict[str, str]


async def probe(config: StepsProbe, context: Context) -> Outcome:
    """Send all requests within one timeout. Never raises: the first failure is the outcome."""
    progress = context.progress()
    run = Run(context, progress, Cookies() if config.cookies else None)
    outcome = await guarded(run.all(_ready(config, context)), progress, context.timeout)
    if outcome.reason is None:
        return outcome
    return replace(outcome, detail=shorten(f"{run.at}: {outcome.detail}"))


class Ready:
    """What of a step can be made ready before it runs."""

    def __init__(self, step: HttpStep) -> None:
        self.step = step
        self.judge = Judge(step.expect, step.body_limit, unpacks=step.compression is not None)
        self.wish: Wish = wish_of(step, self.judge, keep_body=step.reads_body)
        self.patterns = {
            name: compiled(capture.body) for name, capture in step.capture.items() if capture.body is not None
        }


@dataclass(slots=True)
class Run:
    """One way through the steps."""

    context: Context
    progress: Progress
    cookies: Cookies | None
    values: Values = field(default_factory=dict, repr=False)
    at: str = ""  # the step at work

    async def all(self, steps: list[Ready]) -> Outcome:
        """Take the steps until one fails."""
        for number, ready in enumerate(steps, 1):
            self.at = f"step {number} ({ready.step.method} {place_of(ready.step.http).authority})"
            self.progress.note("%s", self.at)
            finding = await self.take(ready)
            if finding is not None:
                return self.progress.outcome(*finding)
        return self.progress.outcome(None, f"all {len(steps)} steps answered as expected")

    async def take(self, ready: Ready) -> Finding | None:
        """Take one step; say what is wrong, or None."""
        step = ready.step
        try:
            made = partial(_request_of, step, self.values)
            request = await from_files(made, self.context) if reads_files(step) else made()
            seen = await visit(
                request, step, ready.wish, context=self.context, progress=self.progress, cookies=self.cookies
            )
        except (AnswerError, OwnFileError) as error:
            return verdict_of(error)
        self.progress.http = facts_of(seen)
        finding = await judged(ready.judge, seen, self.context)
        return finding or await self._capture(ready, seen)

    async def _capture(self, ready: Ready, seen: Visit) -> Finding | None:
        if seen.answer.kept_bytes < IN_THREAD_FROM:
            found = captured(ready, seen)
        else:
            found = await self.context.tools.judging.run(partial(captured, ready, seen))
        if isinstance(found, tuple):
            return found
        for name, value in found.items():
            self.progress.hide(value)
            self.progress.hide(json.dumps(value)[1:-1])
            self.progress.hide(quote(value, safe=""))
            self.values[name] = value
        return None


def _ready(config: StepsProbe, context: Context) -> list[Ready]:
    known = context.recall.get(_MADE)
    if known is None or known[0] is not config:
        known = context.recall[_MADE] = (config, [Ready(step) for step in config.steps])
    steps: list[Ready] = known[1]
    return steps


def captured(ready: Ready, seen: Visit) -> Values | Finding:
    """Return the values that the step captures, or what is wrong."""
    if not ready.step.capture:
        return {}
    body = unpack(seen.answer, ready.step.body_limit)
    if isinstance(body, tuple):
        return body
    values: Values = {}
    parsed = cache(lambda: parse_json(body))
    for name, capture in ready.step.capture.items():
        if capture.json_ is not None:
            found = _from_json(name, capture.json_, *parsed())
        else:
            found = _captured(name, capture, ready, seen, body)
        if isinstance(found, tuple):
            return found
        if len(found) > CAPTURE_LIMIT:
            return Reason.TOO_LARGE, f"{name} is longer than {CAPTURE_LIMIT} characters"
        values[name] = found
    return values


def _captured(name: str, capture: Capture, ready: Ready, seen: Visit, body: bytes) -> str | Finding:
    if capture.header is not None:
        values = seen.answer.values(capture.header.lower().encode())
        return (
            values[0] if values else (Reason.HEADER, f"there is no header {capture.header} to capture {name}")
        )
    match = ready.patterns[name].search(body)
    if match is None or match.group(1) is None:
        return Reason.BODY, f"nothing in the body matches to capture {name}"
    group: bytes = match.group(1)
    return group[: 4 * CAPTURE_LIMIT + 4].decode("utf-8", "replace")  # more is too long in any case


def _from_json(name: str, path: str, parsed: object, finding: Finding | None) -> str | Finding:
    if finding is not None:
        return finding
    value = value_at(parsed, path)
    if value is MISSING or value is None or isinstance(value, list | dict):
        return Reason.JSON, f"there is no value at {path} to capture {name}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()


def _request_of(step: HttpStep, values: Values) -> Request:
    """Return the request with captured values in it. Raises AnswerError when one does not fit there."""
    address = _filled(step.http, {name: quote(value, safe="") for name, value in values.items()})
    headers = {name: _filled_header(name, text, values) for name, text in step.headers.items()}
    if step.body is None:
        return request_of(step, address, headers, None)
    if _is_json(headers):
        values = {name: json.dumps(value)[1:-1] for name, value in values.items()}
    return request_of(step, address, headers, _filled(step.body, values))


def _is_json(headers: Mapping[str, str]) -> bool:
    """Whether the body is JSON by its content type: then a value is escaped, as it stands between quotes."""
    given = (text for name, text in headers.items() if name.lower() == _TYPE)
    return any(text.partition(";")[0].strip().lower().endswith(("/json", "+json")) for text in given)


def _filled(text: str, values: Mapping[str, str]) -> str:
    return HOLE.sub(lambda hole: values[hole[1]], text)


def _filled_header(name: str, text: str, values: Mapping[str, str]) -> str:
    filled = _filled(text, values)
    try:
        return header_text(filled)
    except ValueError as error:
        raise AnswerError(Reason.PROTOCOL, f"a captured value does not fit into the header {name}") from error
