"""Holds an HTTP answer against what is expected of it."""

import json
import re
import zlib
from codecs import charmap_decode, getincrementaldecoder
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any

from exporter.fields import Scalar
from exporter.kinds.http import HeaderCheck, HttpExpect, JsonCheck
from exporter.observation import Reason, shorten
from exporter.probes.http_wire import Answer

Finding = tuple[Reason, str]
Check = Callable[[Any], str | None]
HeaderSearch = tuple[str, bytes, Any, bool]  # name, in small letters, pattern, whether a missing one fails

_CHARSET = re.compile(r"charset\s*=\s*\"?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_OF_ONE_BYTE = frozenset({"iso-8859-1", "latin-1", "iso-8859-15", "windows-1252"})
"""The peer names the charset, and some of Python's decoders take minutes or refuse everything."""
_SLICE = 16 * 1024
MOST_VALUES = 50_000
"""Of a JSON text, for the sake of time and memory: an empty list is 2 bytes there and 56 here."""
_VALUE_LIMIT = 60
_PACKED = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # what zlib calls window bits
MISSING: Any = object()
"""Stands for no value: None is one in JSON."""


class Judge:
    """The expectations of one probe, made ready once."""

    def __init__(self, expect: HttpExpect, body_limit: int, *, unpacks: bool = False) -> None:
        self.statuses = _statuses(expect.status)
        self.unpacks = unpacks
        self.looks_at_body = expect.of_body or unpacks  # who asks for a packed body wants it whole
        self._expect = expect
        self._body_limit = body_limit
        self._headers = _header_checks(expect.headers, missing_fails=True)
        self._headers_not = _header_checks(expect.headers_not, missing_fails=False)
        self._body = [compiled(pattern) for pattern in expect.body]
        self._body_not = [compiled(pattern) for pattern in expect.body_not]
        self._json = [(path, check, _checks_of(check)) for path, check in expect.json_.items()]

    def head(self, answer: Answer, *, secure: bool) -> Finding | None:
        """Say what is wrong with the way, the status or the headers, or None."""
        expect = self._expect
        if answer.status not in self.statuses:
            wanted = " or ".join(str(status) for status in expect.status)
            return Reason.STATUS, f"answered {answer.status}, expected {wanted}"
        if expect.secure is not None and expect.secure is not secure:
            return Reason.PROTOCOL, f"answered {'over' if secure else 'without'} TLS"
        if expect.http_version and answer.version not in expect.http_version:
            wanted = " or ".join(expect.http_version)
            return Reason.PROTOCOL, f"answered by HTTP/{answer.version}, expected {wanted}"
        return _check_headers(self._headers, answer, must_match=True) or _check_headers(
            self._headers_not, answer, must_match=False
        )

    def body(self, answer: Answer) -> Finding | None:
        """Say what is wrong with the body, or None."""
        if not self.looks_at_body:
            return None
        unpacked = unpack(answer, self._body_limit)
        if self.unpacks:
            answer.unpacked_bytes = len(unpacked) if isinstance(unpacked, bytes) else 0
        if isinstance(unpacked, tuple):
            return unpacked
        text = _utf8(unpacked, answer)
        if not all(pattern.search(text) for pattern in self._body):
            return Reason.BODY, "the body does not match"
        if any(pattern.search(text) for pattern in self._body_not):
            return Reason.BODY, "the body matches what it must not"
        return self._check_json(unpacked) if self._json else None

    def _check_json(self, body: bytes) -> Finding | None:
        parsed, finding = parse_json(body)
        for path, check, checks in self._json if finding is None else ():
            told = _check_value(value_at(parsed, path), check, checks)
            if told is not None:
                return Reason.JSON, f"{path} {told}"
        return finding


def compiled(pattern: str) -> Any:
    """Return a checked pattern, compiled."""
    import re2  # noqa: PLC0415 - 3 MB, needed by configurations with such patterns only

    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def unpack(answer: Answer, limit: int) -> bytes | Finding:
    """Return the body without its Content-Encoding, at most *limit* bytes, or what is wrong."""
    encoding = answer.value(b"content-encoding").strip().lower()
    if encoding in ("", "identity") or not answer.body:
        return answer.body
    if encoding not in _PACKED:
        return Reason.PROTOCOL, f"the body is packed in a way that was not asked for: {shorten(encoding, 20)}"
    try:
        unpacker = zlib.decompressobj(_window(encoding, answer.body))
        body = unpacker.decompress(answer.body, limit + 1)
    except zlib.error:
        return Reason.PROTOCOL, f"the body is not valid {encoding}"
    if len(body) > limit:
        return Reason.TOO_LARGE, f"the body is larger than {limit} bytes"
    if not unpacker.eof:
        return Reason.PROTOCOL, f"the body is not valid {encoding}"
    return body


def _window(encoding: str, body: bytes) -> int:
    bits = _PACKED[encoding]
    framed = len(body) > 1 and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0
    # Many servers leave the frame of zlib out that deflate should have.
    return bits if encoding != "deflate" or framed else -bits


def parse_json(body: bytes) -> tuple[object, Finding | None]:
    """Return the value of a JSON text, or what is wrong with it."""
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
        return None, (
            Reason.TOO_LARGE,
            f"the body has more than {MOST_VALUES} values, and is not read as JSON",
        )
    try:
        # Strictly: json itself would make up for half characters one by one, in Python.
        return json.loads(body.decode(json.detect_encoding(body))), None
    except (ValueError, RecursionError):
        return None, (Reason.JSON, "the body is not JSON")


def value_at(answer: object, path: str) -> object:
    """Return what stands at a dotted path; ``.`` is the whole. MISSING if there is nothing."""
    value = answer
    for key in path.split(".") if path != "." else ():
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return MISSING
    return value


@lru_cache(maxsize=64)  # thousands of probes expect the same
def _statuses(wanted: tuple[int | str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for status in wanted:
        if isinstance(status, int):
            found.add(status)
        else:
            first = int(status[0]) * 100
            found.update(range(first, first + 100))
    return frozenset(found)


def _header_checks(
    wanted: Mapping[str, tuple[HeaderCheck, ...]], *, missing_fails: bool
) -> list[HeaderSearch]:
    return [
        (
            name,
            name.lower().encode(),
            compiled(check.matches),
            missing_fails if check.optional is None else not check.optional,
        )
        for name, checks in wanted.items()
        for check in checks
    ]


def _check_headers(checks: list[HeaderSearch], answer: Answer, *, must_match: bool) -> Finding | None:
    for name, key, pattern, missing_fails in checks:
        values = answer.values(key)
        if not values and missing_fails:
            return Reason.HEADER, f"header {name} is missing"
        if values and any(pattern.search(value.encode()) for value in values) is not must_match:
            # The value stays out: headers carry secrets.
            return Reason.HEADER, f"header {name} " + (
                "does not match" if must_match else "matches what it must not"
            )
    return None


def _utf8(body: bytes, answer: Answer) -> bytes:
    """Return *body* in UTF-8 when it says that it is in another charset.

    By slices: decoding keeps other threads out, and what cannot be decoded takes a hundred times as long.
    """
    found = _CHARSET.search(answer.value(b"content-type"))
    charset = found[1].lower() if found else ""
    if charset in _OF_ONE_BYTE:
        table = _table(charset)
        decode: Callable[[bytes], str] = lambda part: charmap_decode(part, "strict", table)[0]  # noqa: E731
    elif charset == "utf-16":
        decode = getincrementaldecoder(charset)("replace").decode
    else:
        return body
    return b"".join(decode(body[at : at + _SLICE]).encode() for at in range(0, len(body), _SLICE))


@cache
def _table(charset: str) -> str:
    """Return the character of each byte; with a table none is looked up in Python."""
    return "".join(bytes([number]).decode(charset, "replace") for number in range(256))


def _check_value(value: object, check: JsonCheck, checks: list[Check]) -> str | None:
    if value is MISSING:
        return None if check.exists is False else "is missing"
    if check.exists is False:
        return "is there"
    return next((told for one in checks if (told := one(value)) is not None), None)


def _checks_of(check: JsonCheck) -> list[Check]:
    given = check.model_fields_set - {"exists"}
    return [_CHECKS[name](getattr(check, name)) for name in _CHECKS if name in given]


def _equals(wanted: Scalar) -> Check:
    return lambda value: (
        None if _same(value, wanted) else f"is {_shown(value)}, expected {json.dumps(wanted)}"
    )


def _differs(wanted: Scalar) -> Check:
    return lambda value: f"is {json.dumps(wanted)}" if _same(value, wanted) else None


def _matches(pattern: str) -> Check:
    search = compiled(pattern).search

    def check(value: Any) -> str | None:
        found = isinstance(value, str) and search(value.encode("utf-8", "replace"))
        return None if found else f"is {_shown(value)}, which does not match"

    return check


def _less(limit: float) -> Check:
    return lambda value: (
        None if _is_number(value) and value < limit else f"is {_shown(value)}, expected less than {limit:g}"
    )


def _at_least(limit: float) -> Check:
    return lambda value: (
        None if _is_number(value) and value >= limit else f"is {_shown(value)}, expected at least {limit:g}"
    )


def _at_most(limit: float) -> Check:
    return lambda value: (
        None if _is_number(value) and value <= limit else f"is {_shown(value)}, expected at most {limit:g}"
    )


def _length(wanted: int) -> Check:
    return lambda value: (
        None
        if _is_sized(value) and len(value) == wanted
        else f"has {_length_of(value)}, expected a length of {wanted}"
    )


def _longer(limit: int) -> Check:
    return lambda value: (
        None
        if _is_sized(value) and len(value) > limit
        else f"has {_length_of(value)}, expected one above {limit}"
    )


_CHECKS: Mapping[str, Callable[[Any], Check]] = {
    "equals": _equals,
    "not_": _differs,
    "matches": _matches,
    "less_than": _less,
    "at_least": _at_least,
    "at_most": _at_most,
    "length": _length,
    "longer_than": _longer,
}


def _same(value: object, wanted: Scalar) -> bool:
    # In Python True == 1, in JSON it is not.
    return value == wanted and isinstance(value, bool) is isinstance(wanted, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_sized(value: object) -> bool:
    return isinstance(value, list | dict | str)


def _length_of(value: Any) -> str:
    return f"a length of {len(value)}" if _is_sized(value) else "no length"


def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    return shorten(json.dumps(value[:_VALUE_LIMIT] if isinstance(value, str) else value), _VALUE_LIMIT)
