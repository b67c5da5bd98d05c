"""What is watched, what is not, and how it is undone."""

import array
import copy
import functools
import gc
import math
import pickle
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from soulfra_monitor import cells, watching
from soulfra_monitor.events import Calls, Kind
from soulfra_monitor.watching import Options, WatchError, unwatch, watch, watched_as

See = Callable[..., Any]
Counted = Callable[[], dict[str, Calls]]


class Service:
    kept = 1

    def work(self) -> int:
        return 1

    def other(self) -> int:
        return self._inner()

    def _inner(self) -> int:
        return 2

    def __len__(self) -> int:
        return 3

    def __call__(self) -> int:
        return 4

    @classmethod
    def of_class(cls) -> int:
        return 5

    @staticmethod
    def static() -> int:
        return 6

    base = functools.partialmethod(_inner)

    @functools.lru_cache  # noqa: B019 - it is what is tried
    def cached(self) -> int:
        return 7

    @property
    def read(self) -> int:
        return 8


class Heir(Service):
    def work(self) -> int:
        return super().work() + 1


def _use(service: Any) -> None:
    for call in (service.work, service.other, service, service.of_class, service.static, service.base):
        call()
    assert (len(service), service.cached(), service.read) == (3, 7, 8)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (Options(), {"work", "other", "__call__", "of_class", "static", "base", "cached"}),
        (Options(exclude=frozenset({"work", "cached", "__call__"})), {"other", "of_class", "static", "base"}),
        (
            Options(include=frozenset({"work", "_inner", "__len__", "__init__"})),
            {"work", "_inner", "__len__"},
        ),
        (
            Options(private=True),
            {"work", "other", "__call__", "of_class", "static", "base", "cached", "_inner", "__len__"},
        ),
    ],
)
def test_options_say_which_methods_count(
    see: See, counted: Counted, options: Options, names: set[str]
) -> None:
    _use(see(Service(), options))

    assert set(counted()) == names


def test_inherited_methods_count_once(see: See, counted: Counted) -> None:
    heir = see(Heir())

    assert heir.work() == 2
    assert heir.other() == 2
    assert {name: calls.count for name, calls in counted().items()} == {"work": 1, "other": 1}


def test_only_the_object_is_watched_and_not_its_class(see: See, counted: Counted) -> None:
    before = dict(vars(Service))
    see(Service())

    Service().work()

    assert counted() == {}
    assert dict(vars(Service)) == before


def test_watching_again_as_the_same_service_changes_the_options(see: See, counted: Counted) -> None:
    service = see(Service())
    kind = type(service)

    assert type(see(service)) is kind
    see(service, Options(include=frozenset({"work"})))
    _use(service)

    assert set(counted()) == {"work"}
    assert type(service).__mro__[1:] == Service.__mro__


def test_watching_as_another_service_is_refused(see: See, told: Any) -> None:
    service = see(Service())

    with pytest.raises(WatchError, match=r"watched as 'svc'.*before it is watched as 'other'"):
        watch(service, "other", told)
    for watched in (see([1]), see(math), see(len), see(test_inherited_methods_count_once)):
        with pytest.raises(WatchError):
            watch(watched, "other", told)
        assert see(watched) is watched


def test_it_can_be_undone(see: See, counted: Counted) -> None:
    service = Service()
    bound = see(service).work

    assert watched_as(service) == "svc"
    assert unwatch(service) is service
    assert type(service) is Service
    assert watched_as(service) is None
    assert unwatch(service) is service
    _use(service)
    assert counted() == {}
    assert bound() == 1


@pytest.mark.parametrize("what", [[1], math, Service, len, _use, Service().work, functools.partial(int)])
def test_what_stands_for_others_can_be_undone(see: See, what: Any) -> None:
    watched = see(what)

    assert watched is not what
    assert watched_as(watched) == "svc"
    assert unwatch(watched) == what
    assert watched_as(what) is None


def test_objects_of_a_class_share_its_twin(see: See) -> None:
    first, second = see(Service()), see(Service())

    assert type(first) is type(second)
    assert type(see(Heir())) is not type(first)


def test_twins_of_classes_that_come_and_go_are_not_kept_for_ever(see: See) -> None:
    references = []
    for _ in range(watching.TWINS_LIMIT + 50):

        class Local:
            def work(self) -> int:
                return 1

        references.append(weakref.ref(type(see(Local()))))
    gc.collect()

    assert len(watching._twins) == watching.TWINS_LIMIT
    assert sum(reference() is not None for reference in references) <= watching.TWINS_LIMIT + 1


def test_calls_under_way_while_it_is_undone_are_counted(see: See, counted: Counted) -> None:
    class Slow:
        def wait(self) -> None:
            inside.set()
            gate.wait(10)

    inside, gate = threading.Event(), threading.Event()
    slow = see(Slow())
    thread = threading.Thread(target=slow.wait)
    thread.start()
    inside.wait(10)

    unwatch(slow)
    gate.set()
    thread.join()

    assert counted()["wait"].count == 1


def test_builtins_go_through_a_proxy(see: See, counted: Counted) -> None:
    plain = [3, 1]
    watched = see(plain)

    watched.append(2)
    watched += [4]
    assert watched_as(watched) == "svc"
    assert plain == watched == [3, 1, 2, 4]
    assert [3, 1, 2, 4] == watched  # noqa: SIM300 - it is the other way round that is tried
    assert isinstance(watched, list)
    assert (len(watched), watched[0], 3 in watched, sorted(watched)) == (4, 3, True, [1, 2, 3, 4])
    assert repr(watched) == str(watched) == "[3, 1, 2, 4]"
    assert [*watched] == [3, 1, 2, 4]
    assert watched + [1] == [3, 1, 2, 4, 1]  # noqa: RUF005
    watched[0] = 9
    del watched[1]
    assert plain == [9, 2, 4]
    assert copy.copy(watched) == copy.deepcopy(watched) == pickle.loads(pickle.dumps(watched)) == plain
    assert type(copy.copy(watched)) is list
    with pytest.raises(TypeError, match="unhashable"):
        hash(watched)
    with pytest.raises(ValueError, match="not in list"):
        watched.remove(77)
    assert (counted()["append"].count, watched.__doc__) == (1, list.__doc__)


