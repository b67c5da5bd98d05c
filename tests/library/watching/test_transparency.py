"""Watched objects behave as plain ones: each test runs on a plain object and on watched ones."""

import abc
import asyncio
import copy
import copyreg
import dataclasses
import enum
import functools
import gc
import inspect
import logging
import pickle
import sys
import threading
import typing
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from typing import Any, ClassVar, NamedTuple, Protocol, Self
from unittest.mock import AsyncMock, MagicMock, Mock

import pydantic
import pytest

Prepare = Callable[[Any], Any]


class Analyzer:
    """Analyzes."""

    made = 0
    registry: ClassVar[list[type]] = []

    def __init__(self, rate: int = 2) -> None:
        self.rate = rate
        self.parts = [1, 2]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Analyzer.registry.append(cls)

    def analyze(
        self, text: str, /, depth: int = 1, *rest: int, loud: bool = False, **more: int
    ) -> tuple[Any, ...]:
        """Analyze a text."""
        return (text, depth, rest, loud, more, self._weight(depth))

    def _weight(self, depth: int) -> int:
        return depth * self.rate

    def chain(self) -> Self:
        return self

    def outer(self) -> int:
        return self.inner() + 1

    def inner(self) -> int:
        return 1

    @property
    def double(self) -> int:
        return self.rate * 2

    @double.setter
    def double(self, value: int) -> None:
        self.rate = value // 2

    @classmethod
    def make(cls, rate: int) -> Self:
        cls.made += 1
        return cls(rate)

    @classmethod
    def which(cls) -> type:
        return cls

    @staticmethod
    def static(value: int) -> int:
        return value + 1

    def count_on_type(self) -> None:
        type(self).made += 1

    def another(self) -> "Analyzer":
        return type(self)(9)

    def fail(self) -> None:
        raise ValueError("no")

    async def later(self, value: int) -> int:
        await asyncio.sleep(0)
        return value + self.rate

    def numbers(self) -> Iterator[int]:
        yield from range(self.rate)

    async def stream(self) -> AsyncIterator[int]:
        for number in range(self.rate):
            yield number


@pytest.fixture
def analyzer(prepare: Prepare) -> Analyzer:
    Analyzer.made = 0
    Analyzer.registry.clear()
    return typing.cast("Analyzer", prepare(Analyzer()))


def test_it_is_the_same_object(prepare: Prepare) -> None:
    plain = Analyzer()
    earlier = plain

    assert prepare(plain) is plain is earlier


def test_its_class_is_the_original_where_a_program_looks(analyzer: Analyzer) -> None:
    kind = type(analyzer)

    assert analyzer.__class__ is Analyzer
    assert isinstance(analyzer, Analyzer)
    assert (kind.__name__, kind.__qualname__, kind.__module__, kind.__doc__) == (
        *("Analyzer", "Analyzer", __name__, "Analyzes."),
    )
    assert repr(kind) == repr(Analyzer)
    assert kind == Analyzer
    assert Analyzer == kind
    assert hash(kind) == hash(Analyzer)
    assert {Analyzer: 1}[kind] == 1
    assert isinstance(Analyzer(), kind)
    assert issubclass(Analyzer, kind)
    assert issubclass(kind, Analyzer)
    assert kind.__init__ is Analyzer.__init__
    assert not isinstance(3, kind)


def test_what_its_class_makes_is_plain(analyzer: Analyzer) -> None:
    assert type(type(analyzer)(3)) is Analyzer
    assert type(analyzer.another()) is Analyzer
    assert type(analyzer.make(3)) is Analyzer
    assert type(analyzer.__class__(3)) is Analyzer


def test_state_of_the_class_is_written_to_the_class(analyzer: Analyzer) -> None:
    analyzer.make(1)
    analyzer.count_on_type()
    type(analyzer).made += 1

    assert Analyzer.made == 3

    type(analyzer).extra = 1  # type: ignore[attr-defined]
    assert Analyzer.extra == 1  # type: ignore[attr-defined]
    del type(analyzer).extra  # type: ignore[attr-defined]
    assert not hasattr(Analyzer, "extra")


