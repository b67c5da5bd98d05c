"""Generated subclasses that stand in for the class of a watched object.

A twin adds wrappers of methods and nothing else. Wherever code asks for the class rather than for the object,
it meets the original: ``obj.__class__``, ``isinstance(other, type(obj))``, ``type(obj) == Original``,
``type(obj)()``, ``type(obj).counter += 1``, ``registry[type(obj)]`` and class methods. What is left is
``type(obj) is Original``, which is false.
"""

import copyreg
from abc import ABCMeta
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

CLASS = object.__dict__["__class__"]
"""The real class of an object, whatever its class says of ``__class__``."""


def twin(original: type, additions: Mapping[str, object], note: object) -> type:
    """Return a twin of *original* with *additions*, that remembers *note*.

    No code of the original's author runs: no ``__init_subclass__``, no ``__new__`` of its metaclass. Raises
    TypeError where the class cannot have one.
    """
    space: dict[str, object] = {
        "__slots__": (),
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__dict__.get("__doc__"),
        "__reduce_ex__": _Reducer(original, note),
        "__new__": _maker(original),
        **_class_methods(original),
        **additions,
    }
    if mro_value(original, "__class__") is CLASS:
        space["__class__"] = property(lambda _: original, _set_class)
    meta = _meta(type(original))
    create = ABCMeta.__new__ if issubclass(meta, ABCMeta) else type.__new__
    made: type = create(meta, original.__name__, (original,), space)
    type.__delattr__(made, "__slots__")  # no part of what it shows; and the sign that it is being made
    type.__setattr__(made, "__bases__", (original,))  # takes _Quiet out
    return made


def is_twin(kind: type) -> bool:
    return isinstance(type.__getattribute__(kind, "__dict__").get("__reduce_ex__"), _Reducer)


def original_of(kind: type) -> type:
    """Return the class that a twin stands in for; any other class is its own."""
    return kind.__bases__[0] if is_twin(kind) else kind


def note_of(kind: type) -> Any:
    """Return what was given to ``twin``."""
    return type.__getattribute__(kind, "__dict__")["__reduce_ex__"].note


class _Quiet:
    """Stands between a twin and its original while it is made, so that no ``__init_subclass__`` runs."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        """Do nothing."""


class _Meta(type):
    """Answers for the original wherever its twin is asked as a class."""

    def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any], **options: Any) -> type:
        """Make a subclass of the original: this runs when somebody writes ``class X(type(watched))``."""
        originals = tuple(original_of(base) for base in bases)
        made: type = type(originals[0])(name, originals, space, **options)
        return made

    def mro(cls) -> list[type]:
        order = super().mro()
        if "__slots__" in cls.__dict__:
            order.insert(1, _Quiet)
        return order

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return original_of(cls)(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, original_of(cls))

    def __subclasscheck__(cls, subclass: type) -> bool:
        """Go by inheritance alone: an abstract original asks all its subclasses, and its twin is one."""
        return original_of(cls) in subclass.__mro__

    def __eq__(cls, other: object) -> bool:
        return original_of(cls) == (original_of(other) if isinstance(other, type) else other)

    def __hash__(cls) -> int:
        return hash(original_of(cls))

    def __repr__(cls) -> str:
        return repr(original_of(cls))

    def __setattr__(cls, name: str, value: object) -> None:
        """Set it on the original. A method replaced in this way is watched no more."""
        setattr(original_of(cls), name, value)
        if name in cls.__dict__:
            type.__delattr__(cls, name)

    def __delattr__(cls, name: str) -> None:
        delattr(original_of(cls), name)


@lru_cache(maxsize=256)
def _meta(meta: type) -> type:
    if meta is type:
        return _Meta
    made: type = type.__new__(type(meta), meta.__name__, (_Meta, meta), {"__module__": meta.__module__})
    return made


def _maker(original: type) -> Callable[..., Any]:
    """Return a ``__new__`` for ``type(self).__new__(type(self))``: copies made in this way are plain."""

    def make(kind: type, *args: Any, **kwargs: Any) -> Any:
        return original.__new__(original_of(kind), *args, **kwargs)

    return make


class _Reducer:
    """Copies and pickles are plain objects of the original class."""

    __slots__ = ("note", "original")

    def __init__(self, original: type, note: object) -> None:
        self.original = original
        self.note = note

    def __get__(self, instance: object, owner: type) -> Callable[..., Any]:
        if instance is None:
            return self.reduce
        return lambda protocol: self.reduce(instance, protocol)

    def reduce(self, instance: Any, protocol: Any) -> Any:
        """Reduce as the original would, and put the original where its twin is named."""
        special = copyreg.dispatch_table.get(self.original)
        reduced = special(instance) if special else super(type(instance), instance).__reduce_ex__(protocol)
        if not isinstance(reduced, tuple):
            return reduced
        made_by, args, *rest = reduced
        return (self._map(made_by), tuple(map(self._map, args)), *rest)

    def _map(self, value: object) -> object:
        return original_of(value) if isinstance(value, type) else value


class _OfOriginal(classmethod):  # type: ignore[type-arg]  # generic for type checkers only
    """A class method that is given the original, also when called on an object of the twin."""

    def __init__(self, method: Any, original: type) -> None:
        super().__init__(method.__func__)
        self.method = method
        self.original = original

    def __get__(self, instance: object, owner: type | None = None, /) -> Any:
        return self.method.__get__(None, self.original)


def of_original(method: Any, original: type) -> Any:
    """Return a class method that is given *original* as its class."""
    return _OfOriginal(method, original)


def _class_methods(original: type) -> dict[str, object]:
    names = {name for kind in original.__mro__[:-1] for name in kind.__dict__}
    return {
        name: of_original(value, original)
        for name in names
        if isinstance(value := mro_value(original, name), classmethod) and name != "__init_subclass__"
    }


def mro_value(kind: type, name: str) -> Any:
    """Return what a class has under a name, without binding it."""
    for each in kind.__mro__:
        if name in each.__dict__:
            return each.__dict__[name]
    return None


def _set_class(instance: object, kind: type) -> None:
    CLASS.__set__(instance, kind)
