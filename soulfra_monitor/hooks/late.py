"""Tells when a module has been imported, so that nothing is imported only to be watched."""

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

Tell = Callable[[ModuleType], None]


class Finder:
    """Finds nothing of its own: it asks the other finders, and listens to the loader they give."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Tell]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.waiting:
            return None
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find and find(name, path, target)
            if spec is not None:
                self._listen(spec)
                return spec
        return None

    def _listen(self, spec: ModuleSpec) -> None:
        """Let the loader itself tell: one of another class would show in ``__loader__``."""
        loader = spec.loader
        if (
            loader is None
            or not hasattr(loader, "__dict__")
            or isinstance(loader, type)
            or "exec_module" in vars(loader)
        ):
            return  # a loader for all modules, of what is built in: that was imported before anybody
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)
            run(module)
            if module.__name__ == spec.name:
                for tell in list(self.waiting.get(spec.name, ())):
                    tell(module)

        vars(loader)["exec_module"] = exec_module


_finder = Finder()
_lock = threading.Lock()


def when_imported(name: str, tell: Tell) -> Callable[[], None]:
    """Call *tell* with the module *name*: now if it is there, and each time it is imported. Return the undo.

    *tell* must not raise: it would fail the import.
    """
    with _lock:
        _finder.waiting.setdefault(name, []).append(tell)
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
    module = sys.modules.get(name)
    if module is not None:
        tell(module)

    def undo() -> None:
        with _lock:
            told = _finder.waiting.get(name, [])
            if tell in told:
                told.remove(tell)
            if not told:
                _finder.waiting.pop(name, None)
            if not _finder.waiting and _finder in sys.meta_path:
                sys.meta_path.remove(_finder)

    return undo
