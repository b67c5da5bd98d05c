"""Errors that are alike share a fingerprint, over deploys, inputs and Python versions; others do not."""

import dataclasses
import re
import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulfra_monitor.events import Event, Frame, Kind, Raised, Relation
from soulfra_monitor.fingerprint import fingerprint, parameterised, quick, subject
from soulfra_monitor.problems import Problem


def _frame(function: str, module: str = "shop.orders", **more: object) -> Frame:
    return dataclasses.replace(Frame(module=module, function=function), **more)  # type: ignore[arg-type]


def _event(*raised: Raised, message: str = "m", kind: Kind = Kind.TASK, **more: object) -> Event:
    event = Event(id="0" * 32, at=0.0, kind=kind, service="shop", message=message, raised=raised)
    return dataclasses.replace(event, **more)  # type: ignore[arg-type]


def _of(*frames: Frame, type_: str = "ValueError", message: str = "m") -> str:
    return fingerprint(_event(Raised(type=type_, message=message, frames=frames)))


MAIN, PAY = _frame("main"), _frame("pay")


def test_it_is_a_version_and_sixteen_hexadecimal_digits() -> None:
    assert re.fullmatch(r"v1\.[0-9a-f]{16}", _of(MAIN))


def test_the_algorithm_has_not_changed_under_its_version() -> None:
    assert _of(MAIN, PAY) == "v1.1dc783057100cd74"
    assert fingerprint(_event(message="user 17 not found")) == "v1.367afddb574bd010"


@pytest.mark.parametrize(
    "alike",
    [
        (MAIN, dataclasses.replace(PAY, line=99, file="/srv/releases/7/shop/orders.py")),
        (MAIN, PAY, _frame("execute", "sqlalchemy.engine", in_app=False)),
        (MAIN, _frame("call", "soulfra_monitor.wrapping"), PAY),
        (MAIN, PAY, PAY, PAY),
        (MAIN, _frame("pay.<locals>.<listcomp>"), PAY),
        (MAIN, _frame("async pay")),
        (MAIN, _frame("pay [as charge]")),
        (MAIN, _frame("pay at 0x7f00dead")),
    ],
)
def test_lines_libraries_recursion_comprehensions_and_addresses_do_not_count(
    alike: tuple[Frame, ...],
) -> None:
    assert _of(*alike) == _of(MAIN, PAY)


@pytest.mark.parametrize("message", ["other", "user 17", ""])
def test_the_message_does_not_count_where_there_are_frames(message: str) -> None:
    assert _of(MAIN, message=message) == _of(MAIN)


@pytest.mark.parametrize(
    "other",
    [
        _of(MAIN, _frame("refund")),
        _of(MAIN, _frame("pay", "shop.other")),
        _of(MAIN, PAY, type_="KeyError"),
        _of(MAIN),
        fingerprint(_event(Raised(type="ValueError", frames=(MAIN, PAY)), kind=Kind.THREAD)),
        fingerprint(
            _event(
                Raised(type="ValueError", frames=(MAIN, PAY)),
                Raised(type="OSError", relation=Relation.CAUSE),
            )
        ),
    ],
)
def test_function_module_type_kind_and_cause_count(other: str) -> None:
    assert other != _of(MAIN, PAY)


def test_mutual_recursion_of_any_depth_is_one_error() -> None:
    ping, pong = _frame("ping"), _frame("pong")

    assert _of(MAIN, *[ping, pong] * 3) == _of(MAIN, *[ping, pong] * 20)


def test_where_a_runaway_recursion_ends_is_chance() -> None:
    ping, pong = _frame("ping"), _frame("pong")

    ended_in_pong = _of(*[ping, pong] * 9, type_="RecursionError")
    assert _of(*[ping, pong] * 9, ping, type_="RecursionError") == ended_in_pong


def test_only_the_innermost_eight_count() -> None:
    inner = [_frame(f"f{number}") for number in range(8)]

    assert _of(MAIN, *inner) == _of(PAY, *inner)
    assert _of(MAIN, *inner[1:]) != _of(PAY, *inner[1:])


@pytest.mark.parametrize(
    "name", ["<lambda>", "<anonymous>", "Object.<anonymous>", "lambda$12", "$$Lambda$7", ""]
)
def test_functions_without_a_name_are_the_same_nameless_one(name: str) -> None:
    assert _of(_frame(name)) == _of(_frame("<lambda>"))


def test_numbers_and_hashes_in_the_paths_of_modules_do_not_count() -> None:
    one = _frame("f", "/srv/releases/20260101/dist/main.3f2a9c1d2e.js")
    other = _frame("f", "/srv/releases/20260202/dist/main.aa2a9c1d77.js")

    assert _of(one) == _of(other)


def test_frames_of_libraries_count_where_there_are_no_others() -> None:
    pool = _frame("get", "pool", in_app=False)

    assert _of(pool) != _of(_frame("put", "pool", in_app=False))


def test_the_cause_has_the_frames_where_the_exception_has_none_in_app() -> None:
    outer = Raised(type="E", frames=(_frame("get", "pool", in_app=False),))
    causes = [Raised(type="F", relation=Relation.CAUSE, frames=(frame,)) for frame in (MAIN, PAY)]

    assert fingerprint(_event(outer, causes[0])) != fingerprint(_event(outer, causes[1]))


def test_the_order_and_number_of_members_of_a_group_do_not_count() -> None:
    group = Raised(type="ExceptionGroup", frames=(MAIN,))
    first, second = (Raised(type=name, relation=Relation.MEMBER) for name in ("A", "B"))

    assert fingerprint(_event(group, first, second)) == fingerprint(_event(group, second, first, first))


