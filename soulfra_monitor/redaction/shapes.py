"""What is secret by its own shape, whatever stands around it.

Every pattern is bounded, or starts only once per run of its characters: the time grows with the length of
the text and no faster. A test holds each to that. A pattern that can begin anywhere begins with its first
character and looks behind it afterwards: the engine finds that character many times faster.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from soulfra_monitor.redaction.patterns import Edit, Pattern, Places, replaced
from soulfra_monitor.redaction.randomness import (
    RANDOM_LENGTH,
    is_random,
    looks_like_a_password,
    looks_like_a_token,
)

MASK = "***"

TOKEN_LENGTH = 15
"""Characters of the shortest word that can be a token."""

Replace = str | Callable[[re.Match[str]], str]


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of secret. ``hints`` are lower-case texts without one of which it cannot be there."""

    name: str
    hints: tuple[str, ...]
    pattern: Pattern
    replacement: Replace = MASK

    def masked_at(self, places: Places, lowered: str) -> str:
        found_at = places.of([hint for hint in self.hints if hint in lowered])
        if places.are_dense(found_at):
            return self.pattern.sub(self.replacement, places.text)
        edits: list[Edit] = []
        done = 0
        for place in found_at:
            found = self.pattern.match(places.text, place) if place >= done else None
            if found:
                replace = self.replacement
                masked = found.expand(replace) if isinstance(replace, str) else replace(found)
                edits.append((place, found.end(), masked))
                done = found.end()
        return replaced(places.text, edits) if edits else places.text


class Shapes:
    """Kinds of secrets that are looked for together, in their order: those of which there are hints."""

    def __init__(self, *shapes: Shape) -> None:
        self._shapes = shapes
        self._hints = [(hint, at) for at, shape in enumerate(shapes) for hint in shape.hints or ("",)]

    def __iter__(self) -> Iterator[Shape]:
        return iter(self._shapes)

    def masked(self, text: str, lowered: str) -> str:
        """Return *text* with them masked; *lowered* are its words."""
        for shape in self._hinted(lowered):
            text = shape.pattern.sub(shape.replacement, text)
        return text

    def masked_at(self, places: Places, lowered: str) -> str:
        """Do the same where each begins with one of its hints: most of the text is passed over."""
        text = places.text
        for shape in self._hinted(lowered):
            masked = shape.masked_at(places, lowered)
            if masked != text:
                text, places = masked, Places(masked)
        return text

    def _hinted(self, lowered: str) -> list[Shape]:
        hinted = [at for hint, at in self._hints if hint in lowered]
        return [self._shapes[at] for at in dict.fromkeys(hinted)] if hinted else []


def _shape(name: str, hints: str, pattern: str, replacement: Replace = MASK) -> Shape:
    return Shape(name, tuple(hints.split()), Pattern(pattern), replacement)


def _token(hints: str, prefix: str, rest: str) -> Shape:
    literal = re.escape(prefix)
    return _shape(f"token {prefix}", hints, rf"{literal}(?<![A-Za-z0-9_-]{literal}){rest}")


def _luhn(digits: str) -> bool:
    doubled = (int(digit) * 2 for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(two - 9 if two > 9 else two for two in doubled)) % 10 == 0  # noqa: PLR2004


