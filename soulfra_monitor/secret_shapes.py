"""What is secret by its own shape, whatever stands around it.

Every pattern is bounded, or starts only once per run of its characters: the time grows with the length of
the text and no faster. A test holds each to that. A pattern that can begin anywhere begins with its first
character and looks behind it afterwards: the engine finds that character many times faster.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

MASK = "***"

TOKEN_LENGTH = 15
"""Characters of the shortest word that can be a token."""

Replace = str | Callable[[re.Match[str]], str]


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of secret. ``hints`` are lower-case texts without one of which it cannot be there."""

    name: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: Replace = MASK


def _shape(name: str, hints: str, pattern: str, replacement: Replace = MASK) -> Shape:
    return Shape(name, tuple(hints.split()), re.compile(pattern), replacement)


def _luhn(digits: str) -> bool:
    doubled = (int(digit) * 2 for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(two - 9 if two > 9 else two for two in doubled)) % 10 == 0  # noqa: PLR2004


_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|35\d{14}|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}"
)
"""Numbers as the big schemes give them out, by their first digits and their length."""


def _mask_card(found: re.Match[str]) -> str:
    digits = found[0].replace(" ", "").replace("-", "")
    before = found.string[max(found.start() - 1, 0) : found.start()]
    if before.isalnum() or before in {"_", ".", "-"}:
        return found[0]
    return MASK if digits.isascii() and _CARD.fullmatch(digits) and _luhn(digits) else found[0]


def _mask_iban(found: re.Match[str]) -> str:
    text = found[0].replace(" ", "")
    moved = text[4:] + text[:4]
    number = int("".join(str(int(letter, 36)) for letter in moved))
    return MASK if number % 97 == 1 else found[0]


