"""Watching an object: every call of its methods is counted, timed, and reported when it fails.

``watch`` swaps the class of the object for a generated subclass, so that the object itself, references taken
earlier and its calls of itself are all watched. Where Python does not allow that (built-in and C types,
modules, classes), a proxy is returned, and only what goes through the proxy is watched.
"""

import functools
import types
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from soulfra_monitor import proxies, wrappers
from soulfra_monitor.cells import Failed, Method
from soulfra_monitor.hooks import Reporter
from soulfra_monitor.twins import CLASS, is_twin, mro_value, note_of, of_original, original_of, twin

T = TypeVar("T")

EDGES = {
    "__enter__": ("with", True),
    "__exit__": ("with", False),
    "__aenter__": ("async with", True),
    "__aexit__": ("async with", False),
}
"""The methods around a ``with`` block, under what name the block counts, and whether they begin it."""

NEVER = frozenset(
    {
        *("__new__", "__init__", "__del__", "__init_subclass__", "__class_getitem__", "__subclasshook__"),
        *("__getattribute__", "__getattr__", "__setattr__", "__delattr__", "__dir__", "__set_name__"),
        *("__get__", "__set__", "__delete__", "__eq__", "__hash__", "__repr__", "__str__", "__format__"),
        *(
            "__reduce__",
            "__reduce_ex__",
            "__getstate__",
            "__setstate__",
            "__getnewargs__",
            "__getnewargs_ex__",
        ),
        *("__copy__", "__deepcopy__", "__sizeof__", "__bool__", "__class__", "__post_init__", "__fspath__"),
        *("__instancecheck__", "__subclasscheck__", "__mro_entries__", "__prepare__"),
    }
)
"""Methods that the interpreter calls for its own ends; not even ``include`` watches them."""

TWINS_LIMIT = 256
"""Generated classes that are kept for more objects of the same class, even when none is watched."""


class WatchError(ValueError):
    """An object that cannot be watched in this way; the message says why."""


