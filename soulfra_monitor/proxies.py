"""Proxies for objects whose class cannot be swapped: built-in and C types, modules, classes.

A proxy hands everything on to its target and shows the target's functions through ``dress``. It equals its
target and hashes, copies, pickles and prints as it; only ``type(proxy)`` and ``is`` tell the two apart.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

Dress = Callable[[str, Any], Any]
"""Takes the name and the value of an attribute of the target; returns what the proxy is to show."""

_OWN = frozenset(
    {
        *("__new__", "__init__", "__del__", "__init_subclass__", "__subclasshook__", "__class_getitem__"),
        *("__getattribute__", "__getattr__", "__setattr__", "__delattr__", "__class__", "__get__", "__set__"),
        *("__prepare__", "__sizeof__", "__dict__", "__weakref__", "__doc__", "__module__", "__set_name__"),
    }
)
"""Special methods that a proxy does not take from its target's class, or takes in another way."""

_SELF = frozenset(
    {
        *("__enter__", "__aenter__", "__iter__", "__aiter__"),
        *("__iadd__", "__isub__", "__imul__", "__imatmul__", "__itruediv__", "__ifloordiv__", "__imod__"),
        *("__ipow__", "__ilshift__", "__irshift__", "__iand__", "__ixor__", "__ior__"),
    }
)
"""Special methods that may return their object: then that is the proxy."""


class _Inside:
    """What a proxy knows."""

    __slots__ = ("dress", "dressed", "service", "target")

    def __init__(self, target: Any, service: str, dress: Dress) -> None:
        self.target = target
        self.service = service
        self.dress = dress
        self.dressed: dict[str, tuple[Any, Any]] = {}

    def get(self, name: str) -> Any:
        if name == "__mro_entries__" and isinstance(self.target, type):  # asked for by ``class X(proxy)``
            return lambda _: (self.target,)
        value = getattr(self.target, name)
        known = self.dressed.get(name)
        if known is not None and _is_same(known[0], value):
            return known[1]
        shown = self.dress(name, value)
        if shown is not value:
            self.dressed[name] = (value, shown)
        return shown


class _Proxy:
    __slots__ = ("__weakref__", "_inside")

    _inside: _Inside

    def __getattribute__(self, name: str) -> Any:
        return _inside_of(self).get(name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(_inside_of(self).target, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_inside_of(self).target, name)


_slot: Any = _Proxy.__dict__["_inside"]


def proxy(target: Any, service: str, dress: Dress) -> Any:
    """Return a proxy of *target*."""
    made: Any = object.__new__(_kind(type(target)))  # type: ignore[arg-type]  # types can be hashed
    _slot.__set__(made, _Inside(target, service, dress))
    return made


def is_proxy(obj: object) -> bool:
    return issubclass(type(obj), _Proxy)


def target_of(obj: object) -> Any:
    return _inside_of(obj).target


def service_of(obj: object) -> str:
    return _inside_of(obj).service


def _inside_of(obj: object) -> _Inside:
    inside: _Inside = _slot.__get__(obj)
    return inside


def _is_same(known: Any, value: Any) -> bool:
    """Tell whether it is what was dressed before; bound methods are made anew at each access."""
    if known is value:
        return True
    return getattr(known, "__self__", known) is getattr(value, "__self__", value) and bool(known == value)


@lru_cache(maxsize=256)
def _kind(target: Any) -> type:
    space: dict[str, Any] = {"__slots__": ()}
    for kind in reversed(target.__mro__):
        for name, value in kind.__dict__.items():
            if name.startswith("__") and name.endswith("__") and name not in _OWN:
                if callable(value):
                    space[name] = _forward(name)
                elif value is None:  # as __hash__ of what cannot be hashed
                    space[name] = None
    return type("Proxy", (_Proxy,), space)


def _forward(name: str) -> Callable[..., Any]:
    def special(self: object, /, *args: Any, **kwargs: Any) -> Any:
        inside = _inside_of(self)
        target = inside.target
        plain = [target_of(arg) if is_proxy(arg) else arg for arg in args]
        if name == "__call__" and not isinstance(target, type):
            result = inside.get(name)(*plain, **kwargs)
        else:
            result = getattr(type(target), name)(target, *plain, **kwargs)
        return self if result is target and name in _SELF else result

    return special
