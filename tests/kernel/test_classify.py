"""What is wrong and how bad it is, for real exceptions, for strangers' events, and with the reasons."""

import asyncio
import dataclasses
import socket
import sqlite3
import ssl
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable

import aiohttp
import flask
import pytest
import redis
import requests
from hypothesis import given
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from soulfra_monitor.classify import Classification, History, classify
from soulfra_monitor.events import Event, Frame, Kind, Raised, Relation
from soulfra_monitor.meanings import CERTAIN, TEXTS, USUAL
from soulfra_monitor.problems import Problem, Severity


def _event(*raised: Raised, kind: Kind = Kind.METHOD, message: str = "", **more: object) -> Event:
    event = Event(id="0" * 32, at=0.0, kind=kind, service="shop", message=message, raised=raised)
    return dataclasses.replace(event, **more)  # type: ignore[arg-type]


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _chain(error: BaseException) -> tuple[Raised, ...]:
    relation, chain = Relation.RAISED, []
    at: BaseException | None = error
    while at is not None:
        chain.append(Raised(type=_name(at), message=str(at), relation=relation))
        relation = Relation.CAUSE if at.__cause__ is not None else Relation.CONTEXT
        at = at.__cause__ or at.__context__
    return tuple(chain)


def _raised_by(fail: Callable[[], object]) -> Event:
    try:
        fail()
    except Exception as error:  # noqa: BLE001 - whatever the library makes of it
        return _event(*_chain(error), message=str(error))
    raise AssertionError("nothing was raised")


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


@pytest.fixture
def mute_port() -> object:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_refused_connection_is_known_from_every_client(closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}/"

    async def ask() -> None:
        async with aiohttp.ClientSession() as session, session.get(url):
            pass

    def connect() -> None:
        socket.create_connection(("127.0.0.1", closed_port))

    fails: list[Callable[[], object]] = [
        connect,
        lambda: urllib.request.urlopen(url),
        lambda: requests.get(url, timeout=5),
        lambda: asyncio.run(ask()),
    ]
    assert [classify(_raised_by(fail)).problem for fail in fails] == [Problem.CONNECTION_REFUSED] * 4


def test_a_timeout_is_known_from_every_client(mute_port: int) -> None:
    url = f"http://127.0.0.1:{mute_port}/"

    async def ask() -> None:
        limit = aiohttp.ClientTimeout(total=0.05)
        async with aiohttp.ClientSession(timeout=limit) as session, session.get(url):
            pass

    async def wait() -> None:
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)

    fails: list[Callable[[], object]] = [
        lambda: urllib.request.urlopen(url, timeout=0.05),
        lambda: requests.get(url, timeout=0.05),
        lambda: asyncio.run(ask()),
        lambda: asyncio.run(wait()),
    ]
    assert [classify(_raised_by(fail)).problem for fail in fails] == [Problem.NETWORK_TIMEOUT] * 4


def test_redis_away_is_redis_away_though_the_system_says_refused(closed_port: int) -> None:
    client = redis.Redis(port=closed_port, retry=Retry(NoBackoff(), 0))

    verdict = classify(_raised_by(client.ping))

    assert verdict.problem is Problem.REDIS_UNAVAILABLE
    assert verdict.reasons[0] == "redis.exceptions.ConnectionError: Redis does not serve."


def test_a_full_table_of_databases_faults(tmp_path: object) -> None:
    locker = sqlite3.connect(f"{tmp_path}/x.db", timeout=0)
    other = sqlite3.connect(f"{tmp_path}/x.db", timeout=0)
    locker.execute("BEGIN EXCLUSIVE")
    try:
        locked = _raised_by(lambda: other.execute("CREATE TABLE t(a)"))
        wrong = _raised_by(lambda: locker.execute("SELECT * FROM nowhere"))
    finally:
        locker.close()
        other.close()

    assert classify(locked).problem is Problem.DATABASE_UNAVAILABLE
    assert classify(wrong).problem is Problem.UNCAUGHT_EXCEPTION


