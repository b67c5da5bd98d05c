"""Which keys have a secret for a value."""

from functools import lru_cache
from itertools import pairwise

from soulfra_monitor.redaction.patterns import Pattern, Places

KEY_LENGTH = 128

SECRET_WORDS = frozenset(
    """
    password passwd pwd passphrase passcode passwort kennwort contrasena senha secret secrets token jwt bearer
    authorization cookie cookies credential credentials creds apikey apikeys apitoken authtoken accesstoken
    refreshtoken accesskey secretkey privatekey clientsecret sessionid sessionkey csrf xsrf csrftoken otp totp
    pin cvv cvc ssn iban requirepass masterauth pgpass pw pword passin passout
    """.split()  # noqa: SIM905 - one a line would be seven times as long
)
"""A key is secret when one of its words is one of these."""

SECRET_PAIRS = frozenset(
    {
        ("api", "key"),
        ("api", "keys"),
        ("access", "key"),
        ("access", "tokens"),
        ("account", "key"),
        ("auth", "key"),
        ("auth", "tokens"),
        ("card", "number"),
        ("connect", "sid"),
        ("encryption", "key"),
        ("host", "key"),
        ("license", "key"),
        ("master", "key"),
        ("pass", "phrase"),
        ("private", "key"),
        ("recovery", "code"),
        ("refresh", "tokens"),
        ("secret", "key"),
        ("session", "id"),
        ("session", "key"),
        ("shared", "key"),
        ("signing", "key"),
        ("two", "factor"),
    }
)
"""A key is secret when two of its words in a row are one of these."""

HARMLESS_ENDINGS = frozenset(
    """
    count counts limit limits type name length size expiry expires expired ttl age usage used budget total
    file path url uri endpoint policy rate cost per valid invalid missing required error errors set
    """.split()  # noqa: SIM905 - one a line would be seven times as long
)
"""A key that ends so speaks about a secret and is none: ``token_count``, ``password_file``."""

WEAK_WORDS = frozenset({"auth", "pass", "session", "sid", "sig", "signature", "pat"})
"""Alone these name a secret in data; in a sentence they mean many things: ``session: closed``."""

NO_PASSWORDS = frozenset(
    """
    all backward band boarding build by com compile did final first forward high last low multi next one
    optimizer over previous render second season single test tests third two under
    """.split()  # noqa: SIM905 - one a line would be seven times as long
)
"""Before ``pass`` these make something else of it: ``first_pass``; ``rabbitmq_pass`` is a password."""

NAME_KEYS = frozenset(
    {"name", "key", "header", "field", "column", "parameter", "param", "option", "variable", "env"}
)
"""In objects and notations that have names and values apart, what the name stands under: Kubernetes, HAR."""

VALUE_KEYS = frozenset(
    {"value", "val", "values", "content", "data", "old", "new", "before", "after", "default"}
)
"""And what the value stands under."""

_WORD = Pattern(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_STEM = Pattern(
    r"passw(?:or)?d|passphrase|passcode|passwort|secret(?!ar)|api(?:key(?!b)|token)"
    r"|(?:access|private|account|signing|encryption|shared)key|token(?![si])|(?:access|refresh|auth|api)tokens"
    r"|(?:db|pg|sql|user|admin|root|smtp|mail|redis|login|ftp|auth|store|key)pass$|credential|authorization|setcookie"
    r"|session(?:id|key)|csrf|xsrf"
)

KEY_HINTS = (
    "pass", "pw", "secret", "senha", "kennwort", "contrasena", "token", "key", "jwt", "auth", "cook", "cred",
    "srf", "bearer", "session", "signature", "card", "factor", "iban", "cvv", "cvc", "recovery",
)  # fmt: skip
"""In lower case: without one of these, or of SHORT_HINT, a key is no secret."""

_HINTS = (
    *KEY_HINTS, "basic", "--user", "-u", "mysql", "redis-cli", "login", "identified", "mongo", "sqlcmd",
    "ldap", "plink", "verification", "one-time", "2fa", "mfa", "psql", "pg_", "ipmitool", "rar ", "openssl",
    "sqlplus", "htpasswd", "rabbitmqctl", "vault", "lftp", "cqlsh", "mosquitto", "zip", "failing row", "7z",
)  # fmt: skip
SHORT_HINT = Pattern(r"[OoPpSsCc](?:tp|TP|in|IN|sn|SN|id|ID|ig|IG|at|AT)(?![a-z])")


def may_have_keys(text: str, lowered: str) -> bool:
    """Say quickly whether *text* can have a secret key, or a phrase that leads to a secret."""
    for hint in _HINTS:
        if hint in lowered:
            return True
    return SHORT_HINT.search(text) is not None


def key_places(places: Places, lowered: str) -> list[int]:
    """Return where something stands without which a key is no secret, in their order."""
    found = places.of([hint for hint in KEY_HINTS if hint in lowered])
    short = [one.start() for one in SHORT_HINT.finditer(places.text)]
    return sorted(found + short) if short else found


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """Whether a value under *key* is to be masked: by its words, or by a part of it without separators."""
    words = words_of(key)
    if not words or words[-1] in HARMLESS_ENDINGS:
        return False
    if not SECRET_WORDS.isdisjoint(words) or any(pair in SECRET_PAIRS for pair in pairwise(words)):
        return True
    if words[-1] == "pass" and len(words) > 1:
        return words[-2] not in NO_PASSWORDS
    return _STEM.search("".join(words)) is not None


@lru_cache(maxsize=4096)
def is_weak_key(key: str) -> bool:
    """Whether *key* names a secret if it stands in data, and something else in a sentence."""
    words = words_of(key)
    return bool(words) and words[-1] in WEAK_WORDS


def words_of(key: str) -> list[str]:
    """Split a name into its words, in lower case: ``dbPassword``, ``X-Api-Key``."""
    return [word.lower() for word in _WORD.findall(key[:KEY_LENGTH])]
