"""What an ``ErrorMonitor`` can be told, by keyword or by the environment; keywords win."""

# os.path is loaded in every program, pathlib is not:

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from soulfra_monitor.durations import parse_duration

LEVELS = ("debug", "info", "warning", "error", "critical")
SERVICE_LENGTH = 63
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})


class SettingsError(ValueError):
    """Settings that cannot be used; the message names each of them and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the library behaves in this process."""

    service: str
    url: str = "http://127.0.0.1:3001"  # of the remediator
    token: str = field(default="", repr=False)
    enabled: bool = True
    release: str = ""  # version of the program, told with each error
    spool: str = ""  # folder for what could not be sent; "" means one of the user's
    spool_bytes: int = 10_000_000  # of one service, all its processes together
    spool_age: float = 7 * 86400.0  # seconds after which nobody wants to know
    overhead_limit: float = 5.0  # percent of one core
    log_level: str = "warning"  # of the logger soulfra_monitor
    queue_events: int = 1000
    queue_bytes: int = 4_000_000
    interval: float = 10.0  # seconds between counts: alike errors, calls, declared values
    timeout: float = 5.0  # seconds for one step of a request to the remediator
    exit_timeout: float = 2.0  # seconds that the end of the program may wait for us
    without: frozenset[str] = frozenset()  # hooks to leave out, by name
    in_app: tuple[str, ...] = ()  # packages that are the program's own though they are installed


def read(given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings. Raises SettingsError, which names all that is wrong with them."""
    environment = os.environ if environment is None else environment
    mistakes = [f"{name}: is no setting; there are {', '.join(_READERS)}" for name in given.keys() - _READERS]
    values: dict[str, Any] = {}
    for name, reader in _READERS.items():
        variable = _VARIABLES.get(name, "")
        if given.get(name) is not None:
            place, value = name, given[name]
        elif environment.get(variable):
            place, value = variable, environment[variable]
        else:
            continue
        try:
            values[name] = reader(value)
        except (ValueError, TypeError) as error:
            mistakes.append(f"{place}: {error}")
    if mistakes:
        raise SettingsError("; ".join(sorted(mistakes)))
    values.setdefault("service", _program())
    return Settings(**values)


def _program() -> str:
    """Return a name for a program that gave none: that of its file, or of its folder."""
    path = sys.argv[0] if getattr(sys, "argv", None) else ""
    stem, _ = os.path.splitext(os.path.basename(path)) if not path.startswith("-") else ("", "")
    if stem == "__main__":
        stem = os.path.basename(os.path.dirname(os.path.abspath(path)))
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem)[:SERVICE_LENGTH].strip("_.-")
    return name or "python"


def check_service(value: Any) -> str:
    """Return the name of a service. Raises ValueError for what is none."""
    if not isinstance(value, str) or not _SERVICE.fullmatch(value):
        raise ValueError(
            "must have letters, digits, '_', '.' or '-', start with a letter or digit, and have 63 at most"
        )
    return value


def _url(value: Any) -> str:
    example = "write for example http://127.0.0.1:3001"
    try:
        parts = urlsplit(value)
        port_is_wrong = parts.port == 0
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"is no address; {example}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port_is_wrong:
        raise ValueError(f"must be an address of http or https; {example}")
    if parts.username or parts.password:
        raise ValueError("must not hold credentials; give the token as token or SOULFRA_TOKEN")
    if parts.query or parts.fragment:
        raise ValueError(f"must end before '?' and '#'; {example}")
    return str(value).rstrip("/")


def _token(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise ValueError("must be a text of printable ASCII characters")
    return value.strip()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")  # noqa: TRY004 - one kind of error for settings
    return value


def _folder(value: Any) -> str:
    return os.path.abspath(str(value))


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in _YES | _NO:
        raise ValueError("must be true or false")
    return text in _YES


def _level(value: Any) -> str:
    text = str(value).strip().lower()
    if text not in LEVELS:
        raise ValueError(f"must be one of {', '.join(LEVELS)}")
    return text


def _percent(value: Any) -> float:
    number = _number(value.strip().removesuffix("%") if isinstance(value, str) else value)
    if not 0 < number <= 100:  # noqa: PLR2004 - percent
        raise ValueError("must be above 0 and at most 100, in percent of one core")
    return number


def _number(value: Any) -> float:
    try:
        return float(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("must be a number") from None


def _whole(value: Any) -> int:
    number = _number(value)
    if not number.is_integer() or number < 1:
        raise ValueError("must be a whole number of at least 1")
    return int(number)


def _seconds(value: Any) -> float:
    if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
        return parse_duration(value)
    number = _number(value)
    if not 0 < number < float("inf"):
        raise ValueError("must be more than 0 seconds")
    return number


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(filter(None, (part.strip() for part in value.split(","))))
    if not isinstance(value, Iterable) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be names")
    return tuple(value)


def _hooks(value: Any) -> frozenset[str]:
    return frozenset(_names(value))


_READERS: dict[str, Callable[[Any], Any]] = {
    "service": check_service,
    "url": _url,
    "token": _token,
    "enabled": _flag,
    "release": _text,
    "spool": _folder,
    "spool_bytes": _whole,
    "spool_age": _seconds,
    "overhead_limit": _percent,
    "log_level": _level,
    "queue_events": _whole,
    "queue_bytes": _whole,
    "interval": _seconds,
    "timeout": _seconds,
    "exit_timeout": _seconds,
    "without": _hooks,
    "in_app": _names,
}

_VARIABLES = {
    "service": "SOULFRA_SERVICE",
    "url": "SOULFRA_URL",
    "token": "SOULFRA_TOKEN",
    "enabled": "ERROR_MONITORING_ENABLED",
    "release": "SOULFRA_RELEASE",
    "spool": "SOULFRA_SPOOL",
    "overhead_limit": "MONITORING_OVERHEAD_LIMIT",
    "log_level": "ERROR_LOG_LEVEL",
    "without": "SOULFRA_WITHOUT",
    "in_app": "SOULFRA_IN_APP",
}
"""Which variable of the environment stands for a setting that no keyword gives."""