@pytest.mark.parametrize(
    ("type_", "message", "problem"),
    [
        ("PermissionError", "[Errno 13] Permission denied: '/srv/out'", Problem.PERMISSION_DENIED),
        ("FileNotFoundError", "", Problem.MISSING_FILE),
        ("MemoryError", "", Problem.MEMORY_PRESSURE),
        ("OSError", "[Errno 28] No space left on device: '/srv/out/x'", Problem.DISK_FULL),
        ("OSError", "[Errno 24] Too many open files", Problem.HANDLE_EXHAUSTION),
        ("TimeoutError", "", Problem.NETWORK_TIMEOUT),
        ("asyncio.exceptions.TimeoutError", "", Problem.NETWORK_TIMEOUT),
        ("socket.timeout", "timed out", Problem.NETWORK_TIMEOUT),
        ("ConnectionResetError", "", Problem.DEPENDENCY_FAILURE),
        ("BrokenPipeError", "", Problem.DEPENDENCY_FAILURE),
        ("socket.gaierror", "[Errno -2] Name or service not known", Problem.DEPENDENCY_FAILURE),
        ("ssl.SSLCertVerificationError", "certificate has expired (_ssl.c:1006)", Problem.TLS_EXPIRY),
        ("ssl.SSLCertVerificationError", "Hostname mismatch", Problem.DEPENDENCY_FAILURE),
        ("psycopg.OperationalError", "connection failed", Problem.DATABASE_UNAVAILABLE),
        ("psycopg2.OperationalError", "server closed the connection", Problem.DATABASE_UNAVAILABLE),
        ("asyncpg.exceptions.ConnectionDoesNotExistError", "", Problem.DATABASE_UNAVAILABLE),
        ("asyncpg.exceptions.UniqueViolationError", "", Problem.UNCAUGHT_EXCEPTION),
        ("pymysql.err.OperationalError", '(2003, "Can\'t connect")', Problem.DATABASE_UNAVAILABLE),
        ("pymysql.err.IntegrityError", "duplicate", Problem.UNCAUGHT_EXCEPTION),
        ("sqlalchemy.exc.OperationalError", "could not connect", Problem.DATABASE_UNAVAILABLE),
        ("sqlalchemy.exc.TimeoutError", "QueuePool limit reached", Problem.DATABASE_UNAVAILABLE),
        ("redis.exceptions.TimeoutError", "", Problem.REDIS_UNAVAILABLE),
        ("redis.exceptions.ResponseError", "WRONGTYPE", Problem.UNCAUGHT_EXCEPTION),
        ("redis.exceptions.OutOfMemoryError", "", Problem.MEMORY_PRESSURE),
        ("httpx.ConnectTimeout", "", Problem.NETWORK_TIMEOUT),
        ("httpx.ConnectError", "All connection attempts failed", Problem.DEPENDENCY_FAILURE),
        ("httpx.HTTPStatusError", "Client error '429 Too Many Requests' for url", Problem.PROVIDER_QUOTA),
        ("requests.exceptions.HTTPError", "429 Client Error: x for url", Problem.PROVIDER_QUOTA),
        ("requests.exceptions.HTTPError", "503 Server Error: x for url", Problem.DEPENDENCY_FAILURE),
        ("urllib3.exceptions.ReadTimeoutError", "", Problem.NETWORK_TIMEOUT),
        ("openai.RateLimitError", "", Problem.PROVIDER_QUOTA),
        ("anthropic.APITimeoutError", "", Problem.NETWORK_TIMEOUT),
        ("google.api_core.exceptions.ResourceExhausted", "", Problem.PROVIDER_QUOTA),
        ("shop.ProviderError", "OpenAI API timeout", Problem.NETWORK_TIMEOUT),
        ("shop.ProviderError", "You exceeded your current quota", Problem.PROVIDER_QUOTA),
        ("peer.PeerError", "gpt answered 429: the quota of 600 is used up", Problem.PROVIDER_QUOTA),
        ("peer.PeerError", "gpt did not answer within 2 s", Problem.NETWORK_TIMEOUT),
        ("ValueError", "timeout after 3 must not be negative", Problem.UNCAUGHT_EXCEPTION),
        ("KeyError", "'redis unavailable'", Problem.UNCAUGHT_EXCEPTION),
        ("MongoServerSelectionError", "", Problem.DATABASE_UNAVAILABLE),
        ("MaxRetriesPerRequestError", "", Problem.REDIS_UNAVAILABLE),
        ("Error", "connect ECONNREFUSED 127.0.0.1:6", Problem.CONNECTION_REFUSED),
        ("TypeError", "Cannot read properties of undefined", Problem.UNCAUGHT_EXCEPTION),
    ],
)
def test_a_type_and_its_message_say_what_is_wrong(type_: str, message: str, problem: Problem) -> None:
    event = _event(Raised(type=type_, message=message), message=message or "m")

    assert classify(event).problem is problem


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("errno", 28, Problem.DISK_FULL),
        ("errno", "28", Problem.DISK_FULL),
        ("errno", 24, Problem.HANDLE_EXHAUSTION),
        ("errno", -111, Problem.CONNECTION_REFUSED),
        ("errno", "ECONNREFUSED", Problem.CONNECTION_REFUSED),
        ("code", "ENOTFOUND", Problem.DEPENDENCY_FAILURE),
        ("code", "EMFILE", Problem.HANDLE_EXHAUSTION),
        ("code", "ETIMEDOUT", Problem.NETWORK_TIMEOUT),
        ("code", "CERT_HAS_EXPIRED", Problem.TLS_EXPIRY),
        ("errno", "nonsense", Problem.OTHER),
        ("errno", 1e300, Problem.OTHER),
    ],
)
def test_a_code_of_the_system_says_what_is_wrong(key: str, value: str | float, problem: Problem) -> None:
    event = _event(Raised(type="Error"), kind=Kind.REPORTED, message="m", facts={key: value})

    assert classify(event).problem is problem


