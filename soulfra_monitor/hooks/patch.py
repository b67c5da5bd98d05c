"""What hooks are built of: attributes that are replaced and put back, and errors of ours that stay ours."""

from collections.abc import Callable, Mapping
from functools import partial
from types import BuiltinFunctionType, FrameType, ModuleType
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Fact, Reporter, grace
from soulfra_monitor.hooks.late import when_imported

_ABSENT = object()


class Outlet:
    """A reporter that can be shut: what somebody keeps of a hook that was taken out tells nobody any more."""

    __slots__ = ("_reporter",)

    def __init__(self, reporter: Reporter) -> None:
        self._reporter: Reporter | None = reporter

    def shut(self) -> None:
        self._reporter = None

    def raised(
        self,
        kind: Kind,
        error: BaseException,
        *,
        service: str | None = None,
        message: str | None = None,
        handled: bool = True,
        facts: Mapping[str, Fact] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        reporter = self._reporter
        if reporter is not None:
            reporter.raised(
                kind, error, service=service, message=message, handled=handled, facts=facts, context=context
            )

    def noted(
        self,
        kind: Kind,
        message: str,
        *,
        service: str | None = None,
        frame: FrameType | None = None,
        facts: Mapping[str, Fact] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        reporter = self._reporter
        if reporter is not None:
            reporter.noted(kind, message, service=service, frame=frame, facts=facts, context=context)

    def broke(self, place: str, error: BaseException) -> None:
        reporter = self._reporter
        if reporter is not None:
            reporter.broke(place, error)


class Builtin(partial[Any]):
    """Stands for a function of C. No function itself: one that is kept in a class would become a method."""

    @classmethod
    def of(cls, before: Any, module: str, function: Any) -> "Builtin":
        """Make one that calls *function* and looks like *before*, which is found in *module*."""
        made = cls(function)
        vars(made).update(
            __module__=module,
            __name__=before.__name__,
            __qualname__=before.__name__,
            __doc__=before.__doc__,
            __self__=before.__self__,
            __text_signature__=before.__text_signature__,
            __wrapped__=before,
        )
        return made

    @property  # type: ignore[misc]  # what isinstance, and with it inspect.isbuiltin, goes by
    def __class__(self) -> type:
        return BuiltinFunctionType

    def __reduce__(self) -> Any:
        return vars(self)["__name__"]

    def __repr__(self) -> str:
        return repr(vars(self)["__wrapped__"])


class Patches:
    """The attributes that one hook has replaced."""

    def __init__(self, reporter: Reporter, place: str) -> None:
        self.outlet = Outlet(reporter)
        self.place = f"hooks.{place}"
        self._undos: list[Callable[[], None]] = []

    def on_import(self, name: str, fit: Callable[[ModuleType], None]) -> None:
        """Have *fit* change the module *name*: now if it has been imported, else when it is."""
        self._undos.append(when_imported(name, lambda module: self.safely(fit, module)))

    def replace(self, owner: Any, name: str, replacement: Any) -> None:
        """Set an attribute of a class or a module until ``undo``."""
        found = vars(owner).get(name, _ABSENT)
        setattr(owner, name, replacement)

        def undo() -> None:
            if vars(owner).get(name, _ABSENT) is not replacement:
                return  # somebody has put theirs on top, and calls ours
            if found is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, found)

        self._undos.append(undo)

    def wrap(self, owner: Any, name: str, make: Callable[[Any], Callable[..., Any]]) -> None:
        """Replace a function by what *make* makes of it, under its own name; nothing where there is none."""
        found = getattr(owner, name, None)
        if found is None:
            return
        made = make(found)
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            if hasattr(found, attribute):
                setattr(made, attribute, getattr(found, attribute))
        made.__wrapped__ = found  # type: ignore[attr-defined]  # what inspect.signature goes by
        self.replace(owner, name, made)

    def later(self, undo: Callable[[], None]) -> None:
        """Have *undo* called by ``undo``."""
        self._undos.append(undo)

    def safely(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of ours. An error of it is counted and goes no further."""
        try:
            return function(*args)
        except Exception as error:  # noqa: BLE001 - counted; the host goes on as without us
            self.outlet.broke(self.place, error)
            return None

    def look_later(self, look: grace.Look, seconds: float = grace.GRACE) -> bool:
        """Have *look* called in *seconds*, see ``grace``; false when too many wait already."""
        return grace.later(lambda: self.safely(look), seconds)

    def undo(self) -> None:
        """Put back what was found, last first. What cannot be put back tells nobody from now on."""
        while self._undos:
            self.safely(self._undos.pop())
        self.outlet.shut()
