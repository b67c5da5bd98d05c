"""Ask an HTTP address and hold the answer against what is expected."""

from collections.abc import Mapping
from functools import cache, partial

from pydantic import SecretStr

from exporter.kinds.http import HttpAsk, HttpProbe
from exporter.observation import Outcome, Reason
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.http_ask import FOLLOWED, Request, Visit, basic, facts_of, place_of, visit, with_defaults
from exporter.probes.http_judge import Finding, Judge
from exporter.probes.http_wire import AnswerError, Wish
from exporter.probes.own_files import OwnFileError, from_files, read_own, read_secret
from soulfra_monitor import __version__

IN_THREAD_FROM = 32 * 1024
"""Bytes of a body from which it is looked at in a thread: patterns and JSON take milliseconds then."""

_HEADERS = {"User-Agent": f"soulfra-exporter/{__version__}", "Accept": "*/*"}
_MADE = "http"  # where the plan is kept from run to run


async def probe(config: HttpProbe, context: Context) -> Outcome:
    """Send the request once, over a new connection. Never raises: a failure is the outcome."""
    progress = context.progress()
    return await guarded(_run(config, context, progress), progress, context.timeout)


class Plan:
    """What of a probe can be made ready before it runs."""

    def __init__(self, ask: HttpAsk, address: str) -> None:
        self.ask = ask
        self.judge = Judge(ask.expect, ask.body_limit, unpacks=ask.compression is not None)
        self.wish = wish_of(ask, self.judge)
        self._address = address
        self.fixed = self.request() if not reads_files(ask) else None

    def request(self) -> tuple[Request, bytes]:
        """Return the request and how it is written. Raises OwnFileError."""
        ask = self.ask
        request = request_of(ask, self._address, ask.headers, ask.body)
        return request, request.wire()


def wish_of(ask: HttpAsk, judge: Judge, *, keep_body: bool = False) -> Wish:
    """Return how much of an answer is wanted: its body for expected statuses, or for all."""
    keep = keep_body or judge.looks_at_body
    statuses = _all_statuses(following=ask.redirects > 0) if ask.counts_body else judge.statuses
    return Wish(body_for=statuses, keep_body=keep, body_limit=ask.body_limit)


@cache
def _all_statuses(*, following: bool) -> frozenset[int]:
    return frozenset(range(200, 1000)) - (FOLLOWED if following else frozenset())


def request_of(ask: HttpAsk, address: str, headers: Mapping[str, str], body: str | None) -> Request:
    """Return the request of *ask* to *address*. Raises OwnFileError when a file of it cannot be read."""
    place = place_of(address)
    accept = ask.compression or "identity"
    more = {**_HEADERS, "Accept-Encoding": accept, **_authorization(ask, place.user)}
    content = body.encode() if body is not None else None
    if ask.body_file is not None:
        content = read_own(ask.body_file, "body_file")
    return Request(method=ask.method, place=place, headers=with_defaults(headers, more), body=content)


async def _run(config: HttpProbe, context: Context, progress: Progress) -> Outcome:
    plan: Plan | None = context.recall.get(_MADE)
    if plan is None or plan.ask is not config:
        plan = context.recall[_MADE] = Plan(config, config.http)
    try:
        made = plan.fixed
        request, wire = made if made is not None else await from_files(plan.request, context)
        seen = await visit(request, config, plan.wish, context=context, progress=progress, wire=wire)
    except (AnswerError, OwnFileError) as error:
        return progress.outcome(*verdict_of(error))
    reason, detail = await judged(plan.judge, seen, context) or (None, f"answered {seen.answer.status}")
    return progress.outcome(reason, detail, http=facts_of(seen))


async def judged(judge: Judge, seen: Visit, context: Context) -> Finding | None:
    """Say what is wrong with an answer, or None. Raises OwnWantError when too many wait to be judged."""
    finding = judge.head(seen.answer, secure=seen.place.secure)
    if finding is not None and not judge.unpacks:
        return finding
    look = partial(judge.body, seen.answer)
    of_body = look() if seen.answer.kept_bytes < IN_THREAD_FROM else await context.tools.judging.run(look)
    return finding or of_body


def verdict_of(error: AnswerError | OwnFileError) -> Finding:
    """Return reason and detail of what ended a probe."""
    return (error.reason, error.detail) if isinstance(error, AnswerError) else (Reason.INTERNAL, str(error))


def reads_files(ask: HttpAsk) -> bool:
    """Whether a request of *ask* has something that stands in a file."""
    files = (
        ask.body_file,
        ask.basic_auth and ask.basic_auth.password_file,
        ask.bearer and ask.bearer.token_file,
    )
    return any(files)


def _authorization(ask: HttpAsk, user: str | None) -> Mapping[str, str]:
    if ask.bearer is not None:
        given, file = ask.bearer.token, ask.bearer.token_file
        return {"Authorization": f"{ask.bearer.scheme} {_secret(given, file, 'token_file')}"}
    if ask.basic_auth is not None:
        given, file = ask.basic_auth.password, ask.basic_auth.password_file
        return {"Authorization": basic(f"{ask.basic_auth.username}:{_secret(given, file, 'password_file')}")}
    return {"Authorization": basic(user)} if user is not None else {}


def _secret(given: SecretStr | None, file: str | None, key: str) -> str:
    if file is not None:
        return read_secret(file, key)
    return given.get_secret_value() if given is not None else ""