@pytest.mark.parametrize(
    ("kind", "problem", "severity"),
    [
        (Kind.UNCAUGHT, Problem.UNCAUGHT_EXCEPTION, Severity.HIGH),
        (Kind.THREAD, Problem.UNCAUGHT_EXCEPTION, Severity.HIGH),
        (Kind.FUTURE, Problem.UNCAUGHT_EXCEPTION, Severity.HIGH),
        (Kind.TASK, Problem.UNCAUGHT_EXCEPTION, Severity.HIGH),
        (Kind.CALLBACK, Problem.UNCAUGHT_EXCEPTION, Severity.HIGH),
        (Kind.NEVER_AWAITED, Problem.UNCAUGHT_EXCEPTION, Severity.HIGH),
        (Kind.UNRAISABLE, Problem.UNCAUGHT_EXCEPTION, Severity.MEDIUM),
        (Kind.ATEXIT, Problem.UNCAUGHT_EXCEPTION, Severity.MEDIUM),
        (Kind.REJECTION, Problem.UNHANDLED_REJECTION, Severity.HIGH),
        (Kind.LOGGED, Problem.SWALLOWED_ERROR, Severity.MEDIUM),
        (Kind.SWALLOWED, Problem.SWALLOWED_ERROR, Severity.LOW),
        (Kind.METHOD, Problem.UNCAUGHT_EXCEPTION, Severity.MEDIUM),
        (Kind.RETURNED, Problem.SERVICE_DEGRADED, Severity.MEDIUM),
        (Kind.SLOW, Problem.SERVICE_TIMEOUT, Severity.MEDIUM),
        (Kind.HUNG, Problem.SERVICE_TIMEOUT, Severity.HIGH),
        (Kind.LOOP_BLOCKED, Problem.LOOP_BLOCKED, Severity.MEDIUM),
        (Kind.HTTP, Problem.DEPENDENCY_FAILURE, Severity.MEDIUM),
        (Kind.HTTP_STATUS, Problem.DEPENDENCY_FAILURE, Severity.MEDIUM),
        (Kind.REDIS, Problem.REDIS_UNAVAILABLE, Severity.HIGH),
        (Kind.DATABASE, Problem.DATABASE_UNAVAILABLE, Severity.HIGH),
        (Kind.FILE, Problem.OTHER, Severity.LOW),
        (Kind.CHILD, Problem.DEPENDENCY_FAILURE, Severity.MEDIUM),
        (Kind.EXIT, Problem.PROCESS_DIED, Severity.CRITICAL),
        (Kind.HANDLES, Problem.HANDLE_EXHAUSTION, Severity.HIGH),
        (Kind.THREADS, Problem.HANDLE_EXHAUSTION, Severity.HIGH),
        (Kind.MEMORY, Problem.MEMORY_LEAK, Severity.MEDIUM),
        (Kind.RESOURCE, Problem.OTHER, Severity.LOW),
        (Kind.REPORTED, Problem.OTHER, Severity.MEDIUM),
    ],
)
def test_each_kind_has_its_usual_problem_and_severity(
    kind: Kind, problem: Problem, severity: Severity
) -> None:
    verdict = classify(_event(kind=kind, message="it went wrong"))

    assert (verdict.problem, verdict.severity) == (problem, severity)
    assert all(reason.endswith(".") for reason in verdict.reasons)