def test_a_method_replaced_through_its_class_is_the_one_that_runs(prepare: Prepare) -> None:
    class Local:
        def value(self) -> int:
            return 1

    local = prepare(Local())

    type(local).value = lambda self: 2

    assert local.value() == Local().value() == 2


def test_subclassing_its_class_subclasses_the_original(analyzer: Analyzer) -> None:
    class More(type(analyzer)):  # type: ignore[misc]
        pass

    assert More.__mro__ == (More, Analyzer, object)
    assert Analyzer.registry == [More]
    assert type(More()) is More


def test_no_code_of_its_author_runs(analyzer: Analyzer) -> None:
    assert analyzer.rate == 2
    assert Analyzer.registry == []


def test_attributes_and_names_are_as_before(analyzer: Analyzer) -> None:
    assert vars(analyzer) == {"rate": 2, "parts": [1, 2]}
    assert dir(analyzer) == dir(Analyzer())
    assert analyzer.__doc__ == "Analyzes."
    assert not hasattr(analyzer, "nothing")
    with pytest.raises(AttributeError, match=r"'Analyzer' object has no attribute 'nothing'"):
        analyzer.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_calls_give_what_they_gave(analyzer: Analyzer) -> None:
    assert analyzer.analyze("a") == ("a", 1, (), False, {}, 2)
    assert analyzer.analyze("a", 2, 3, 4, loud=True, x=5) == ("a", 2, (3, 4), True, {"x": 5}, 4)
    assert analyzer.analyze("a", depth=3)[1] == 3
    assert analyzer.chain() is analyzer
    assert analyzer.outer() == 2
    assert analyzer.static(1) == type(analyzer).static(1) == 2
    assert analyzer.which() is type(analyzer).which() is Analyzer
    assert Analyzer.analyze(analyzer, "a")[0] == "a"
    assert type(analyzer).analyze(analyzer, "a")[0] == "a"


@pytest.mark.parametrize("args", [(), ("a", 1, 2, 3), ("a",)])
@pytest.mark.parametrize("kwargs", [{}, {"text": 1}, {"depth": 2}, {"loud": 1}])
def test_wrong_arguments_are_refused_in_the_same_words(
    analyzer: Analyzer, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    def outcome(obj: Any) -> Any:
        try:
            return obj.analyze(*args, **kwargs)
        except TypeError as error:
            return str(error)

    assert outcome(analyzer) == outcome(Analyzer())


def test_properties_work(analyzer: Analyzer) -> None:
    analyzer.double = 10

    assert (analyzer.rate, analyzer.double) == (5, 10)
    assert isinstance(inspect.getattr_static(analyzer, "double"), property)


@pytest.mark.parametrize("name", ["analyze", "later", "numbers", "stream", "make", "static", "fail", "outer"])
def test_methods_look_as_before(analyzer: Analyzer, name: str) -> None:
    ours, plain = getattr(analyzer, name), getattr(Analyzer(), name)

    for attribute in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__"):
        assert getattr(ours, attribute) == getattr(plain, attribute)
    assert inspect.signature(ours) == inspect.signature(plain)
    assert typing.get_type_hints(ours) == typing.get_type_hints(plain)
    for tell in (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        inspect.ismethod,
        inspect.isfunction,
        asyncio.iscoroutinefunction if sys.version_info < (3, 14) else inspect.iscoroutinefunction,
    ):
        assert tell(ours) == tell(plain)
    assert inspect.getsource(ours) == inspect.getsource(plain)
    code, plain_code = ours.__code__, plain.__code__
    assert code.co_argcount == plain_code.co_argcount
    assert code.co_varnames[: code.co_argcount] == plain_code.co_varnames[: plain_code.co_argcount]


@pytest.mark.parametrize("name", ["make", "static", "analyze", "double"])
def test_attributes_of_the_class_are_of_the_same_kind(analyzer: Analyzer, name: str) -> None:
    ours, plain = inspect.getattr_static(analyzer, name), inspect.getattr_static(Analyzer(), name)

    assert isinstance(ours, type(plain))


def test_bound_methods_know_their_object(analyzer: Analyzer) -> None:
    assert analyzer.analyze.__self__ is analyzer  # type: ignore[attr-defined]
    assert analyzer.analyze == analyzer.analyze
    assert analyzer.make.__self__ is Analyzer
    assert weakref.WeakMethod(analyzer.outer)() == analyzer.outer


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_are_of_the_original_class(analyzer: Analyzer, protocol: int) -> None:
    data = pickle.dumps(analyzer, protocol)

    assert data == pickle.dumps(Analyzer(), protocol)
    again = pickle.loads(data)
    assert type(again) is Analyzer
    assert vars(again) == vars(analyzer)
    assert pickle.loads(pickle.dumps(analyzer.outer, protocol))() == 2


def test_copies_are_of_the_original_class(analyzer: Analyzer) -> None:
    shallow, deep = copy.copy(analyzer), copy.deepcopy(analyzer)

    assert type(shallow) is type(deep) is Analyzer
    assert shallow.parts is analyzer.parts
    assert deep.parts == analyzer.parts
    assert deep.parts is not analyzer.parts


class Reduced:
    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.value,))