def test_errors_through_a_proxy_are_told(see: See, told: Any) -> None:
    with pytest.raises(ValueError, match="not in list") as caught:
        see([1]).remove(2)

    assert told.errors == [(Kind.METHOD, caught.value)]


def test_c_types_and_numbers_go_through_a_proxy(see: See) -> None:
    numbers, five, lock = see(array.array("i", [1, 2])), see(5), see(threading.Lock())

    assert numbers.tolist() == [1, 2]
    assert (five + 1, 1 + five, five < 6, hash(five), int(five), f"{five:03d}") == (
        6,
        6,
        True,
        hash(5),
        5,
        "005",
    )
    with lock:
        assert lock.locked()
    assert not lock.locked()


def test_modules_go_through_a_proxy(see: See, counted: Counted) -> None:
    module = types.ModuleType("example")
    exec("value = 1\ndef double(number): return 2 * number\nclass Made: pass", module.__dict__)
    watched = see(module)

    assert watched.double(2) == 4
    assert watched.double is watched.double
    watched.value = 5
    assert module.value == 5
    assert isinstance(watched.Made(), module.Made)
    assert isinstance(watched, types.ModuleType)
    assert (watched.__name__, vars(watched) is vars(module), dir(watched) == dir(module)) == (
        "example",
        True,
        True,
    )
    module.double = lambda number: number  # type: ignore[attr-defined]
    assert watched.double(2) == 2
    with pytest.raises(AttributeError):
        watched.nothing  # noqa: B018
    assert counted()["double"].count == 2


def test_classes_go_through_a_proxy(see: See, counted: Counted) -> None:
    watched = see(Service)

    class More(watched):  # type: ignore[misc,valid-type]
        pass

    assert isinstance(watched(), Service)
    assert isinstance(Service(), watched)
    assert issubclass(Heir, watched)
    assert issubclass(More, Service)
    assert (watched.static(), watched.of_class(), watched.kept) == (6, 5, 1)
    assert watched == Service
    assert set(counted()) == {"static", "of_class"}


def test_functions_get_a_wrapper(see: See, counted: Counted) -> None:
    def double(number: int = 2) -> int:
        return 2 * number

    watched, length, bound = see(double), see(len), see(Service().work)

    assert watched() == 4
    assert watched.__wrapped__ is double
    assert length([1]) == 1
    assert bound() == 1
    assert set(counted()) == {"double", "len", "work"}


def test_a_class_that_cannot_be_extended_goes_through_a_proxy(see: See, counted: Counted) -> None:
    class Never(type):
        def mro(cls) -> list[type]:
            if "__slots__" in cls.__dict__:
                raise TypeError("never")
            return super().mro()

    class Final(metaclass=Never):
        def work(self) -> int:
            return 1

        def __iter__(self) -> Iterator[int]:
            return iter([1])

    final = Final()
    watched = see(final)

    assert watched is not final
    assert type(final) is Final
    assert (watched.work(), list(watched), watched.__class__) == (1, [1], Final)
    assert counted()["work"].count == 1


def test_methods_that_are_watched_already_are_left_alone(see: See, told: Any, counted: Counted) -> None:
    class Mixed:
        work = watch(Service.work, "other", told)

        def own(self) -> int:
            return 1

    mixed = see(Mixed())
    mixed.own()
    mixed.work()

    assert {name: calls.service for name, calls in counted().items()} == {"own": "svc", "work": "other"}


def test_nothing_is_left_of_an_object_that_is_gone(see: See) -> None:
    service = see(Service())
    service.work()
    reference = weakref.ref(service)

    del service

    assert reference() is None
    assert cells.in_flight() == ()


class _Answers:
    def find(self, error: Exception) -> None:
        raise error

    async def find_later(self, error: Exception) -> None:
        raise error

    def several(self, error: Exception) -> Iterator[int]:
        yield 1
        raise error


async def _ask(service: Any, error: Exception) -> None:
    for find in (service.find, lambda error: list(service.several(error))):
        with pytest.raises(type(error)):
            find(error)
    with pytest.raises(type(error)):
        await service.find_later(error)


@pytest.mark.parametrize("expected", [LookupError, [LookupError], frozenset({KeyError, IndexError})])
async def test_expected_exceptions_are_counted_as_calls_and_neither_told_nor_failures(
    expected: Any, see: See, told: Any, counted: Counted
) -> None:
    service = see(_Answers(), Options(expected=expected))

    await _ask(service, KeyError("no such user"))
    await _ask(service, OSError("the disk"))

    assert [str(error) for _, error in told.errors] == ["the disk"] * 3
    numbers = {name: (calls.count, calls.failures) for name, calls in counted().items()}
    assert {numbers[name] for name in ("find", "find_later", "several")} == {(2, 1)}


@pytest.mark.parametrize("expected", [int, [ValueError, "KeyError"], [ValueError("an instance")], 3])
def test_what_is_expected_must_be_classes_of_exceptions(expected: Any) -> None:
    with pytest.raises(TypeError):
        Options(expected=expected)