def test_every_kind_is_judged() -> None:
    told = {*CERTAIN, *USUAL, Kind.METHOD, Kind.FILE, Kind.REPORTED}

    assert told == set(Kind)


def test_a_cause_says_more_than_what_it_led_to() -> None:
    event = _event(
        Raised(type="shop.OrderError", message="cannot save"),
        Raised(type="redis.exceptions.ConnectionError", relation=Relation.CAUSE),
        Raised(type="ConnectionRefusedError", relation=Relation.CONTEXT),
    )

    assert classify(event).problem is Problem.REDIS_UNAVAILABLE


def test_what_was_being_handled_counts_only_for_want_of_better() -> None:
    handled = Raised(type="FileNotFoundError", relation=Relation.CONTEXT)

    assert classify(_event(Raised(type="PermissionError"), handled)).problem is Problem.PERMISSION_DENIED
    assert classify(_event(Raised(type="shop.Error"), handled)).problem is Problem.MISSING_FILE


def test_an_answer_429_is_a_quota() -> None:
    event = _event(kind=Kind.HTTP_STATUS, message="m", facts={"status": 429})

    assert classify(event).problem is Problem.PROVIDER_QUOTA


def test_memory_near_its_limit_is_pressure_and_no_mere_leak() -> None:
    event = _event(kind=Kind.MEMORY, message="m", facts={"value": 95, "limit": 100})

    assert classify(event).problem is Problem.MEMORY_PRESSURE


def test_the_sender_is_believed_where_nothing_else_is_known() -> None:
    event = _event(kind=Kind.REPORTED, message="scores differ", problem="state_inconsistent")
    known = dataclasses.replace(event, raised=(Raised(type="PermissionError"),))

    assert classify(event).problem is Problem.STATE_INCONSISTENT
    assert classify(known).problem is Problem.PERMISSION_DENIED
    assert "The sender calls it state_inconsistent." in classify(known).reasons


def test_a_problem_of_no_list_is_no_opinion() -> None:
    assert classify(_event(kind=Kind.REPORTED, message="m", problem="aliens")).problem is Problem.OTHER


def _severity(**more: object) -> Severity:
    history = more.pop("history", None)
    return classify(_event(**more), history).severity  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("opinion", "kind", "severity"),
    [
        ("fatal", Kind.REPORTED, Severity.CRITICAL),
        ("error", Kind.REPORTED, Severity.HIGH),
        ("Warning", Kind.REPORTED, Severity.MEDIUM),
        ("debug", Kind.REPORTED, Severity.LOW),
        ("strange", Kind.REPORTED, Severity.MEDIUM),
        ("fatal", Kind.SWALLOWED, Severity.MEDIUM),
        ("info", Kind.EXIT, Severity.HIGH),
    ],
)
def test_the_senders_opinion_decides_what_only_it_knows_and_moves_the_rest_a_step(
    opinion: str, kind: Kind, severity: Severity
) -> None:
    assert _severity(kind=kind, message="m", severity=opinion) is severity


