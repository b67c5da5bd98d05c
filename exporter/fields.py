"""The field types that all configuration models share: durations, addresses, names, secrets."""

import re
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainValidator

from soulfra_monitor.durations import parse_duration


def _read_duration(value: object) -> object:
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError("a duration is written with its unit, for example 500ms, 5s or 1m30s")


def _read_milliseconds(value: object) -> object:
    return value / 1000 if isinstance(value, int | float) and not isinstance(value, bool) else value


def as_list(value: object) -> object:
    """Let one value stand for a list of one."""
    return value if isinstance(value, list | tuple) else [value]


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be greater than 0")
    return value


_ADDRESS = re.compile(r"^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})$")
_URL = re.compile(r"^https?://[^\s/?#\\\x00-\x1f\x7f]+(?:[/?#]|$)", re.IGNORECASE)
_REDIS_URL = re.compile(r"^(rediss?|unix)://\S+$")
_SHARD = re.compile(r"^(\d{1,4})/(\d{1,4})$")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")


def check_address(value: str) -> str:
    """Return *value* when it is HOST:PORT. Raises ValueError otherwise."""
    found = _ADDRESS.match(value)
    if not found or not 0 < int(found[1]) <= 65535:  # noqa: PLR2004 - the largest TCP port
        raise ValueError("must be HOST:PORT, for example 127.0.0.1:9877")
    return value


def split_address(address: str) -> tuple[str, int]:
    """Split a checked HOST:PORT; an IPv6 host comes without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def check_shard(value: str) -> str:
    """Return *value* when it is INDEX/COUNT. Raises ValueError otherwise."""
    found = _SHARD.match(value)
    if not found or int(found[1]) >= int(found[2]):
        raise ValueError("must be INDEX/COUNT, counted from 0, for example 0/3, 1/3 and 2/3")
    return value


def is_loopback(host: str) -> bool:
    """Whether *host* is a name or an address of this machine that no other machine can have."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(value: str) -> str:
    if not _URL.match(value) or not _has_host_and_port(value):
        raise ValueError("must be an http:// or https:// address with a host and, if any, a port up to 65535")
    return value


def _has_host_and_port(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if ":" not in host:  # a name must survive the way to DNS and back; empty and long labels do not
            host = host.encode("idna").decode("idna")
        return bool(host) and parts.port != 0
    except ValueError:
        return False


def header_text(value: str) -> str:
    """Return *value* when it can stand in a header. Raises ValueError otherwise."""
    if any(character < " " or character == "\x7f" for character in value):
        raise ValueError("a header must not contain control characters")
    return value


def _redis_url(value: str) -> str:
    if not _REDIS_URL.match(value):
        raise ValueError("must be a redis://, rediss:// or unix:// address")
    return value


def _name(value: str) -> str:
    if not NAME.match(value):
        raise ValueError(
            "a name has letters, digits, '_', '.' or '-', starts with a letter or digit, 63 at most"
        )
    return value


_LABEL = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]{0,62}$")
OUR_LABELS = frozenset(
    (
        *("target", "probe", "reason", "phase", "host", "source", "destination", "module"),
        *("job", "instance", "le", "quantile"),
    )
)
"""Labels that mean something of our own or of Prometheus's, so that users cannot give them."""


def _label_name(value: str) -> str:
    if not _LABEL.match(value) or value.startswith("__"):
        raise ValueError(
            "a label has letters, digits and '_', starts with a letter or one '_', and has 63 at most"
        )
    if value in OUR_LABELS:
        raise ValueError(f"{value!r} is a label of the exporter or of Prometheus; choose another name")
    return value


def _label_value(value: str) -> str:
    if len(value) > 200 or not value.isprintable():  # noqa: PLR2004 - told in the message
        raise ValueError("the value of a label has 200 printable characters at most")
    return value


_LONGEST_ACCOUNT = 64
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SIZE = re.compile(r"^(\d{1,15}(?:\.\d{1,6})?)\s?(|k|Ki|M|Mi|G|Gi|T|Ti)B?$")
_PERCENT = re.compile(r"^(\d{1,3}(?:\.\d{1,6})?)\s?%$")


def _read_size(value: object) -> object:
    found = _SIZE.match(value) if isinstance(value, str) else None
    if found:
        return round(float(found[1]) * _UNITS[found[2]])
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("a size is a number of bytes, or one with its unit, for example 500kB, 10MiB or 5GiB")


def _read_percent(value: object) -> object:
    found = _PERCENT.match(value) if isinstance(value, str) else None
    if not found or not 0 < float(found[1]) <= 100:  # noqa: PLR2004 - percent
        raise ValueError("a share is written in percent, for example 10%")
    return float(found[1]) / 100


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError("must be an absolute path, for example /var/backups/shop.tar.gz")
    return path


def _account(value: object) -> str | int:
    if isinstance(value, str) and 0 < len(value) <= _LONGEST_ACCOUNT:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("must be the name or the number of a user or group, for example www-data or 33")


LabelName = Annotated[str, AfterValidator(_label_name)]
LabelValue = Annotated[str, AfterValidator(_label_value)]
Duration = Annotated[float, BeforeValidator(_read_duration), AfterValidator(_positive)]
"""Seconds, written in the file as ``5s``."""
Milliseconds = Annotated[float, BeforeValidator(_read_milliseconds), AfterValidator(_positive)]
"""Seconds, written in the file as a number of milliseconds."""
ByteSize = Annotated[int, BeforeValidator(_read_size)]
"""Bytes, written in the file as a number or as ``5GiB``."""
Percent = Annotated[float, BeforeValidator(_read_percent)]
"""A share from 0 to 1, written in the file as ``10%``."""
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
Account = Annotated[str | int, PlainValidator(_account)]
"""The name or the number of a user or group."""
ShardText = Annotated[str, AfterValidator(check_shard)]
Address = Annotated[str, AfterValidator(check_address)]
Url = Annotated[str, AfterValidator(_url)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
Name = Annotated[str, AfterValidator(_name)]
Scalar = str | int | float | bool | None


class Strict(BaseModel):
    """Base of all models: unknown keys are errors, values do not change after loading."""

    # Deferred: only the outermost models of a file ever validate by themselves; the others would each keep
    # a validator that nobody asks.
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)