class Stateful(Analyzer):
    def __getstate__(self) -> dict[str, Any]:
        return {"rate": 7}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.rate = state["rate"] + 1


class Registered:
    value = 1


copyreg.pickle(Registered, lambda _: (Registered, ()))


def test_own_ways_to_pickle_are_used(prepare: Prepare) -> None:
    reduced = pickle.loads(pickle.dumps(prepare(Reduced(3))))
    stateful = copy.copy(prepare(Stateful()))
    registered = pickle.loads(pickle.dumps(prepare(Registered())))

    assert (type(reduced), reduced.value) == (Reduced, 3)
    assert (type(stateful), stateful.rate) == (Stateful, 8)
    assert type(registered) is Registered


class Copied:
    def __copy__(self) -> "Copied":
        return type(self)()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Copied":
        kind = type(self)
        made = kind.__new__(kind)
        made.__dict__.update(self.__dict__)
        return made


def test_own_ways_to_copy_give_plain_objects(prepare: Prepare) -> None:
    copied = prepare(Copied())
    copied.x = 1

    assert type(copy.copy(copied)) is type(copy.deepcopy(copied)) is Copied
    assert copy.deepcopy(copied).x == 1


def test_pydantic_models_work(prepare: Prepare) -> None:
    class Model(pydantic.BaseModel):
        rate: int = 1

        def double(self) -> int:
            return self.rate * 2

    model = prepare(Model())
    model.rate = 2

    assert model == Model(rate=2) == copy.deepcopy(model)
    assert type(copy.deepcopy(model)) is type(model.model_copy()) is Model
    assert (model.double(), model.model_dump(), repr(model)) == (4, {"rate": 2}, "Model(rate=2)")
    assert Model.model_validate(model) is model


class Slotted:
    __slots__ = ("__weakref__", "value")

    def __init__(self, value: int = 1) -> None:
        self.value = value

    def __init_subclass__(cls) -> None:
        raise AssertionError

    def get(self) -> int:
        return self.value


class MoreSlots(Analyzer):
    __slots__ = ("more",)


def test_slots_stay_slots(prepare: Prepare) -> None:
    slotted = prepare(Slotted())

    assert slotted.get() == 1
    assert not hasattr(slotted, "__dict__")
    with pytest.raises(AttributeError):
        slotted.other = 1
    again = pickle.loads(pickle.dumps(slotted))
    assert (type(again), again.value) == (Slotted, 1)
    assert copy.copy(slotted).value == 1
    more = prepare(MoreSlots())
    more.more = 1
    assert (more.more, more.outer()) == (1, 2)


class Base:
    def value(self) -> list[str]:
        return ["base"]


class Left(Base):
    def value(self) -> list[str]:
        return ["left", *super().value()]


class Right(Base):
    def value(self) -> list[str]:
        return ["right", *super(Right, self).value()]  # noqa: UP008 - the other way to say it


class Both(Left, Right):
    def value(self) -> list[str]:
        return ["both", *super().value()]


def test_inheritance_and_super_work(prepare: Prepare) -> None:
    both = prepare(Both())

    assert both.value() == ["both", "left", "right", "base"]
    assert Left.value(both) == ["left", "right", "base"]