_CARD = Pattern(
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


_SCHEME = Pattern(r"[A-Za-z0-9+.-]{0,31}[A-Za-z]")
_WEB = frozenset({"http", "https", "ws", "wss"})
_USER = Pattern(r"[\w.-]{1,64}(?://)?(?![\w:/.])")
"""Both for the text before a match, read from its end: so the engine begins at one place only."""

_BEFORE_AUTH = Pattern(r"(?:^|[\"'`>]|\b(?i:commands?|redis-cli|args|hello \d):?)[ \t]{0,4}$")


def _before(found: re.Match[str], length: int) -> str:
    return found.string[max(found.start() - length, 0) : found.start()]


def _mask_login(found: re.Match[str]) -> str:
    """Mask up to the last @, which web addresses may have further on and others may not."""
    scheme = _SCHEME.match(_before(found, 32)[::-1])
    if scheme is None or scheme[0][::-1].lower() in _WEB:
        return found[0]
    return f"://{found[1]}:{MASK}@"


def _mask_bare_login(found: re.Match[str]) -> str:
    return f":{MASK}@" if _USER.match(_before(found, 67)[::-1]) else found[0]


def _mask_auth(found: re.Match[str]) -> str:
    before = _before(found, 24)
    return f"{found[1]}{MASK}" if _BEFORE_AUTH.search(before) else found[0]


_PUBLIC_BEFORE = Pattern(
    r"(?i)(?:sha-?\d{1,3}|md5|h1|id|hash|digest|checksum|etag|fingerprint|integrity|commit|version|cursor|kid"
    r"|trace|span)\\{0,4}[\"']?\s{0,2}[:=-]?\s{0,2}\\{0,4}[\"']?$"
)
_PUBLIC = ("AAAA", "_Z", "MII", "sha256-", "sha384-", "sha512-")
"""How public keys in SSH's form, mangled names of functions, certificates and hashes begin."""

_PATH = Pattern(r"(?<![\w+-])[a-z]{3,}(?![\w+-])")


def _mask_random(found: re.Match[str]) -> str:
    word = found[0]
    if word.startswith(_PUBLIC) or _PUBLIC_BEFORE.search(_before(found, 24)):
        return word
    if "/" not in word or not _PATH.search(word):
        return MASK if is_random(word) else word
    return "/".join(
        [MASK if len(part) >= RANDOM_LENGTH and is_random(part) else part for part in word.split("/")]
    )


_ODD = Pattern(r"[0-9!@#$%^&*]")
_UNIT = Pattern(
    r"(?i)\s{1,4}(?:char|letter|digit|byte|kb|mb|kib|mib|page|item|time|row|user|second|minute|hour|day|week"
    r"|month|year|of\b|m?s\b|h\b|or more|and more)"
)


def _mask_told(found: re.Match[str]) -> str:
    """Mask what a sentence says that a secret is."""
    value = found["value"].rstrip(".,:;!?")
    if found["token"]:
        is_secret = looks_like_a_token(value)
    else:
        is_secret = _ODD.search(value) is not None and not _UNIT.match(found.string, found.end())
    return found["lead"] + MASK if is_secret else found[0]


def _mask_named(found: re.Match[str]) -> str:
    """Mask what stands at once behind the word for it, and is not the next word of the sentence."""
    if _before(found, 11).lower().endswith("unexpected "):
        return found[0]
    looks_like_one = looks_like_a_token if found["token"] else looks_like_a_password
    return found["lead"] + MASK if looks_like_one(found["value"]) else found[0]


def _mask_pin(found: re.Match[str]) -> str:
    return found[0] if _UNIT.match(found.string, found.end()) else found["lead"] + MASK


_TOKENS = (
    ("gho_ ghp_ ghs_ ghr_ ghu_", "gh", r"[opsru]_[A-Za-z0-9]{16,}"),
    ("github_pat_", "github_pat_", r"\w{16,}"),
    ("glpat- glptt- glrt- gldt- glft- glcbt- glsoat- glagent-", "gl",
     r"(?:pat|ptt|rt|dt|ft|cbt|soat|agent)-[\w-]{16,}"),
    ("sk-", "sk-", r"(?=[A-Za-z_-]{0,64}[0-9])[\w-]{16,}"),
    ("sk_live_ sk_test_", "sk_", r"(?:live|test)_\w{10,}"),
    ("rk_live_ rk_test_", "rk_", r"(?:live|test)_\w{10,}"),
    ("whsec_", "whsec_", r"\w{16,}"),
    ("xox", "xox", r"[a-z]-[\w-]{10,}"),
    ("xapp-", "xapp-", r"[\w-]{10,}"),
    ("akia asia abia acca", "A", r"(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("aiza", "AIza", r"[\w-]{30,}"),
    ("ya29.", "ya29.", r"[\w.-]{16,}"),
    ("gocspx-", "GOCSPX-", r"[\w-]{16,}"),
    ("npm_", "npm_", r"[A-Za-z0-9]{30,}"),
    ("pypi-", "pypi-", r"[\w-]{16,}"),
    ("hf_", "hf_", r"[A-Za-z0-9]{16,}"),
    ("sg.", "SG.", r"[\w-]{16,}\.[\w-]{16,}"),
    ("sk", "SK", r"[0-9a-f]{32}(?![A-Za-z0-9])"),
    ("_v1_", "do", r"[opr]_v1_[0-9a-f]{16,}"),
    ("hvs. hvb. hvr.", "hv", r"[sbr]\.[\w-]{16,}"),
    ("dapi", "dapi", r"[0-9a-f]{32}"),
    ("shpat_ shpca_ shppa_ shpss_", "shp", r"(?:at|ca|pa|ss)_[0-9a-fA-F]{16,}"),
    ("sq0", "sq0", r"[a-z]{3}-[\w-]{16,}"),
    ("key-", "key-", r"[0-9a-f]{32}(?![A-Za-z0-9])"),
    ("nrak-", "NRAK-", r"[A-Z0-9]{16,}"),
    ("lin_api_", "lin_api_", r"\w{16,}"),
    ("dp.", "dp.", r"[a-z]{2,5}\.\w{16,}"),
    ("atatt3", "ATATT3", r"[\w=-]{16,}"),
    ("age-secret-key-", "AGE-SECRET-KEY-1", r"[0-9A-Z]{16,}"),
    ("glsa_ glc_", "gl", r"(?:sa|c)_\w{16,}"),
    ("dckr_pat_ dckr_oat_", "dckr_", r"[po]at_[\w-]{16,}"),
    ("pmak-", "PMAK-", r"[0-9a-f-]{16,}"),
    ("gsk_", "gsk_", r"[A-Za-z0-9]{20,}"),
    ("sntrys_ sntryu_", "sntry", r"[su]_[\w=+/-]{16,}"),
    ("xai-", "xai-", r"[A-Za-z0-9]{20,}"),
    ("sbp_ sb_secret_", "sb", r"(?:p_[0-9a-f]{16,}|_secret_[\w-]{16,})"),
    ("r8_", "r8_", r"[A-Za-z0-9]{20,}"),
    ("ntn_", "ntn_", r"[A-Za-z0-9]{20,}"),
    ("nfp_", "nfp_", r"[A-Za-z0-9]{20,}"),
    ("figd_", "figd_", r"[\w-]{16,}"),
    ("tskey-", "tskey-", r"[a-z]{2,12}-[\w-]{10,}"),
    ("pplx-", "pplx-", r"[A-Za-z0-9]{20,}"),
    ("pul-", "pul-", r"[0-9a-f]{32,}"),
    ("eaa", "EAA", r"[A-Za-z0-9]{40,}"),
)  # fmt: skip
"""What to look for, the prefix of who issues it, and what follows."""

ADDRESSES = Shapes(
    _shape(
        "private key",
        "-----begin",
        r"(?s)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?"
        r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    ),
    _shape(
        "password in an address of a database or queue",
        "://",
        r"://([^\s\"'<>:@/\\]{0,128}):[^\s\"'<>]{1,512}@",
        _mask_login,
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
        r":[^\s/?#:@\"'<>]{1,256}@(?=(?:tcp|unix)\(|[\w.-]{1,253}[:/])",
        _mask_bare_login,
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

TOKENS = Shapes(
    _shape("JSON web token", "eyj", r"(?<![\w.-])eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*){0,3}"),
    *(_token(hints, prefix, rest) for hints, prefix, rest in _TOKENS),
    _shape(
        "hash of a password",
        "$2 $argon2 $6$ $5$ $y$ $1$ $scrypt",
        r"\$(?:2[abxy]?|argon2\w{1,2}|[156y]|scrypt)\$[\w./$=,+*-]{20,}",
    ),
    _shape("token of a Telegram bot", ":aa", r"[0-9](?<![A-Za-z0-9_-].)[0-9]{7,9}:AA[\w-]{32,}"),
)
"""In words of at least TOKEN_LENGTH characters."""

PHRASES = Shapes(
    _shape(
        "bearer token",
        "bearer",
        r"([Bb](?<!\w.)(?i:earer)\s{1,4})(?=[A-Za-z._~+/-]{0,128}[0-9])[\w.~+/=-]{8,}",
        rf"\1{MASK}",
    ),
    _shape(
        "basic credentials",
        "basic",
        r"([Bb](?<!\w.)(?i:asic)\s{1,4})(?=[A-Za-z+/]{0,128}[0-9=]|[A-Za-z]{0,128}[a-z][A-Z])[\w+/=-]{8,}",
        rf"\1{MASK}",
    ),
    _shape(
        "user and password of a command",
        "-u --user --proxy-user",
        r"(-(?<![\w-]-)(?:u|U|-user|-proxy-user)[ =]{0,2}[\"']?[^\s:\"'-][^\s:\"']{0,127}):"
        r"(?!\d{1,6}\b)[^\s\"']{1,512}",
        rf"\1:{MASK}",
    ),
    _shape(
        "password in a statement of SQL",
        "identified password passwd",
        r"([IiPp](?<!\w.)(?i:dentified\s{1,4}(?:with\s{1,4}\w{1,64}\s{1,4})?(?:by|as)|assword|asswd)"
        r"(?:\s{1,4}|\s{0,4}\(\s{0,4}))"
        r"'(?:[^'\r\n]|''){1,512}'?",
        rf"\1'{MASK}'",
    ),
    _shape(
        "password of a Redis command",
        "auth",
        r"(AUTH[ \t]{1,4})(?!\*\*\*)[^\s\"'`]{1,512}(?:[ \t]{1,4}[^\s\"'`]{1,512})?",
        _mask_auth,
    ),
    _shape(
        "password in the configuration of Redis",
        "requirepass masterauth",
        r"([RrMm](?i:equirepass|asterauth)[ \t]{1,4})(?![=:]|\*\*\*)[^\s\"'`]{1,512}",
        rf"\1{MASK}",
    ),
    _shape(
        "password of a Redis command as a list",
        "auth",
        r"AUTH(?<=[\"']AUTH)([\"'],\s{0,4})b?[\"'][^\"'\n]{0,512}[\"'](?:,\s{0,4}b?[\"'][^\"'\n]{0,512}[\"'])?",
        rf"AUTH\1'{MASK}'",
    ),
    _shape(
        "secret told in a sentence",
        "passw passp passc pwd kennwort secret token jwt cookie credential session access api",
        r"(?<!\w)(?P<lead>(?i:(?P<token>token|jwt|cookie|credentials?|access[ _-]?key|session[ _-](?:id|key))"
        r"|passw(?:or)?d|passphrase|passwort|passcode|kennwort|pwd|secret|api[ _-]?key)"
        r"(?:\s{1,4}for\s{1,4}[^\s:]{1,64})?"
        r"(?:\s{1,4}(?i:(?:(?:is|was)\s{1,4})?(?:set|changed|reset|updated)\s{1,4}to|is|was|ist)"
        r"(?:\s{1,4}now)?:?|:)"
        r"\s{1,4}[\"'`]?)(?!\*\*\*)(?P<value>[^\s\"'`]{4,512})",
        _mask_told,
    ),
    _shape(
        "secret named in a sentence",
        "passw passp pwd kennwort secret token jwt cookie credential session access api auth private signing"
        " encryption license",
        r"(?<!\w)(?P<lead>(?i:(?P<token>token|jwt|cookie|credentials?|session(?:[ _-](?:id|key))?"
        r"|(?:api|access|secret|auth|private|signing|encryption|license)[ _-]?key|secret)"
        r"|passw(?:or)?d|passphrase|passwort|kennwort|pwd)\s{1,4}[\"'`]?)"
        r"(?P<value>[A-Za-z0-9!@#$^&+~][^\s\"'`<>(){}\[\],;|\\=:]{5,512})",
        _mask_named,
    ),
    _shape(
        "PIN in a sentence",
        "pin otp totp verification one-time 2fa mfa login",
        r"(?<!\w)(?P<lead>(?i:(?:pin|otp|totp)(?:[ ]code)?"
        r"|(?:verification|one-time|login|2fa|mfa)[ ](?:code|password|pin))"
        r"(?:\s{1,4}(?i:is|was))?:?\s{1,4}[\"'`]?)(?P<value>[0-9]{4,8})(?![\w-]|[.:]\w)",
        _mask_pin,
    ),
    _shape(
        "password behind the name of a user",
        "htpasswd rabbitmqctl",
        r"((?:htpasswd[ \t]{1,4}-\w{0,8}b\w{0,8}[ \t]{1,4}(?:[^\s\"']{1,256}[ \t]{1,4})?"
        r"|rabbitmqctl[ \t]{1,4}(?:add_user|change_password|authenticate_user)[ \t]{1,4})"
        r"[^\s\"']{1,128}[ \t]{1,4}[\"']?)[^\s\"']{1,512}",
        rf"\1{MASK}",
    ),
    _shape(
        "token of a login",
        "vault",
        r"(vault[ \t]{1,4}login[ \t]{1,4}[\"']?)(?![\s-])[^\s\"'=]{8,512}(?!=)",
        rf"\1{MASK}",
    ),
    _shape(
        "user and password of a command in its own form",
        "-u sqlplus lftp",
        r"(-(?<![\w-]-)U[ =]{0,2}[\"']?[^\s%:\"'-][^\s%:\"']{0,63}%"
        r"|sqlplus[ \t]{1,4}(?:-\w{1,8}[ \t]{1,4}){0,4}\w{1,64}/"
        r"|lftp[ \t]{1,4}-u[ \t]{1,4}[\"']?[^\s,\"']{1,64},)[^\s\"'@]{1,512}",
        rf"\1{MASK}",
    ),
    _shape(
        "key of two words",
        "api access secret private signing encryption auth account",
        r"([AaSsPpEe](?<!\w.)(?i:pi|ccess|ecret|rivate|igning|ncryption|uth|ccount)[ ](?i:key|token)"
        r"\s{0,64}+[:=]\s{0,64}+[\"']?)"
        r"(?!\*\*\*)[^\s\"',;]{4,512}",
        rf"\1{MASK}",
    ),
)
"""What words around it give away. Each begins with one of its hints."""

NUMBERS = Shapes(
    _shape("card number", "", r"[2-6]\d\d\d[ -]?\d\d\d\d(?:[ -]?\d){4,11}(?![\w-])", _mask_card),
    _shape(
        "bank account",
        "",
        r"[A-Z](?<![A-Za-z0-9].)[A-Z]\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])",
        _mask_iban,
    ),
)

RANDOM = _shape("random word", "", r"[A-Za-z0-9_](?<![\w+-].)[A-Za-z0-9_+/-]{29,}={0,2}", _mask_random)
"""What was issued by somebody we do not know: in words of at least RANDOM_LENGTH characters."""

SHAPES = (*ADDRESSES, *TOKENS, RANDOM, *PHRASES, *NUMBERS)
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


def mask_random(text: str) -> str:
    return RANDOM.pattern.sub(_mask_random, text)