_TOKENS = (
    ("gho_ ghp_ ghs_ ghr_ ghu_", r"gh[opsru]_[A-Za-z0-9]{16,}"),
    ("github_pat_", r"github_pat_\w{16,}"),
    ("glpat- glptt- glrt- gldt- glft- glcbt- glsoat- glagent-",
     r"gl(?:pat|ptt|rt|dt|ft|cbt|soat|agent)-[\w-]{16,}"),
    ("sk-", r"sk-(?=[A-Za-z_-]{0,64}[0-9])[\w-]{16,}"),
    ("_live_ _test_", r"[srp]k_(?:live|test)_\w{10,}"),
    ("whsec_", r"whsec_\w{16,}"),
    ("xox xapp-", r"(?:xox[a-z]-|xapp-)[\w-]{10,}"),
    ("akia asia abia acca", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("aiza", r"AIza[\w-]{30,}"),
    ("ya29.", r"ya29\.[\w.-]{16,}"),
    ("gocspx-", r"GOCSPX-[\w-]{16,}"),
    ("npm_", r"npm_[A-Za-z0-9]{30,}"),
    ("pypi-", r"pypi-[\w-]{16,}"),
    ("hf_", r"hf_[A-Za-z0-9]{16,}"),
    ("sg.", r"SG\.[\w-]{16,}\.[\w-]{16,}"),
    ("sk", r"SK[0-9a-f]{32}(?![A-Za-z0-9])"),
    ("do", r"do[opr]_v1_[0-9a-f]{16,}"),
    ("hvs. hvb. hvr.", r"hv[sbr]\.[\w-]{16,}"),
    ("dapi", r"dapi[0-9a-f]{32}"),
    ("shpat_ shpca_ shppa_ shpss_", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{16,}"),
    ("sq0", r"sq0[a-z]{3}-[\w-]{16,}"),
    ("key-", r"key-[0-9a-f]{32}(?![A-Za-z0-9])"),
    ("nrak-", r"NRAK-[A-Z0-9]{16,}"),
    ("lin_api_", r"lin_api_\w{16,}"),
    ("dp.", r"dp\.[a-z]{2,5}\.\w{16,}"),
    ("atatt3", r"ATATT3[\w=-]{16,}"),
    ("age-secret-key-", r"AGE-SECRET-KEY-1[0-9A-Z]{16,}"),
    (":aa", r"[0-9]{8,10}:AA[\w-]{32,}"),
)  # fmt: skip
"""Tokens with the prefix of who issues them; the last are Telegram's bots."""

ADDRESSES: tuple[Shape, ...] = (
    _shape(
        "private key",
        "-----begin",
        r"(?s)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?"
        r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    ),
    _shape(
        "password in an address of a database or queue",
        "://",
        r"(?i)(?<![\w+.-])((?:rediss?|valkeys?|(?:postgres(?:ql)?|mysql|mariadb)(?:\+\w{1,16})?"
        r"|amqps?|mongodb(?:\+srv)?|smtps?|ldaps?|s?ftp|ssh|clickhouse|nats|mqtts?|kafka|oracle(?:\+\w{1,16})?"
        r"|mssql(?:\+\w{1,16})?)://[^\s\"'<>:@/\\]{0,128}):[^\s\"'<>]{1,512}@",
        rf"\1:{MASK}@",
    ),
    _shape(
        "password in an address",
        "://",
        r"://([^\s/?#:@\"'<>]{0,256}):[^\s/?#\"'<>]{1,512}@",
        rf"://\1:{MASK}@",
    ),
    _shape(
        "password in an address without its scheme",
        "@",
        r"((?<![\w:/.])(?://)?[\w.-]{1,64}):[^\s/?#:@\"'<>]{1,256}@(?=(?:tcp|unix)\(|[\w.-]{1,253}[:/])",
        rf"\1:{MASK}@",
    ),
    _shape("key as the user of an address", "://", r"://[^\s/?#:@\"'<>]{16,256}@", f"://{MASK}@"),
    _shape(
        "signature in an address",
        "? & ;",
        r"(?i)([?&;](?:sig|signature|x-amz-signature|x-goog-signature|code|key|api_?key)=)[^\s&;#\"'<>]{6,}",
        rf"\1{MASK}",
    ),
    _shape(
        "webhook address",
        "hooks. webhooks/",
        r"(?i)(hooks\.slack\.com/[a-z]{1,20}/|discord(?:app)?\.com/api/webhooks/|\.webhook\.office\.com/\w{1,20}/)"
        r"[\w@/-]{8,}",
        rf"\1{MASK}",
    ),
)
"""What an address gives away, and keys in their own armour."""

TOKENS: tuple[Shape, ...] = (
    _shape("JSON web token", "eyj", r"(?<![\w.-])eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*){0,3}"),
    *(
        Shape(
            "token with a known prefix", tuple(hints.split()), re.compile(rf"(?<![A-Za-z0-9_-])(?:{pattern})")
        )
        for hints, pattern in _TOKENS
    ),
)
"""In words of at least TOKEN_LENGTH characters."""

PHRASES: tuple[Shape, ...] = (
    _shape(
        "bearer token",
        "bearer",
        r"(?i)(?<![\w])(bearer\s{1,4})(?=[A-Za-z._~+/-]{0,128}[0-9])[\w.~+/=-]{8,}",
        rf"\1{MASK}",
    ),
    _shape(
        "basic credentials",
        "basic",
        r"(?<![\w])((?i:basic)\s{1,4})(?=[A-Za-z+/]{0,128}[0-9=]|[A-Za-z]{0,128}[a-z][A-Z])[\w+/=-]{8,}",
        rf"\1{MASK}",
    ),
    _shape(
        "user and password of a command",
        "-u --user --proxy-user",
        r"(?<![\w-])((?:-u|-U|--user|--proxy-user)[ =]{0,2}[\"']?[^\s:\"'-][^\s:\"']{0,127}):"
        r"(?!\d{1,6}\b)[^\s\"']{1,512}",
        rf"\1:{MASK}",
    ),
    _shape(
        "password option of a command",
        "mysql sshpass redis-cli login",
        r"((?:\bmysql\w{0,10}\b[^\n|]{0,200}?\s-p(?=\S)|\bsshpass\s{1,4}-p\s{0,4}"
        r"|\bredis-cli\b[^\n|]{0,200}?\s-a\s{1,4}"
        r"|\b(?:docker|podman|helm|az) [a-z ]{0,40}login\b[^\n|]{0,200}?\s-p\s{1,4})[\"']?)"
        r"(?!\*\*\*)[^\s\"']{1,512}",
        rf"\1{MASK}",
    ),
    _shape(
        "password in a statement of SQL",
        "identified password passwd",
        r"(?i)(\b(?:identified\s{1,4}(?:with\s{1,4}\w{1,64}\s{1,4})?(?:by|as)|password|passwd)"
        r"(?:\s{1,4}|\s{0,4}\(\s{0,4}))"
        r"'(?:[^'\r\n]|''){1,512}'?",
        rf"\1'{MASK}'",
    ),
    _shape(
        "password of a Redis command",
        "auth requirepass masterauth",
        r"((?:^|[\"'`>]|\b(?i:commands?|redis-cli|args|hello \d):?)[ \t]{0,4}"
        r"(?:AUTH|(?i:config set (?:requirepass|masterauth)))"
        r"[ \t]{1,4})(?!\*\*\*)[^\s\"'`]{1,512}(?:[ \t]{1,4}[^\s\"'`]{1,512})?",
        rf"\1{MASK}",
    ),
    _shape(
        "password of a Redis command as a list",
        "auth",
        r"(b?[\"']AUTH[\"'],\s{0,4})b?[\"'][^\"'\n]{0,512}[\"'](?:,\s{0,4}b?[\"'][^\"'\n]{0,512}[\"'])?",
        rf"\1'{MASK}'",
    ),
    _shape(
        "password told in a sentence",
        "password passwd passphrase secret key",
        r"(?i)(\b(?:password|passwd|passphrase|secret|api[ _-]?key)"
        r"\s{1,4}(?:(?:is|was)|for [^\s:]{1,64}:)\s{1,4}[\"']?)"
        r"(?!\*\*\*)(?=[^\s\"']{0,64}[0-9!@#$%^&*])[^\s\"']{4,512}",
        rf"\1{MASK}",
    ),
    _shape(
        "key of two words",
        "key token",
        r"(?i)(\b(?:api|access|secret|private|signing|encryption|auth|account)[ ](?:key|token)"
        r"\s{0,4}[:=]\s{0,4}[\"']?)"
        r"(?!\*\*\*)[^\s\"',;]{4,512}",
        rf"\1{MASK}",
    ),
)
"""What words around it give away."""

NUMBERS: tuple[Shape, ...] = (
    _shape("card number", "", r"[2-6]\d\d\d[ -]?\d\d\d\d(?:[ -]?\d){4,11}(?![\w-])", _mask_card),
    _shape(
        "bank account",
        "",
        r"[A-Z](?<![A-Za-z0-9].)[A-Z]\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])",
        _mask_iban,
    ),
)

SHAPES = (*ADDRESSES, *TOKENS, *PHRASES, *NUMBERS)
"""All of them, in the order in which they are applied."""


EMAIL = _shape(
    "e-mail address",
    "@",
    r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,63}(?![\w-])",
    f"{MASK}@{MASK}",
)
HOME = _shape(
    "home folder",
    "/home/ /users/ \\users\\",
    r"(/home/|/Users/|[A-Za-z]:\\{1,2}Users\\{1,2})[^/\\\s\"'<>:]{1,64}",
    rf"\1{MASK}",
)
