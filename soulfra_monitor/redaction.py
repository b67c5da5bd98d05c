"""Masks what looks like a secret in text and values, before they leave the process.

Two tables decide: the words that make a key secret, and the patterns that are secret by their own
shape. Every pattern is bounded or starts only once per run of its characters, so that the time
grows with the length of the text and no faster.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

MASK = "***"
DEPTH_LIMIT = 32
"""Deeper values are masked whole: nobody reads them, and a cycle ends here."""

SECRET_WORDS = frozenset(
    {
        "password",
        "passwd",
        "pwd",
        "passphrase",
        "passcode",
        "passwort",
        "secret",
        "secrets",
        "token",
        "jwt",
        "bearer",
        "authorization",
        "cookie",
        "cookies",
        "credential",
        "credentials",
        "apikey",
        "apitoken",
        "authtoken",
        "accesstoken",
        "refreshtoken",
        "accesskey",
        "secretkey",
        "privatekey",
        "clientsecret",
        "sessionid",
        "sessionkey",
        "csrf",
        "xsrf",
        "csrftoken",
        "otp",
        "pin",
        "cvv",
        "cvc",
        "ssn",
    }
)
"""A key is secret when one of its words is one of these."""

SECRET_PAIRS = frozenset(
    {
        ("api", "key"),
        ("access", "key"),
        ("secret", "key"),
        ("private", "key"),
        ("signing", "key"),
        ("encryption", "key"),
        ("master", "key"),
        ("auth", "key"),
        ("session", "id"),
        ("session", "key"),
        ("card", "number"),
    }
)
"""A key is secret when two of its words in a row are one of these."""

HARMLESS_ENDINGS = frozenset(
    {
        "count",
        "counts",
        "limit",
        "limits",
        "type",
        "name",
        "length",
        "size",
        "expiry",
        "expires",
        "expired",
        "ttl",
        "age",
        "usage",
        "used",
        "budget",
        "total",
        "file",
        "path",
        "url",
        "uri",
        "endpoint",
        "policy",
        "rate",
        "cost",
        "per",
        "valid",
        "invalid",
        "missing",
        "required",
        "error",
        "errors",
        "set",
    }
)
"""A key that ends so speaks about a secret and is none: ``token_count``, ``password_file``."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_KEY = re.compile(r"(?<!\w)(?P<option>--)?(?P<key>[A-Za-z_][\w.-]{0,127})(?![\w.-])")
_ASSIGNED = re.compile(r"\\{0,4}[\"']?\]?\s{0,4}(?:=>|[:=])\s{0,4}")
_OPTION_VALUE = re.compile(r"(?:=|[ \t]{1,4}(?!-))")
_REST_OF_LINE = frozenset({"authorization", "cookie"})
_HEADER_VALUE = re.compile(r"[^\r\n\"'\\]+")
_VALUE = re.compile(
    r"(?P<open>[bBrRuU]?\")(?:[^\"\\\r\n]|\\.)*(?P<close>\"?)"
    r"|(?P<open1>[bBrRuU]?')(?:[^'\\\r\n]|\\.)*(?P<close1>'?)"
    r"|(?P<open2>\\{1,4}[\"'])[^\"'\\\r\n]*(?P<close2>(?:\\{1,4}[\"'])?)"
    r"|[^\s,;&\"'<>(){}\[\]\\]+"
)
_PLAIN_VALUES = frozenset({"none", "null", "true", "false", "undefined", "nil"})

Replace = str | Callable[[re.Match[str]], str]