Expected = type[BaseException] | Iterable[type[BaseException]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to watch an object."""

    include: frozenset[str] | None = None  # these methods and no others
    exclude: frozenset[str] = frozenset()
    private: bool = False  # also methods that begin with an underscore, and operators
    slow: float | None = None  # seconds; a longer call is reported when it ends
    timeout: float | None = None  # seconds; a longer call is reported by the watchdog while it lasts
    failed: Failed | None = None  # tells of a returned value whether, or why, it means failure
    expected: Expected = ()  # exceptions that are answers of the service: neither told nor failures

    def __post_init__(self) -> None:
        """Make a tuple of ``expected``. Raises TypeError where it names anything but exceptions."""
        given = self.expected
        kinds = (given,) if isinstance(given, type) else tuple(given)
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
            raise TypeError("expected must be a class of exceptions, or several")
        object.__setattr__(self, "expected", kinds)

    def selects(self, name: str) -> bool:
        """Tell whether a method of that name is to be watched."""
        if name in self.exclude or name in NEVER:
            return False
        if self.include is not None:
            return name in self.include
        return self.private or not name.startswith("_") or name == "__call__" or name in EDGES


DEFAULTS = Options()


class _Watcher:
    """Who watches something, as what and how."""

    __slots__ = ("options", "reporter", "service")

    def __init__(self, service: str, reporter: Reporter, options: Options) -> None:
        self.service = service
        self.reporter = reporter
        self.options = options

    def method(self, name: str) -> Method:
        options = self.options
        return Method(
            self.service,
            name,
            self.reporter,
            slow=options.slow,
            timeout=options.timeout,
            failed=options.failed,
            expected=cast("tuple[type[BaseException], ...]", options.expected),
        )


def watch(obj: T, service: str, reporter: Reporter, options: Options = DEFAULTS) -> T:
    """Watch *obj* as *service*, and return what is watched: *obj* itself, or else a proxy or a wrapper of it.

    It is *obj* itself for objects of classes written in Python. For functions and bound methods it is a
    wrapper; for objects of built-in and C types, modules and classes a proxy. Watching an object again as the
    same service changes its options; a proxy or a wrapper is returned as it is. Raises WatchError
    when *obj* is watched as another service.

    Not watched: what is made on access (``__getattr__``), properties, single-dispatch methods, descriptors of
    unknown kinds, attributes of the object that are functions, and methods put on the class later.
    """
    known = watched_as(obj)
    if known not in (None, service):
        raise WatchError(
            f"this object is watched as {known!r}: stop that before it is watched as {service!r}"
        )
    if known is not None and not is_twin(type(obj)):
        return obj
    watcher = _Watcher(service, reporter, options)
    if isinstance(obj, _CALLABLES):
        return cast("T", _wrapped(obj, watcher.method(obj.__name__)) or obj)
    if not isinstance(obj, (type, types.ModuleType)) and _swap(obj, watcher):
        return obj
    return cast("T", proxies.proxy(obj, service, functools.partial(_dress, watcher)))


def unwatch(obj: T) -> T:
    """Undo ``watch`` and return the object as it was. What is not watched is returned as it is."""
    kind = type(obj)
    if is_twin(kind):
        CLASS.__set__(obj, original_of(kind))
        return obj
    if proxies.is_proxy(obj):
        return cast("T", proxies.target_of(obj))
    if isinstance(obj, types.MethodType) and wrappers.method_of(obj.__func__):
        return cast("T", types.MethodType(obj.__func__.__wrapped__, obj.__self__))  # type: ignore[attr-defined]
    return cast("T", obj.__wrapped__) if wrappers.method_of(obj) else obj  # type: ignore[attr-defined]


def watched_as(obj: object) -> str | None:
    """Return the service that *obj* is watched as, or None."""
    kind = type(obj)
    if is_twin(kind):
        return cast("str", note_of(kind))
    if proxies.is_proxy(obj):
        return proxies.service_of(obj)
    method = wrappers.method_of(obj.__func__ if isinstance(obj, types.MethodType) else obj)
    return method.service if method else None


def _swap(obj: object, watcher: _Watcher) -> bool:
    """Put a twin in place of the object's class; False where Python does not allow it."""
    try:
        CLASS.__set__(obj, _twin_for(original_of(type(obj)), watcher))
    except TypeError:  # a C type, a final class, a metaclass or a layout that cannot be extended
        return False
    return True


def _twin_for(original: type, watcher: _Watcher) -> type:
    options = watcher.options
    key = (
        *(id(original), watcher.service, id(watcher.reporter)),  # alive as long as their twin is
        *(
            options.include,
            options.exclude,
            options.private,
            options.slow,
            options.timeout,
            id(options.failed),
            options.expected,
        ),
    )
    made = _twins.get(key)
    if made is None:
        made = _twins[key] = twin(original, dict(_additions(original, watcher)), watcher.service)
        if len(_twins) > TWINS_LIMIT:
            _twins.popitem(last=False)
    return made


def _additions(original: type, watcher: _Watcher) -> Iterator[tuple[str, object]]:
    names = {name for kind in original.__mro__[:-1] for name in kind.__dict__}
    for name in sorted(filter(watcher.options.selects, names)):
        value = mro_value(original, name)
        if isinstance(value, types.FunctionType) and name in EDGES:
            block, entering = EDGES[name]
            wrapped: object = wrappers.wrap_edge(value, watcher.method(block), entering=entering)
        else:
            wrapped = _attribute(value, watcher.method(name), original)
        if wrapped is not None:
            yield name, wrapped


def _attribute(value: Any, method: Method, original: type) -> object:
    """Return what is to stand in a twin for an attribute of a class; None where that is better left alone."""
    if isinstance(value, functools.partialmethod):
        function = _wrapped(value.func, method)
        return function and functools.partialmethod(function, *value.args, **value.keywords)
    if isinstance(value, (staticmethod, classmethod)):
        function = _wrapped(value.__func__, method)
        if function is None:
            return None
        if isinstance(value, staticmethod):
            return staticmethod(function)
        return of_original(classmethod(function), original)
    return _wrapped(value, method)


def _wrapped(value: Any, method: Method) -> Any:
    """Return a wrapper of a callable of a known kind; None for others, and for what is watched already."""
    if isinstance(value, types.MethodType):
        function = _wrapped(value.__func__, method)
        return function and types.MethodType(function, value.__self__)
    if isinstance(value, _CACHED):
        wrapper = wrappers.wrap(value, method)
        if wrapper is not None:
            vars(wrapper).update(cache_info=value.cache_info, cache_clear=value.cache_clear)
        return wrapper
    if not isinstance(value, _CALLABLES) or wrappers.method_of(value):
        return None
    return wrappers.wrap(value, method)


def _dress(watcher: _Watcher, name: str, value: Any) -> Any:
    """Return what a proxy shows for an attribute of its target."""
    if not watcher.options.selects(name) or not isinstance(value, (*_CALLABLES, _CACHED)):
        return value
    return _wrapped(value, watcher.method(name)) or value


_CACHED = type(functools.lru_cache(int))
_CALLABLES = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodWrapperType)
_twins: "OrderedDict[tuple[object, ...], type]" = OrderedDict()