@pytest.mark.parametrize(
    ("facts", "context", "severity"),
    [
        ({"exit_code": 1}, {}, Severity.HIGH),
        ({"exit_code": 255}, {}, Severity.HIGH),
        ({"exit_code": 9}, {"at_once": True}, Severity.CRITICAL),  # os._exit
        ({"exit_code": 137}, {}, Severity.CRITICAL),  # what a shell says of SIGKILL
        ({"signal": "SIGSEGV"}, {}, Severity.CRITICAL),
        ({"signal": "SIGKILL"}, {}, Severity.CRITICAL),
        ({}, {}, Severity.CRITICAL),
    ],
)
def test_a_program_that_ends_by_itself_calls_nobody_at_night(
    facts: dict[str, object], context: dict[str, object], severity: Severity
) -> None:
    often = History(recent=1000, callers=5, recovery_failed=True)

    for history in (None, often):
        assert (
            _severity(kind=Kind.EXIT, message="m", facts=facts, context=context, history=history) is severity
        )


def test_what_somebody_handled_is_a_step_lower_but_not_what_nobody_saw() -> None:
    assert _severity(kind=Kind.REDIS, message="m", handled=True) is Severity.MEDIUM
    assert _severity(kind=Kind.TASK, message="m", handled=True) is Severity.HIGH


def test_lost_data_is_high() -> None:
    assert _severity(kind=Kind.SWALLOWED, message="possible data loss in queue") is Severity.HIGH


@pytest.mark.parametrize(
    ("history", "severity"),
    [
        (History(), Severity.LOW),
        (History(recent=9), Severity.LOW),
        (History(recent=10), Severity.MEDIUM),
        (History(recent=40, usual=10.0), Severity.LOW),
        (History(recent=50, usual=10.0), Severity.MEDIUM),
        (History(callers=3), Severity.MEDIUM),
        (History(new_after_release=True), Severity.MEDIUM),
        (History(recovery_failed=True), Severity.MEDIUM),
        (History(recent=99, callers=9, new_after_release=True, recovery_failed=True), Severity.HIGH),
    ],
)
def test_rate_spread_a_release_and_a_failed_recovery_raise_it(history: History, severity: Severity) -> None:
    assert _severity(kind=Kind.RESOURCE, message="m", history=history) is severity


def test_a_swallowed_error_is_never_critical() -> None:
    history = History(recent=1000, callers=9)

    assert _severity(kind=Kind.SWALLOWED, message="m", severity="fatal", history=history) is Severity.HIGH


def test_the_reasons_say_what_was_weighed() -> None:
    event = _event(kind=Kind.REDIS, message="m", handled=True, severity="fatal")

    assert classify(event, History(recent=12, usual=1.5)) == Classification(
        problem=Problem.REDIS_UNAVAILABLE,
        severity=Severity.CRITICAL,
        reasons=(
            "Kind redis: Redis does not serve.",
            "redis_unavailable counts as high.",
            "The program went on: a step lower.",
            "The sender calls it fatal: high.",
            "12 in 5 minutes, usually 1.5: a step higher.",
        ),
    )


@given(
    st.builds(
        Event,
        id=st.just("0" * 32),
        at=st.just(0.0),
        kind=st.sampled_from(Kind),
        service=st.just("a"),
        message=st.text(st.characters()),
        raised=st.lists(
            st.builds(Raised, type=st.text(), message=st.text(), relation=st.sampled_from(Relation)),
            max_size=4,
        ).map(tuple),
        handled=st.booleans(),
        facts=st.dictionaries(
            st.sampled_from(["errno", "code", "status", "value", "limit", "signal"]),
            st.text() | st.integers() | st.floats(),
        ),
        severity=st.text(),
        problem=st.text(),
    )
)
def test_any_event_is_judged_the_same_each_time(event: Event) -> None:
    assert classify(event) == classify(event)


