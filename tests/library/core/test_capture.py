"""What is taken of an error, and that nothing of it is kept alive."""

# Raising is what is tried here:
# ruff: noqa: TRY301

import gc
import json
import sys
import traceback
import weakref
from pathlib import Path
from typing import Any

import pytest

from soulfra_monitor.capture import (
    Opinion,
    Painter,
    Sketch,
    facts_of,
    link_of_frame,
    links_of,
    plain,
    text_of,
)
from soulfra_monitor.events import CHAIN_LIMIT, FRAMES_LIMIT, Event, Kind, Relation


class ShopError(Exception):
    """One of a program's own."""


def event_of(error: BaseException, *, in_app: tuple[str, ...] = (), **more: Any) -> Event:
    sketch = Sketch(
        at=1.0,
        kind=Kind.LOGGED,
        service="shop",
        message="",
        links=links_of(error, **more),
        handled=True,
        count=1,
        opinion=Opinion(),
    )
    return Painter(release="1.0", in_app=in_app).paint(sketch, ident="0" * 32, system={})


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - to be looked at
        return caught


def test_an_event_says_what_was_raised_where() -> None:
    event = event_of(raised(ShopError("no stock")))

    assert event.message == "no stock"
    assert event.raised[0].type.endswith(".ShopError")
    frame = event.raised[0].frames[-1]
    assert (frame.function, frame.file, frame.in_app) == ("raised", __file__, True)
    assert frame.module == raised.__globals__["__name__"]
    assert frame.line == raised.__code__.co_firstlineno + 2


def test_a_builtin_exception_has_no_module_before_its_name() -> None:
    assert event_of(raised(ValueError("x"))).raised[0].type == "ValueError"


def test_an_exception_without_a_text_is_told_by_its_type() -> None:
    assert event_of(raised(ValueError())).message == "ValueError"


def test_causes_and_contexts_are_told_in_their_order() -> None:
    def fail() -> None:
        try:
            try:
                raise KeyError("a")
            except KeyError:
                raise TypeError("b")  # noqa: B904 - the context is the fact
        except TypeError as error:
            raise ShopError("c") from error

    with pytest.raises(ShopError) as caught:
        fail()

    chain = [(one.message, one.relation) for one in event_of(caught.value).raised]
    assert chain == [("c", Relation.RAISED), ("b", Relation.CAUSE), ("'a'", Relation.CONTEXT)]


def test_a_context_that_was_suppressed_is_not_told() -> None:
    def fail() -> None:
        try:
            raise KeyError("a")
        except KeyError:
            raise ShopError("c") from None

    with pytest.raises(ShopError) as caught:
        fail()

    assert len(event_of(caught.value).raised) == 1


def test_members_of_a_group_and_notes_are_told() -> None:
    first = ValueError("one")
    first.add_note("seen at noon")

    event = event_of(raised(ExceptionGroup("both", [first, TypeError("two")])))

    assert [(one.message, one.relation) for one in event.raised[1:]] == [
        ("one", Relation.MEMBER),
        ("two", Relation.MEMBER),
    ]
    assert event.raised[1].notes == ("seen at noon",)


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first

    assert [one.message for one in event_of(first).raised] == ["1", "2"]


def test_a_long_chain_is_cut() -> None:
    error: BaseException = ValueError("last")
    for number in range(50):
        outer = ValueError(str(number))
        outer.__cause__ = error
        error = outer

    assert len(event_of(error).raised) == CHAIN_LIMIT


def test_a_deep_stack_is_kept_at_both_ends() -> None:
    def deeper(left: int) -> None:
        if not left:
            raise ShopError("deep")
        deeper(left - 1)

    def outermost() -> None:
        deeper(500)

    with pytest.raises(ShopError) as caught:
        outermost()

    frames = event_of(caught.value).raised[0].frames
    assert len(frames) == FRAMES_LIMIT
    assert frames[1].function.endswith("outermost")
    assert frames[-1].line == deeper.__code__.co_firstlineno + 2


def test_a_cheap_look_leaves_out_what_led_to_it() -> None:
    error = ValueError("1")
    error.__cause__ = ValueError("2")

    assert [one.message for one in event_of(error, cheap=True).raised] == ["1"]


def test_an_exception_whose_text_fails_is_told_all_the_same() -> None:
    class Broken(Exception):  # noqa: N818 - a name of a test
        def __str__(self) -> str:
            raise RuntimeError("inside")

    assert "has no text: RuntimeError" in event_of(raised(Broken())).message