class Valued:
    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and type(other) == type(self) and self.value == other.value  # noqa: E721

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value})"

    def __len__(self) -> int:
        return self.value

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.value))

    def __getitem__(self, key: int) -> int:
        return key

    def __contains__(self, key: int) -> bool:
        return key == 1

    def __call__(self, more: int) -> int:
        return self.value + more

    def __add__(self, other: int) -> "Valued":
        return type(self)(self.value + other)

    def __bool__(self) -> bool:
        return False

    def __lt__(self, other: "Valued") -> bool:
        return self.value < other.value


def test_operators_work(prepare: Prepare) -> None:
    valued = prepare(Valued(3))

    assert valued == Valued(3)
    assert Valued(3) == valued
    assert {Valued(3): 1}[valued] == 1
    assert repr(valued) == "Valued(3)"
    assert (len(valued), list(valued), valued[5], 1 in valued, valued(2)) == (3, [0, 1, 2], 5, True, 5)
    assert type(valued + 1) is Valued
    assert not valued
    assert sorted([valued, Valued(1)])[1] is valued
    assert inspect.signature(valued) == inspect.signature(Valued(3))
    assert callable(valued)


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self) -> int: ...


class Square(Shape):
    def area(self) -> int:
        return 4


class BigSquare(Square):
    pass


def test_abstract_classes_stay_in_order(prepare: Prepare) -> None:
    square = prepare(Square())

    assert isinstance(square, Shape)
    assert square.area() == 4
    assert isinstance(Square(), type(square))
    assert isinstance(BigSquare(), type(square))
    assert isinstance(BigSquare(), Square)
    assert not isinstance(3, type(square))
    Shape.register(int)
    assert isinstance(3, Shape)
    assert not isinstance(3, Square)


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2

    def total(self) -> int:
        return self.x + self.y


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Fixed:
    x: int

    def total(self) -> int:
        return self.x


def test_dataclasses_work(prepare: Prepare) -> None:
    point, fixed = prepare(Point(1)), prepare(Fixed(1))

    assert point == Point(1)
    assert Point(1) == point
    assert repr(point) == "Point(x=1, y=2)"
    assert dataclasses.asdict(point) == {"x": 1, "y": 2}
    assert dataclasses.replace(point, x=5) == Point(5)
    assert [each.name for each in dataclasses.fields(point)] == ["x", "y"]
    assert point.total() == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        fixed.x = 2
    assert fixed == Fixed(1)
    assert fixed < Fixed(2)
    assert hash(fixed) == hash(Fixed(1))
    assert pickle.loads(pickle.dumps(fixed)) == Fixed(1)


class Pair(NamedTuple):
    left: int
    right: int = 2

    def total(self) -> int:
        return self.left + self.right


def test_named_tuples_work(prepare: Prepare) -> None:
    pair = prepare(Pair(1))

    assert pair == (1, 2) == tuple(pair)
    assert pair.total() == 3
    assert pair._replace(left=3) == Pair(3)
    assert repr(pair) == "Pair(left=1, right=2)"
    assert isinstance(pair, tuple)
    left, right = pair
    assert (left, right) == (1, 2)
    assert pickle.loads(pickle.dumps(pair)) == Pair(1)


class Color(enum.Enum):
    RED = 1
    BLUE = 2

    def label(self) -> str:
        return self.name.lower()

    @classmethod
    def first(cls) -> "Color":
        return next(iter(cls))


class Right_(enum.Flag):  # noqa: N801
    READ = 1
    WRITE = 2

    def label(self) -> str:
        return str(self.value)


@pytest.fixture
def _members() -> Iterator[None]:
    yield
    from soulfra_monitor.watching import unwatch  # noqa: PLC0415

    for member in (*Color, *Right_):
        unwatch(member)


@pytest.mark.usefixtures("_members")
def test_members_of_enumerations_work(prepare: Prepare) -> None:
    red, read = prepare(Color.RED), prepare(Right_.READ)

    assert red is Color.RED is Color(1) is Color["RED"] is Color.first() is red.first()
    assert red in Color
    assert list(Color) == [red, Color.BLUE]
    assert (red.label(), red.value, repr(red)) == ("red", 1, "<Color.RED: 1>")
    assert pickle.loads(pickle.dumps(red)) is copy.deepcopy(red) is red
    assert red != Color.BLUE
    assert (read | Right_.WRITE).value == 3
    assert read.label() == "1"


