"""The in-process library and the kernel that exporter and remediator share.

Standard library only at import: this package goes into other people's processes. What a program uses,
``from soulfra_monitor import ErrorMonitor``, is loaded when it is asked for.
"""

TYPE_CHECKING = False  # as in typing, which not every program has loaded

if TYPE_CHECKING:
    from soulfra_monitor.monitor import ErrorMonitor, active
    from soulfra_monitor.settings import SettingsError

__version__ = "0.1.0"

__all__ = ["ErrorMonitor", "SettingsError", "active"]

_PLACES = {
    "ErrorMonitor": "soulfra_monitor.monitor",
    "SettingsError": "soulfra_monitor.settings",
    "active": "soulfra_monitor.monitor",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only for programs that use the library

    from soulfra_monitor.loading import pythons_own  # noqa: PLC0415 - as above

    with pythons_own():
        return getattr(import_module(_PLACES[name]), name)