@pytest.mark.parametrize(
    "piece", ["redis ", "db ", "timed ", "quota ", "exceeded your ", "lost ", "5", "(", "x"]
)
def test_the_time_of_a_message_grows_no_faster_than_its_length(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    began = time.process_time()

    for pattern, _ in TEXTS:
        pattern.search(text)

    assert time.process_time() - began < 4.0  # ten times what it takes; a quadratic one takes minutes


def test_names_of_the_standard_library_are_spelt_as_it_spells_them() -> None:
    assert _name(ssl.SSLCertVerificationError()) == "ssl.SSLCertVerificationError"
    assert _name(socket.gaierror()) == "socket.gaierror"
    assert _name(urllib.error.URLError("x")) == "urllib.error.URLError"
    assert _name(sqlite3.OperationalError()) == "sqlite3.OperationalError"


_FRAMEWORK = Frame(module="flask.app", function="Flask.wsgi_app", file="flask/app.py", line=1, in_app=False)
_VIEW = Frame(module="shop", function="pay", file="shop.py", line=7, in_app=True)


def _logged(*frames: Frame, level: str = "ERROR", type_name: str = "KeyError") -> Classification:
    raised = Raised(type=type_name, message="'x'", frames=frames)
    return classify(_event(raised, kind=Kind.LOGGED, message="'x'", handled=True, context={"level": level}))


@pytest.mark.parametrize("type_name", ["KeyError", "shop.OutOfStock"])
def test_what_only_the_framework_caught_and_logged_is_an_uncaught_exception(type_name: str) -> None:
    found = _logged(_FRAMEWORK, _FRAMEWORK, _VIEW, type_name=type_name)

    assert (found.problem, found.severity) == (Problem.UNCAUGHT_EXCEPTION, Severity.HIGH)
    assert any("no answer" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    "found",
    [
        _logged(_VIEW),
        _logged(_VIEW, _FRAMEWORK),
        _logged(_FRAMEWORK),
        _logged(_FRAMEWORK, _VIEW, level="WARNING"),
        _logged(),
    ],
    ids=["caught by the program", "from a library", "of a library alone", "a warning", "no traceback"],
)
def test_other_logged_errors_count_as_swallowed(found: Classification) -> None:
    assert (found.problem, found.severity) == (Problem.SWALLOWED_ERROR, Severity.MEDIUM)


def test_a_failed_request_keeps_the_problem_that_its_exception_names() -> None:
    found = _logged(_FRAMEWORK, _VIEW, type_name="redis.exceptions.ConnectionError")

    assert (found.problem, found.severity) == (Problem.REDIS_UNAVAILABLE, Severity.HIGH)


def test_the_traceback_of_a_failing_view_of_flask_tells_that_the_framework_caught_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = flask.Flask("shop")

    @app.get("/")
    def view() -> str:
        raise KeyError("x")

    assert app.test_client().get("/").status_code == 500
    told = caplog.records[0].exc_info
    assert told is not None
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(told[2])]
    assert "site-packages" in files[0]
    assert files[-1] == __file__


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        (Kind.FUTURE, {"held": 1}),
        (Kind.TASK, {"held": 1}),
        (Kind.HUNG, {"lock": "alone"}),
        (Kind.CHILD, {"signal": 9}),
        (Kind.CHILD, {"exit_code": 1}),
    ],
)
def test_what_may_come_right_by_itself_calls_nobody(kind: Kind, facts: dict[str, str | int]) -> None:
    assert classify(_event(kind=kind, message="m", facts=facts)).severity is Severity.MEDIUM


def test_locks_that_threads_hold_against_each_other_are_serious() -> None:
    assert _severity(kind=Kind.HUNG, message="m", facts={"lock": "mutual"}) is Severity.HIGH