@typing.runtime_checkable
class Labelled(Protocol):
    def label(self) -> str: ...


class Explicit(Labelled):
    def label(self) -> str:
        return "x"


T = typing.TypeVar("T")


class Box(typing.Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value

    def get(self) -> T:
        return self.value


class Structural:
    def label(self) -> str:
        return "y"


def test_protocols_and_generics_work(prepare: Prepare) -> None:
    explicit, structural, box = prepare(Explicit()), prepare(Structural()), prepare(Box[int](3))

    assert isinstance(explicit, Labelled)
    assert isinstance(structural, Labelled)
    assert not isinstance(box, Labelled)
    assert box.get() == 3
    assert box.__orig_class__ == Box[int]


class Meta(type):
    made: ClassVar[list[str]] = []

    def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> "Meta":
        cls.made.append(name)
        return super().__new__(cls, name, bases, space)

    def __init__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> None:
        super().__init__(name, bases, space)
        cls.made.append(name)

    def __call__(cls, *args: Any) -> Any:
        made = super().__call__(*args)
        made.by_meta = True
        return made

    def __setattr__(cls, name: str, value: object) -> None:
        super().__setattr__(name, ("set", value))

    @property
    def shown(cls) -> str:
        return cls.__name__


class Managed(metaclass=Meta):
    def value(self) -> int:
        return 1


def test_metaclasses_work_and_are_not_called(prepare: Prepare) -> None:
    Meta.made.clear()

    managed = prepare(Managed())

    assert Meta.made == []
    assert managed.value() == 1
    assert managed.by_meta
    assert type(managed).shown == "Managed"
    assert isinstance(type(managed), Meta)
    type(managed).extra = 1
    assert Managed.extra == ("set", 1)  # type: ignore[attr-defined]


class Named:
    def __set_name__(self, owner: type, name: str) -> None:
        owners.append(owner)

    def __get__(self, instance: object, owner: type | None = None) -> str:
        return "named"


owners: list[type] = []


class Describing:
    attribute = Named()

    @functools.cached_property
    def costly(self) -> list[int]:
        return [1]

    @functools.lru_cache  # noqa: B019 - it is what is tried
    def cached(self, value: int, *, other: int = 2) -> list[int]:
        """Cache."""
        return [value, other]

    @functools.lru_cache(maxsize=2)  # noqa: B019
    def cached_default(self, values: list[int] = []) -> int:  # noqa: B006
        return len(values)

    @functools.cache  # noqa: B019
    def forever(self) -> object:
        return object()

    def base(self, first: int, second: int) -> tuple[int, int]:
        return (first, second)

    part = functools.partialmethod(base, 1)
    keyed = functools.partialmethod(base, second=5)

    @functools.singledispatchmethod
    def kind(self, value: object) -> str:
        return "object"

    @kind.register
    def _(self, value: int) -> str:
        return "int"

    @typing.overload
    def over(self, value: int) -> int: ...
    @typing.overload
    def over(self, value: str) -> str: ...
    def over(self, value: int | str) -> int | str:
        return value

    def with_default_attribute(self) -> int:
        return self.with_default_attribute.answer  # type: ignore[attr-defined,no-any-return]

    with_default_attribute.answer = 42  # type: ignore[attr-defined]


def test_descriptors_work(prepare: Prepare) -> None:
    before = len(owners)
    plain = Describing()
    describing = prepare(plain)

    assert len(owners) == before
    assert describing.attribute == "named"
    assert describing.costly is describing.costly
    assert describing.part(2) == (1, 2)
    assert describing.keyed(1) == (1, 5)
    assert (describing.kind(1), describing.kind("a")) == ("int", "object")
    assert describing.over("a") == "a"
    assert describing.with_default_attribute() == 42
    assert inspect.signature(describing.part) == inspect.signature(Describing().part)


def test_caches_work(prepare: Prepare) -> None:
    Describing.cached.cache_clear()
    describing = prepare(Describing())

    assert describing.cached(1) is describing.cached(1)
    assert describing.cached(1) is not describing.cached(value=1)
    assert describing.cached.cache_info()[:2] == (2, 2)
    assert describing.cached.cache_parameters() == {"maxsize": 128, "typed": False}
    assert describing.cached_default() == 0
    assert describing.cached.__doc__ == "Cache."
    first = describing.forever()
    describing.forever.cache_clear()
    assert describing.forever() is not first
    with pytest.raises(TypeError, match="unhashable"):
        describing.cached([])


class Guarded:
    def __init__(self) -> None:
        object.__setattr__(self, "log", [])

    def __setattr__(self, name: str, value: object) -> None:
        self.log.append(("set", name))
        super().__setattr__(name, value)

    def __getattribute__(self, name: str) -> Any:
        if name not in ("log", "__class__"):
            object.__getattribute__(self, "log").append(("get", name))
        return super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("dynamic"):
            return lambda: name
        raise AttributeError(name)

    def method(self) -> int:
        return 1


def test_own_attribute_access_is_used_and_not_troubled(prepare: Prepare) -> None:
    guarded = prepare(Guarded())

    assert guarded.log == []
    guarded.x = 1
    assert guarded.method() == 1
    assert guarded.dynamic_thing() == "dynamic_thing"
    assert guarded.log == [("set", "x"), ("get", "method"), ("get", "dynamic_thing")]


def test_an_attribute_of_the_object_goes_before_the_method(analyzer: Analyzer) -> None:
    analyzer.inner = lambda: 5  # type: ignore[method-assign]

    assert analyzer.outer() == 6
    del analyzer.inner
    assert analyzer.outer() == 2


def test_its_class_can_be_changed(analyzer: Analyzer) -> None:
    analyzer.__class__ = Stateful

    assert type(analyzer) is Stateful


def test_weak_references_and_end_of_life_are_as_before(prepare: Prepare) -> None:
    ended = []

    class Mortal:
        def __del__(self) -> None:
            ended.append(self.method())

        def method(self) -> int:
            return 1

    mortal = prepare(Mortal())
    mortal.method()
    reference = weakref.ref(mortal)

    del mortal
    gc.collect()

    assert reference() is None
    assert ended == [1]


@pytest.mark.parametrize("make", [MagicMock, Mock, AsyncMock, lambda: MagicMock(spec=Analyzer)])
def test_mocks_work(prepare: Prepare, make: Callable[[], Any]) -> None:
    mock = prepare(make())
    mock.outer.return_value = 3
    if not isinstance(mock, AsyncMock):
        assert mock.outer() == 3
        mock.outer.assert_called_once_with()
    assert mock.outer.return_value == 3
    assert isinstance(mock, make if isinstance(make, type) else Analyzer)
    calls: Any = mock.mock_calls  # type: ignore[attr-defined]
    assert calls == ([] if isinstance(mock, AsyncMock) else [("outer", (), {})])


def test_magic_methods_of_mocks_work(prepare: Prepare) -> None:
    mock = prepare(MagicMock())
    mock.__len__.return_value = 4
    mock.return_value = "called"

    assert len(mock) == 4
    assert mock(1) == "called"
    mock.assert_called_once_with(1)
    assert mock == mock  # noqa: PLR0124


def test_exceptions_pass_unchanged(prepare: Prepare) -> None:
    error = ValueError("no")

    class Failing:
        def fail(self) -> None:
            raise error

    with pytest.raises(ValueError, match="no") as caught:
        prepare(Failing()).fail()

    assert caught.value is error
    assert error.__cause__ is error.__context__ is None
    frames = [entry.frame for entry in caught.traceback]
    own = [frame for frame in frames if frame.f_globals["__name__"] == "soulfra_monitor.wrappers"]
    assert len(own) <= 1
    assert [frame.code.name for frame in frames if frame not in own] == [
        "test_exceptions_pass_unchanged",
        "fail",
    ]


def test_warnings_and_log_records_name_the_caller(prepare: Prepare, caplog: pytest.LogCaptureFixture) -> None:
    class Old:
        def warn(self) -> None:
            warnings.warn("old", DeprecationWarning, stacklevel=2)
            logging.getLogger("old").warning("old", stacklevel=2)

    old, logger = prepare(Old()), prepare(logging.getLogger("own"))

    with pytest.warns(DeprecationWarning, match="old") as caught:
        old.warn()
    logger.warning("own")

    assert caught[0].filename == __file__
    assert [record.pathname for record in caplog.records] == [__file__, __file__]
    assert [record.funcName for record in caplog.records] == [
        "test_warnings_and_log_records_name_the_caller"
    ] * 2


def test_recursion_works(prepare: Prepare) -> None:
    class Recursive:
        def depth(self, left: int) -> int:
            return left and 1 + self.depth(left - 1)

        def endless(self) -> None:
            self.endless()

    recursive = prepare(Recursive())

    assert recursive.depth(100) == 100
    with pytest.raises(RecursionError):
        recursive.endless()
    assert recursive.depth(100) == 100


def test_threads_call_as_before(analyzer: Analyzer) -> None:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.extend(analyzer.outer() for _ in range(100)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [2] * 800


class Context:
    def __init__(self, swallow: bool) -> None:
        self.swallow = swallow
        self.seen: list[Any] = []

    def __enter__(self) -> Self:
        self.seen.append("in")
        return self

    def __exit__(self, *error: object) -> bool:
        self.seen.append(error[0])
        return self.swallow

    async def __aenter__(self) -> str:
        self.seen.append("in")
        return "entered"

    async def __aexit__(self, *error: object) -> bool:
        self.seen.append(error[0])
        return self.swallow


@pytest.mark.parametrize("swallow", [True, False])
async def test_context_managers_work(prepare: Prepare, swallow: bool) -> None:
    context = prepare(Context(swallow))

    with context as entered:
        assert entered is context
    async with context as other:
        assert other == "entered"
    with nullcontext() if swallow else pytest.raises(KeyError), context:
        raise KeyError
    with nullcontext() if swallow else pytest.raises(KeyError):
        async with context:
            raise KeyError

    assert context.seen == ["in", None, "in", None, "in", KeyError, "in", KeyError]


def test_a_thread_that_is_watched_runs(prepare: Prepare) -> None:
    ran = threading.Event()

    class Worker(threading.Thread):
        def run(self) -> None:
            ran.set()

    worker = prepare(Worker())
    worker.start()
    worker.join(10)

    assert ran.is_set()
    assert not worker.is_alive()


def test_exceptions_that_are_watched_can_be_raised(prepare: Prepare) -> None:
    class Trouble(Exception):  # noqa: N818
        def code(self) -> int:
            return 7

    trouble = prepare(Trouble("x"))

    with pytest.raises(Trouble) as caught:
        raise trouble

    assert caught.value is trouble
    assert trouble.code() == 7


class Sub(dict[str, int]):
    def total(self) -> int:
        return sum(self.values())


def test_subclasses_of_builtins_work(prepare: Prepare) -> None:
    sub = prepare(Sub(a=1))
    sub["b"] = 2

    assert sub == {"a": 1, "b": 2}
    assert sub.total() == 3
    assert {**sub} == {"a": 1, "b": 2}
    assert copy.copy(sub) == sub
    assert type(pickle.loads(pickle.dumps(sub))) is Sub


def test_private_names_and_odd_parameters_work(prepare: Prepare) -> None:
    class Odd:
        def mangled(self, __secret: int, *, __other: int = 2) -> int:  # noqa: PYI063
            return __secret + __other

        def without_self(*args: int) -> int:
            return len(args)

        def names(self, _soulfra_state: int, state: int, cell: int, type: int, id: int) -> tuple[int, ...]:  # noqa: A002
            return (_soulfra_state, state, cell, type, id)

        def ordinary(self, state: int, clock: int, type: int, BaseException: int) -> tuple[int, ...]:  # noqa: A002, N803
            return (state, clock, type, BaseException)

    odd = prepare(Odd())

    assert odd.mangled(1) == 3
    assert odd.without_self(1, 2) == 3
    assert odd.names(1, 2, 3, 4, 5) == (1, 2, 3, 4, 5)
    assert odd.ordinary(1, 2, 3, 4) == (1, 2, 3, 4)