def test_packages_and_pythons_library_are_not_in_app() -> None:
    def fail() -> None:
        json.loads("{")

    with pytest.raises(json.JSONDecodeError) as caught:
        fail()

    frames = event_of(caught.value).raised[0].frames
    assert [frame.in_app for frame in frames[:2]] == [True, True]
    assert not any(frame.in_app for frame in frames[2:])


def test_an_installed_package_is_in_app_when_it_is_said_to_be() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")

    assert all(frame.in_app for frame in event_of(caught.value, in_app=("json",)).raised[0].frames[1:])


def test_the_stack_of_an_error_without_an_exception_is_told() -> None:
    sketch_links = link_of_frame(sys._getframe())

    assert sketch_links[0].places[-1][0] is sys._getframe().f_code
    assert len(sketch_links[0].places) <= FRAMES_LIMIT


def test_what_the_system_said_becomes_facts() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Path("/nowhere/at/all").read_text()

    assert facts_of(caught.value, {"peer": "x:1"}) == {
        "errno": 2,
        "path": "/nowhere/at/all",
        "peer": "x:1",
    }


def test_what_the_system_said_is_found_behind_the_programs_own_error() -> None:
    def fail() -> None:
        try:
            Path("/nowhere/at/all").unlink()
        except OSError as error:
            raise ShopError("cannot") from error

    with pytest.raises(ShopError) as caught:
        fail()

    assert facts_of(caught.value, None)["path"] == "/nowhere/at/all"


def test_values_become_json_whatever_they_are() -> None:
    class Odd:
        def __str__(self) -> str:
            raise ValueError("no")

    value = {
        1: {"a": [1, (2, {3})]},
        "odd": Odd(),
        "inf": float("inf"),
        "huge": 10**10_000,
        "bytes": b"x",
        "deep": [[[[[[[[[[1]]]]]]]]]],
        "many": list(range(1000)),
        "long": "x" * 100_000,
    }

    copy = plain(value)

    text = json.dumps(copy, allow_nan=False)
    assert len(text) < 10_000
    assert copy["1"] == {"a": [1, [2, [3]]]}
    assert len(copy["many"]) == 50


def test_a_context_is_bounded_as_a_whole() -> None:
    wide = {f"key {number}": ["x" * 5000] * 100 for number in range(100)}

    assert len(json.dumps(plain({"a": wide, "b": [wide] * 50}))) < 100_000


def test_a_value_that_changes_while_it_is_taken_breaks_nothing() -> None:
    class Changing(dict[str, int]):
        def items(self) -> Any:
            yield "a", 1
            raise RuntimeError("dictionary changed size during iteration")

    assert plain(Changing()) == {"a": 1}


def test_texts_are_bounded() -> None:
    assert len(text_of("x" * 1_000_000)) == 16_384


def test_a_sketch_keeps_nothing_alive() -> None:
    class Big:
        """Stands for what a request holds."""

    def fail() -> None:
        held = Big()
        alive.append(weakref.ref(held))
        try:
            raise KeyError(held)
        except KeyError as error:
            raise ShopError(held) from error

    alive: list[weakref.ref[Any]] = []
    links: list[Any] = []
    try:
        fail()
    except ShopError as error:
        alive.append(weakref.ref(error))
        links.append(links_of(error))
        traceback.clear_frames(error.__traceback__)
    gc.collect()

    assert links[0]
    assert [one() for one in alive] == [None, None]


def test_an_error_told_before_it_has_come_to_its_caller_names_the_caller() -> None:
    told: list[Event] = []

    def wrapper() -> None:
        try:
            raise ShopError("refused")
        except ShopError as error:
            told.append(event_of(error, in_flight=True))
            raise

    def caller() -> None:
        try:
            wrapper()
        except ShopError:
            return

    caller()

    functions = [frame.function.rpartition(".")[2] for frame in told[0].raised[0].frames]
    assert functions[-2:] == ["caller", "wrapper"]


def test_an_error_that_is_told_when_it_is_made_has_the_stack_of_its_maker() -> None:
    event = event_of(ShopError("no table"), in_flight=True)

    functions = [frame.function for frame in event.raised[0].frames]
    assert "test_an_error_that_is_told_when_it_is_made_has_the_stack_of_its_maker" in functions
    assert len(functions) <= FRAMES_LIMIT
