"""Every kind of method counts once, tells its errors once, and hands everything through."""

import asyncio
import contextvars
import inspect
import threading
import types
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulfra_monitor import cells, wrappers
from soulfra_monitor.cells import Method
from soulfra_monitor.events import Calls, Kind
from soulfra_monitor.watching import Options

See = Callable[..., Any]
Counted = Callable[[], dict[str, Calls]]
Prepare = Callable[[Any], Any]


class Service:
    """One method of each kind, and of each way to end."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def plain(self) -> int:
        return 1

    def fail(self) -> None:
        raise ValueError("no")

    def end(self, error: BaseException) -> None:
        raise error

    async def later(self) -> int:
        await asyncio.sleep(0)
        return 1

    async def later_fail(self) -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    async def forever(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise

    def numbers(self) -> Generator[Any, Any, str]:
        try:
            while True:
                got: Any
                try:
                    got = yield len(self.seen)
                except KeyError as error:
                    got = error
                if got == "stop":
                    return "returned"
                if got == "fail":
                    raise ValueError("no")
                self.seen.append(got)
        finally:
            self.seen.append("closed")

    async def stream(self) -> AsyncGenerator[Any, Any]:
        try:
            while True:
                got: Any
                try:
                    got = yield len(self.seen)
                except KeyError as error:
                    got = error
                await asyncio.sleep(0)
                if got == "stop":
                    return
                if got == "fail":
                    raise ValueError("no")
                self.seen.append(got)
        finally:
            self.seen.append("closed")

    def stubborn(self) -> Iterator[int]:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    def gives_coroutine(self) -> Any:
        return self.later()

    def gives_generator(self) -> Any:
        return (number for number in range(3))

    def gives_stream(self) -> Any:
        return self.stream()

    def gives_future(self, pool: ThreadPoolExecutor, work: Callable[[], int]) -> Future[int]:
        return pool.submit(work)

    def gives_task(self, awaitable: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(awaitable)


def test_a_call_counts_once(see: See, counted: Counted) -> None:
    service = see(Service())

    for _ in range(3):
        service.plain()

    calls = counted()["plain"]
    assert (calls.service, calls.caller, calls.count, calls.failures) == ("svc", "", 3, 0)
    assert sum(calls.buckets) == 3
    assert calls.buckets[0] == 3
    assert 0 < calls.seconds < 1
    assert counted() == {}


@pytest.mark.parametrize("name", ["fail", "later_fail"])
def test_an_error_counts_and_is_told_as_it_is(see: See, counted: Counted, told: Any, name: str) -> None:
    service = see(Service())

    with pytest.raises(ValueError, match="no") as caught:
        asyncio.run(getattr(service, name)())

    assert told.errors == [(Kind.METHOD, caught.value)]
    assert told.facts[0]["method"] == name
    assert (counted()[name].count, told.broken) == (1, [])


def test_failures_are_among_the_calls(see: See, counted: Counted) -> None:
    service = see(Service())
    service.plain()

    with pytest.raises(ValueError, match="no"):
        service.fail()

    counts = counted()
    assert (counts["fail"].count, counts["fail"].failures, counts["plain"].failures) == (1, 1, 0)


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(1),
        GeneratorExit(),
        asyncio.CancelledError(),
        StopIteration(),
        StopAsyncIteration(),
    ],
)
def test_what_only_ends_something_is_no_error(
    see: See, counted: Counted, told: Any, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught:
        see(Service()).end(error)

    assert caught.value is error
    assert told.errors == []
    assert (counted()["end"].count, counted()) == (1, {})


async def test_cancellation_goes_through(prepare: Prepare) -> None:
    service = Service()
    task = asyncio.ensure_future(prepare(service).forever())
    await asyncio.sleep(0)

    task.cancel("why")
    with pytest.raises(asyncio.CancelledError, match="why"):
        await task

    assert task.cancelled()
    assert service.seen == ["cancelled"]


async def test_a_cancelled_call_counts_and_is_no_failure(see: See, counted: Counted, told: Any) -> None:
    task = asyncio.ensure_future(see(Service()).forever())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert (counted()["forever"].count, told.errors) == (1, [])
    assert cells.flights == {}


async def test_timeouts_and_groups_work(prepare: Prepare) -> None:
    service = prepare(Service())

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await service.forever()

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(service.forever())
            group.create_task(service.later_fail())

    with pytest.raises(ExceptionGroup) as caught:
        await both()
    assert [type(error) for error in caught.value.exceptions] == [ValueError]
    assert list(await asyncio.gather(service.later(), service.later())) == [1, 1]


def test_generators_take_send_throw_and_close(prepare: Prepare) -> None:
    service = Service()
    numbers = prepare(service).numbers()
    error = KeyError("k")

    assert bool(inspect.isgenerator(numbers))
    assert next(numbers) == 0
    assert numbers.send("a") == 1
    assert numbers.throw(error) == 2
    assert service.seen == ["a", error]
    assert error.__context__ is None
    with pytest.raises(StopIteration) as stopped:
        numbers.send("stop")
    assert stopped.value.value == "returned"

    closing = prepare(service).numbers()
    next(closing)
    closing.close()
    assert service.seen[-1] == "closed"
    with pytest.raises(StopIteration):
        next(closing)


def test_generators_end_as_before(prepare: Prepare) -> None:
    service = Service()

    numbers = prepare(service).numbers()
    next(numbers)
    with pytest.raises(ValueError, match="no"):
        numbers.send("fail")
    numbers = prepare(service).numbers()
    next(numbers)
    with pytest.raises(OSError, match="out") as caught:
        numbers.throw(OSError("out"))
    assert caught.value.__context__ is None
    numbers = prepare(service).numbers()
    with pytest.raises(TypeError, match="can't send non-None value to a just-started generator"):
        numbers.send(1)
    stubborn = prepare(service).stubborn()
    next(stubborn)
    with pytest.raises(RuntimeError, match="generator ignored GeneratorExit"):
        stubborn.close()

    def delegate() -> Iterator[Any]:
        result = yield from prepare(Service()).numbers()
        yield result

    delegating = delegate()
    next(delegating)
    assert delegating.send("stop") == "returned"  # type: ignore[attr-defined]


async def test_async_generators_take_asend_athrow_and_aclose(prepare: Prepare) -> None:
    service = Service()
    stream = prepare(service).stream()
    error = KeyError("k")

    assert bool(inspect.isasyncgen(stream))
    assert await anext(stream) == 0
    assert await stream.asend("a") == 1
    assert await stream.athrow(error) == 2
    assert service.seen == ["a", error]
    with pytest.raises(StopAsyncIteration):
        await stream.asend("stop")

    closing = prepare(service).stream()
    await anext(closing)
    await closing.aclose()
    assert service.seen[-1] == "closed"

    failing = prepare(service).stream()
    await anext(failing)
    with pytest.raises(ValueError, match="no"):
        await failing.asend("fail")
    assert [item async for item in failing] == []


async def test_the_context_is_as_it_was(prepare: Prepare) -> None:
    service = prepare(Service())
    before = dict(contextvars.copy_context())

    await service.later()
    stream = service.stream()
    await anext(stream)
    between = dict(contextvars.copy_context())
    await stream.aclose()
    with pytest.raises(ValueError, match="no"):
        await service.later_fail()

    assert before == between == dict(contextvars.copy_context())


async def test_a_coroutine_closed_from_another_context_ends(prepare: Prepare) -> None:
    coroutine = contextvars.copy_context().run(lambda: prepare(Service()).forever())
    contextvars.copy_context().run(coroutine.send, None)

    contextvars.copy_context().run(coroutine.close)

    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    assert cells.flights == {}


async def test_a_step_of_an_async_generator_can_be_cancelled(prepare: Prepare) -> None:
    class Slow:
        closed = False

        async def stream(self) -> AsyncIterator[int]:
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                Slow.closed = True

    stream = prepare(Slow()).stream()
    await anext(stream)
    step = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)

    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step

    assert Slow.closed
    assert cells.flights == {}


def test_a_generator_counts_when_it_ends(see: See, counted: Counted, told: Any) -> None:
    service = see(Service())
    ended, failed, closed, never = (service.numbers() for _ in range(4))
    assert counted() == {}

    next(ended)
    assert counted() == {}
    with pytest.raises(StopIteration):
        ended.send("stop")
    next(failed)
    with pytest.raises(ValueError, match="no"):
        failed.send("fail")
    next(closed)
    closed.close()
    never.close()

    calls = counted()["numbers"]
    assert (calls.count, calls.failures, len(told.errors)) == (3, 1, 1)


async def test_an_async_generator_counts_when_it_ends(see: See, counted: Counted, told: Any) -> None:
    service = see(Service())
    ended, failed, closed = (service.stream() for _ in range(3))

    await anext(ended)
    with pytest.raises(StopAsyncIteration):
        await ended.asend("stop")
    await anext(failed)
    with pytest.raises(ValueError, match="no"):
        await failed.asend("fail")
    await anext(closed)
    await closed.aclose()

    calls = counted()["stream"]
    assert (calls.count, calls.failures, len(told.errors)) == (3, 1, 1)


def test_the_time_of_a_generator_is_its_own(see: See, counted: Counted) -> None:
    numbers = see(Service()).numbers()
    next(numbers)
    threading.Event().wait(0.05)  # the consumer's time
    numbers.close()

    assert counted()["numbers"].seconds < 0.04


async def test_results_that_come_later_count_when_they_are_done(see: See, counted: Counted) -> None:
    service = see(
        Service(), Options(include=frozenset({"gives_coroutine", "gives_generator", "gives_stream"}))
    )
    coroutine, generator, stream = (
        service.gives_coroutine(),
        service.gives_generator(),
        service.gives_stream(),
    )

    assert counted() == {}
    assert inspect.iscoroutine(coroutine)
    assert (coroutine.__name__, coroutine.__qualname__) == ("later", "Service.later")
    assert inspect.isgenerator(generator)
    assert inspect.isasyncgen(stream)
    assert await coroutine == 1
    assert list(generator) == [0, 1, 2]
    await stream.aclose()
    counts = {name: calls.count for name, calls in counted().items()}
    assert counts == {"gives_coroutine": 1, "gives_generator": 1}


def test_a_future_counts_when_it_is_done(see: See, counted: Counted, told: Any) -> None:
    service = see(Service())
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = service.gives_future(pool, lambda: gate.wait(10) and 1 / 0)
        assert counted() == {}
        gate.set()

    assert isinstance(future.exception(), ZeroDivisionError)
    calls = counted()["gives_future"]
    assert (calls.count, calls.failures) == (1, 1)
    assert told.errors == [(Kind.METHOD, future.exception())]


async def test_a_task_is_the_same_task_and_its_error_stays_unread(
    see: See, counted: Counted, told: Any
) -> None:
    service = see(Service())
    inner = asyncio.ensure_future(Service().later_fail())

    task = service.gives_task(inner)

    assert task is inner
    await asyncio.wait([task])
    assert counted()["gives_task"].failures == 1
    assert task._log_traceback
    assert isinstance(task.exception(), ValueError)


def test_a_coroutine_never_awaited_is_warned_of_by_its_name(see: See) -> None:
    service = see(Service())

    with pytest.warns(RuntimeWarning, match=r"coroutine 'Service.later' was never awaited"):
        service.later()


def test_generator_based_coroutines_are_left_alone(see: See) -> None:
    class Old:
        @types.coroutine
        def old(self) -> Any:
            yield
            return 1

    old = see(Old())

    async def use() -> int:
        return await old.old()  # type: ignore[no-any-return]

    assert asyncio.run(use()) == 1


def test_slow_calls_are_told(see: See, told: Any, counted: Counted) -> None:
    gate = threading.Event()

    class Slow:
        def wait(self) -> None:
            gate.wait(0.02)

        def quick(self) -> None: ...

    slow = see(Slow(), Options(slow=0.01))
    slow.wait()
    slow.quick()

    (note,) = told.notes
    assert note[0] is Kind.SLOW
    assert note[1].startswith("wait took 0.02")
    assert told.facts[0]["limit"] == 0.01
    assert told.facts[0]["seconds"] >= 0.02
    assert counted()["wait"].failures == 0


@pytest.mark.parametrize("name", ["answer", "answer_later"])
def test_what_means_failure_is_told(see: See, told: Any, counted: Counted, name: str) -> None:
    class Answers:
        def answer(self, status: int) -> dict[str, int]:
            return {"status": status}

        async def answer_later(self, status: int) -> dict[str, int]:
            return {"status": status}

    def failed(result: dict[str, int]) -> bool | str:
        return result["status"] >= 500 and f"status {result['status']}"

    answers = see(Answers(), Options(failed=failed))
    for status in (200, 503):
        result = getattr(answers, name)(status)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        assert result == {"status": status}

    assert told.notes == [(Kind.RETURNED, f"{name} returned what means failure: status 503")]
    assert (counted()[name].failures, told.errors) == (1, [])


def test_a_judge_that_fails_hurts_nobody(see: See, told: Any) -> None:
    service = see(Service(), Options(failed=lambda result: result["status"]))

    assert service.plain() == 1
    assert [place for place, _ in told.broken] == ["wrappers.failed"]


def test_a_with_block_is_one_call(see: See, counted: Counted) -> None:
    class Context:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...

    async def use(context: Any) -> None:
        async with context:
            await asyncio.sleep(0.02)

    context = see(Context())
    with context, context:
        threading.Event().wait(0.02)
    asyncio.run(use(context))

    counts = counted()
    assert {name: calls.count for name, calls in counts.items()} == {"with": 2, "async with": 1}
    assert counts["with"].seconds >= 0.04
    assert counts["async with"].seconds >= 0.019


def test_objects_entered_and_never_left_do_not_pile_up(see: See) -> None:
    class Context:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    kept = [see(Context()) for _ in range(3 * cells.BODIES_LIMIT)]
    for context in kept:
        context.__enter__()

    assert len(cells.arrive().bodies) <= cells.BODIES_LIMIT


class _Nobody:
    """A reporter for calls that have nothing to tell."""

    def raised(self, *_: Any, **__: Any) -> None:
        raise AssertionError

    noted = broke = raised


_NAMES = ("a", "b", "state", "cell", "id", "type", "self_", "args", "kwargs", "task", "method", "x1", "ß")


@st.composite
def _functions(draw: st.DrawFn) -> tuple[Any, str]:
    names = draw(st.lists(st.sampled_from(_NAMES), unique=True, max_size=8))
    kinds = sorted(draw(st.lists(st.integers(0, 4), min_size=len(names), max_size=len(names))))
    parts: list[str] = []
    star = False
    defaulted = False
    for index, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        if kind in (2, 4) and kinds.count(kind) > 1 and kinds.index(kind) != index:
            continue
        if kind == 3 and not star and 2 not in kinds:
            parts.append("*")
        star = star or kind in (2, 3)
        default = kind in (0, 1, 3) and (draw(st.booleans()) or (defaulted and kind < 2))
        defaulted = defaulted or (default and kind < 2)
        prefix = {2: "*", 4: "**"}.get(kind, "")
        parts.append(f"{prefix}{name}" + (f"={index}" if default else ""))
        if kind == 0 and (index + 1 == len(kinds) or kinds[index + 1] != 0):
            parts.append("/")
    source = f"def probe({', '.join(parts)}):\n    return dict(locals())"
    space: dict[str, Any] = {}
    exec(source, space)
    return space["probe"], source


@given(
    made=_functions(),
    args=st.lists(st.integers(), max_size=4),
    kwargs=st.dictionaries(st.sampled_from(_NAMES), st.integers(), max_size=3),
)
def test_any_signature_takes_and_refuses_the_same(
    made: tuple[Any, str], args: list[int], kwargs: dict[str, int]
) -> None:
    function, _ = made
    wrapper = wrappers.wrap(function, Method("svc", "probe", _Nobody()))
    assert wrapper is not None

    def outcome(call: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except TypeError:
            return TypeError

    assert inspect.signature(wrapper) == inspect.signature(function)
    assert inspect.signature(wrapper, follow_wrapped=False) == inspect.signature(function)
    assert outcome(wrapper) == outcome(function)