def test_a_fingerprint_given_by_people_is_all_that_counts() -> None:
    one = fingerprint(_event(message="a", fingerprint="checkout"))

    assert one == fingerprint(
        _event(Raised(type="X", frames=(MAIN,)), kind=Kind.HTTP, fingerprint="checkout")
    )
    assert one != fingerprint(_event(message="a", fingerprint="search"))
    assert re.fullmatch(r"v1\.[0-9a-f]{16}", one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("user 17 not found", "user 4711 not found"),
        ("user 'bob' not found", 'user "eve smith" not found'),
        ("GET https://a.example/x?y=1 failed", "GET http://b.example/ failed"),
        ("mail to bob@example.org bounced", "mail to eve.x@mail.example.net bounced"),
        ("no answer of 10.1.2.3:80", "no answer of 192.168.0.1"),
        ("no answer of fe80:0:0:1:2:3:4:5", "no answer of 2001:db8:1:2:3:4:5:6"),
        ("job 0f8fad5b-d9cb-469f-a165-70867728950e", "job 7c9e6679-7425-40de-944b-e07fc1f90ae7"),
        ("commit 3f2a9c1d2e", "commit 99aa00bb11cc"),
        ("at 2026-11-24 10:00:00 late", "at 2025-01-02T03:04:05.678Z late"),
        ("object at 0x7f3a2b", "object at 0x7f0000000000"),
        ("values [1, 2, 3]", "values [4, 5, 6, 7, 8.5]"),
        ("no /srv/jobs/17/out.txt", "no /srv/jobs/18/out.txt"),
        ("took 3.5 s", "took 12 s"),
    ],
)
def test_messages_that_differ_in_their_values_are_alike(one: str, other: str) -> None:
    assert parameterised(one) == parameterised(other)
    assert fingerprint(_event(message=one)) == fingerprint(_event(message=other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("user not found", "order not found"),
        ("coroutine 'a.send' was never awaited", "coroutine 'a.save' was never awaited"),
        ("No module named 'numpy'", "No module named 'redis'"),
        ("'NoneType' object has no attribute 'x'", "'NoneType' object has no attribute 'y'"),
        ("don't do this", "don't do that"),
    ],
)
def test_names_of_code_in_quotes_count(one: str, other: str) -> None:
    assert fingerprint(_event(message=one)) != fingerprint(_event(message=other))


def test_peer_and_status_tell_errors_without_frames_apart() -> None:
    first, second = (_event(kind=Kind.HTTP_STATUS, facts={"peer": peer}) for peer in ("a:80", "b:80"))

    assert fingerprint(first) != fingerprint(second)


def test_faults_in_code_are_apart_by_fingerprint_and_conditions_are_one() -> None:
    event = _event(Raised(type="E", frames=(MAIN,)))

    assert subject(event, Problem.UNCAUGHT_EXCEPTION) == fingerprint(event)
    assert subject(event, Problem.SWALLOWED_ERROR) == fingerprint(event)
    assert subject(event, Problem.OTHER) == fingerprint(event)
    assert subject(event, Problem.REDIS_UNAVAILABLE) == ""
    assert subject(event, Problem.NETWORK_TIMEOUT) == ""


def test_faults_of_files_are_apart_by_path() -> None:
    event = _event(facts={"path": "/srv/out"})

    assert subject(event, Problem.PERMISSION_DENIED) == "/srv/out"
    assert subject(_event(), Problem.MISSING_FILE) == fingerprint(_event())


_any_frames = st.lists(
    st.builds(Frame, module=st.text(max_size=9), function=st.text(max_size=9), in_app=st.booleans()),
    max_size=4,
)


@given(st.text(st.characters()), _any_frames)
def test_anything_has_a_fingerprint(text: str, frames: list[Frame]) -> None:
    event = _event(Raised(type=text, message=text, frames=tuple(frames)), message=text)

    assert re.fullmatch(r"v1\.[0-9a-f]{16}", fingerprint(event))


@pytest.mark.parametrize(
    "piece", ["a", "1", "a:", "1.", "ab:", "'", '"', "a@", "a.", "-", "http://", "task '", "0x", "f0", " 1,"]
)
def test_the_time_of_a_message_grows_no_faster_than_its_length(
    piece: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soulfra_monitor.fingerprint.MESSAGE_LENGTH", 10**9)
    began = time.process_time()

    parameterised(piece * (100_000 // len(piece)))

    assert (
        time.process_time() - began < 2.0
    )  # ten times and more what it takes; a quadratic one takes minutes


def _raise(depth: int, leaf: Callable[[], None]) -> BaseException:
    def down(left: int) -> None:
        if left:
            down(left - 1)
        leaf()

    try:
        down(depth)
    except Exception as error:  # noqa: BLE001 - the one it was told to raise
        return error
    raise AssertionError


def _divide() -> None:
    _ = 1 // 0


def _look_up() -> None:
    _ = dict[int, int]()[1]


def _quick(error: BaseException, kind: Kind = Kind.TASK) -> int:
    return quick(kind, error, error.__traceback__)


def test_the_quick_one_knows_the_same_error_again_and_tells_others_apart() -> None:
    first, again, other = _raise(3, _divide), _raise(3, _divide), _raise(3, _look_up)

    assert _quick(first) == _quick(again)
    assert _quick(first) != _quick(other)
    assert _quick(first) != _quick(first, Kind.THREAD)


def test_the_quick_one_takes_an_exception_without_traceback() -> None:
    assert _quick(ValueError()) == _quick(ValueError())


def test_the_quick_one_does_not_walk_down_a_runaway_recursion() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    try:
        error = _raise(40_000, _divide)
    finally:
        sys.setrecursionlimit(limit)
    began = time.process_time()

    for _ in range(1000):
        _quick(error)

    assert time.process_time() - began < 0.5  # walking all of it would take a second and more