PATTERNS: tuple[tuple[str, re.Pattern[str], Replace], ...] = (
    (
        "private key",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
        MASK,
    ),
    (
        "password in an address",
        re.compile(r"://([^\s/?#:@\"'<>]{0,256}):[^\s/?#\"'<>]{1,512}@"),
        rf"://\1:{MASK}@",
    ),
    ("key as the user of an address", re.compile(r"://[^\s/?#:@\"'<>]{16,256}@"), f"://{MASK}@"),
    (
        "signature in an address",
        re.compile(r"(?i)([?&](?:sig|signature|x-amz-signature|code)=)[^\s&#\"'<>]{6,}"),
        rf"\1{MASK}",
    ),
    (
        "webhook address",
        re.compile(r"(?i)(hooks\.slack\.com/[a-z]{1,20}/|discord(?:app)?\.com/api/webhooks/)[\w/-]{8,}"),
        rf"\1{MASK}",
    ),
    (
        "bearer token",
        re.compile(r"(?i)(?<![\w])(bearer\s{1,4})(?=[A-Za-z._~+/-]{0,128}[0-9])[\w.~+/=-]{8,}"),
        rf"\1{MASK}",
    ),
    (
        "basic credentials",
        re.compile(
            r"(?<![\w])((?i:basic)\s{1,4})(?=[A-Za-z+/]{0,128}[0-9=]|[A-Za-z]{0,128}[a-z][A-Z])[\w+/=-]{8,}"
        ),
        rf"\1{MASK}",
    ),
    (
        "JSON web token",
        re.compile(r"(?<![\w.-])eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*){0,3}"),
        MASK,
    ),
    (
        "token with a known prefix",
        re.compile(
            r"(?<![A-Za-z0-9_-])(?:"
            r"gh[opsru]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
            r"|sk-(?=[A-Za-z_-]{0,64}[0-9])[\w-]{16,}|[sr]k_(?:live|test)_\w{10,}"
            r"|xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"
            r"|AIza[\w-]{30,}|ya29\.[\w.-]{16,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{16,}|hf_[A-Za-z0-9]{16,}"
            r"|SG\.[\w-]{16,}\.[\w-]{16,}|dop_v1_[0-9a-f]{16,}|hv[sb]\.[\w-]{16,}"
            r")"
        ),
        MASK,
    ),
)
"""What it is, how it looks, and what stands for it; applied in this order."""


def is_secret_key(key: str) -> bool:
    """Whether a value under *key* is to be masked."""
    words = [word.lower() for word in _WORD.findall(key[:128])]
    if not words or words[-1] in HARMLESS_ENDINGS:
        return False
    return not SECRET_WORDS.isdisjoint(words) or any(pair in SECRET_PAIRS for pair in pairwise(words))


def redact(text: str) -> str:
    """Return *text* with what looks like a secret replaced by ``***``. Doing it twice changes nothing."""
    for _, pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return _redact_assigned(text)


def redact_value(value: Any, depth: int = 0) -> Any:
    """Return a copy of a JSON-like value with secrets masked, by key and by their shape.

    Whatever is not JSON becomes text.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= DEPTH_LIMIT:
        return MASK
    if isinstance(value, Mapping):
        return {redact(str(key)): _redact_item(str(key), item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_value(item, depth + 1) for item in value]
    return redact(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


def redact_command(argv: Sequence[str]) -> str:
    """Return a command line for people, the value after an option such as ``--password`` masked."""
    return redact(" ".join(argv))


def _redact_item(key: str, value: Any, depth: int) -> Any:
    if value in (None, "", True, False) or not is_secret_key(key):
        return redact_value(value, depth)
    return MASK


def _redact_assigned(text: str) -> str:
    """Mask the values of secret keys: key=value, headers, JSON, options of a command line."""
    kept: list[str] = []
    done = 0
    for found in _KEY.finditer(text):
        if found.start() < done or not is_secret_key(found["key"]):
            continue
        start = _value_start(text, found)
        value = _value_at(text, start, found["key"]) if start is not None else None
        if value is not None and start is not None:
            kept += (text[done:start], value[0])
            done = value[1]
    return "".join((*kept, text[done:]))


def _value_start(text: str, found: re.Match[str]) -> int | None:
    separator = _ASSIGNED.match(text, found.end())
    if separator is None and found["option"] == "--":
        separator = _OPTION_VALUE.match(text, found.end())
    return separator.end() if separator else None


def _value_at(text: str, start: int, key: str) -> tuple[str, int] | None:
    """Return what stands for the value that begins at *start*, and where it ends."""
    if not _REST_OF_LINE.isdisjoint(word.lower() for word in _WORD.findall(key)):
        line = _HEADER_VALUE.match(text, start)
        if line is not None:
            return MASK, line.end()
    value = _VALUE.match(text, start)
    if value is None or value[0].lower() in _PLAIN_VALUES:
        return None
    opened = value["open"] or value["open1"] or value["open2"] or ""
    closed = value["close"] or value["close1"] or value["close2"] or ""
    if opened and len(value[0]) == len(opened) + len(closed):
        return None
    return f"{opened}{MASK}{closed}", value.end()


def harmless(text: str) -> str:
    """Replace what would steer a terminal: messages and labels come from strangers."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)
