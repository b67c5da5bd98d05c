"""What redaction masks, what it leaves, and that it does so in linear time."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulfra_monitor.events import Event, Kind, Raised
from soulfra_monitor.redaction import (
    MASK,
    is_secret_key,
    redact,
    redact_command,
    redact_event,
    redact_value,
)
from soulfra_monitor.redaction.patterns import Pattern

# Built from pieces, so that no scanner takes them for real ones.
GITHUB = "gh" + "p_" + "a1B2" * 9
OPENAI = "s" + "k-" + "proj-" + "a1B2" * 6
SLACK = "xo" + "xb-" + "1234567890-abcdef"
AWS = "AK" + "IA" + "ABCDEFGHIJ234567"
JWT = "ey" + "JhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxIn0" + ".c2lnbmF0dXJlLXNpZw"
PEM = "-----BEGIN RSA PRIV" + "ATE KEY-----\nMIIabc\nMIIdef\n-----END RSA PRIV" + "ATE KEY-----"

SECRET = "hunter2x"


@pytest.mark.parametrize(
    "text",
    [
        f"password={SECRET} user=bob",
        f'{{"password": "{SECRET}", "a": 1}}',
        f'{{"password": "quote\\"{SECRET}", "a": 1}}',
        f'"{{\\"api_key\\": \\"{SECRET}\\"}}"',
        f"{{'apiKey': 'x {SECRET} y'}}",
        f"Authorization: Bearer {SECRET}",
        f"Proxy-Authorization: Digest username=bob, response={SECRET}",
        f"Cookie: a=b; session={SECRET}",
        f"set-cookie: session={SECRET}; Path=/",
        f'curl -H "X-Api-Key: {SECRET}" http://host/',
        f"redis://:{SECRET}@host:6379/0",
        f"postgres://bob:p@{SECRET}@host/db",
        f"GET /hook?a=1&access_token={SECRET}&b=2",
        f"https://bucket/key?X-Amz-Signature={SECRET}",
        f"program --db-password {SECRET} --verbose",
        f"program --token={SECRET}",
        f"os.environ['DB_PASSWORD'] = '{SECRET}'",
        f'config[0].client_secret = "{SECRET}',
        f"---secret: {SECRET}",
        f"SECRET_KEY=b'{SECRET}'",
        f'msg="the passwd={SECRET} was wrong"',
        f"https://hooks.slack.com/services/T000/B000/{SECRET}",
        f"got Bearer {SECRET}7.abc from client",
        "got Basic " + "Ym9iOmh1bnRlcjI=" + SECRET,
    ],
)
def test_a_secret_is_masked_wherever_it_is_written(text: str) -> None:
    clean = redact(text)

    assert SECRET not in clean
    assert MASK in clean


@pytest.mark.parametrize("secret", [GITHUB, OPENAI, SLACK, AWS, JWT, PEM])
def test_a_token_is_known_by_its_shape(secret: str) -> None:
    assert redact(f"before {secret} after") == f"before {MASK} after"


def test_a_private_key_without_its_end_is_masked_to_the_end() -> None:
    assert redact("x " + PEM.partition("-----END")[0]) == f"x {MASK}"


@pytest.mark.parametrize(
    "line",
    [
        '127.0.0.1 - - [24/Nov/2026:10:00:00] "GET /health HTTP/1.1" 200 17',
        "Traceback (most recent call last):",
        '  File "/srv/app/tokens.py", line 12, in parse_token',
        "max_tokens=512 prompt_tokens: 300 token_count=5",
        "Basic authentication failed for bob",
        "Bearer authentication is required",
        "listening on http://127.0.0.1:8080/ (pid 123)",
        "ValueError: password is missing",
        "password: None, secret: null, token: ''",
        "the token bucket is empty; retry after 3 s",
        "connect to redis://cache:6379/0 failed: timed out",
        "2026-11-24 10:00:00 INFO scikit sk-learn-estimators-preprocessing loaded",
        "mail to bob@example.org and https://example.org/@user",
        "author: Bob; key: value; monkey=banana; keyboard=de",
    ],
)
def test_an_ordinary_line_stays_as_it_is(line: str) -> None:
    assert redact(line) == line


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("password", True),
        ("dbPassword", True),
        ("X-Api-Key", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("refreshToken", True),
        ("set-cookie", True),
        ("max_tokens", False),
        ("token_count", False),
        ("password_file", False),
        ("passenger", False),
        ("key", False),
        ("author", False),
        ("", False),
    ],
)
def test_words_make_a_key_secret(key: str, secret: bool) -> None:
    assert is_secret_key(key) is secret


def test_a_value_is_masked_by_its_key_at_any_depth() -> None:
    value = {"a": [{"password": {"old": SECRET}}], "token": 42, "secret": None, "ok": f"pwd={SECRET}"}

    assert redact_value(value) == {
        "a": [{"password": MASK}],
        "token": MASK,
        "secret": None,
        "ok": f"pwd={MASK}",
    }


def test_a_value_that_contains_itself_is_cut() -> None:
    value: dict[str, object] = {}
    value["self"] = value

    assert MASK in json.dumps(redact_value(value))


def test_the_value_of_an_option_is_masked_in_a_command() -> None:
    assert redact_command(["app", "--password", SECRET, "-v"]) == f"app --password {MASK} -v"


_PIECES = st.sampled_from(
    [
        "password",
        "=",
        ":",
        '"',
        "'",
        "\\",
        " ",
        "\n",
        "token",
        "--",
        "://",
        "@",
        "Bearer ",
        "a",
        "7",
        ",",
        "{",
        MASK,
    ]
)
_TEXTS = st.one_of(st.text(), st.lists(_PIECES, max_size=30).map("".join))


@given(_TEXTS)
def test_redacting_twice_changes_nothing(text: str) -> None:
    once = redact(text)

    assert redact(once) == once


_SECRETS = st.text("abcdefghijklmnopqrstuvwxyz0123456789+/=_-.!$%^*", min_size=9).map(
    lambda text: f"Zq{text}"
)


@given(
    secret=_SECRETS, before=st.text(max_size=20), key=st.sampled_from(["password", "apiKey", "x-auth-token"])
)
def test_a_secret_under_a_secret_key_in_json_never_stays(secret: str, before: str, key: str) -> None:
    assert secret not in redact(json.dumps({"note": before, key: secret}))
    assert secret not in redact(f"key {key}={secret}")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | _TEXTS,
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_a_redacted_value_is_json(value: object) -> None:
    json.dumps(redact_value(value))


PIECES = (
    "a",
    "eyJ",
    "password=",
    '"',
    "\\",
    "-----BEGIN PRIV" + "ATE KEY-----",
    "://",
    "://a:",
    "bearer ",
    "sk-",
)
MORE_PIECES = ("-", 'password="', "a:b@", " ", "--token ", "SG.", "a.", "A", "=", "token:")


@pytest.mark.parametrize("piece", PIECES + MORE_PIECES)
def test_time_grows_with_the_length_and_no_faster(piece: str) -> None:
    text = piece * (200_000 // len(piece))

    began = time.process_time()
    redact(text)

    assert time.process_time() - began < 2.0  # 10 times what it takes; a quadratic pattern takes minutes


def test_threads_that_need_a_pattern_first_at_once_all_get_it() -> None:
    barrier = Barrier(8)

    def find(pattern: Pattern) -> str:
        barrier.wait()
        return pattern.sub("x", "a1 b2")

    with ThreadPoolExecutor(8) as threads:
        for number in range(50):
            pattern = Pattern(rf"[a-b](?:[0-9]|{number}z)")
            assert set(threads.map(find, [pattern] * 8)) == {"x x"}


def test_a_context_that_is_too_much_is_an_object_all_the_same() -> None:
    event = Event(
        id="0" * 32,
        at=1.0,
        kind=Kind.LOGGED,
        service="shop",
        message="x",
        raised=tuple(Raised(type="E", message="y" * 16_000) for _ in range(12)),
        context={"order": "12"},
        system={"rss": 1},
    )

    clean = redact_event(event)

    assert isinstance(clean.context, dict)
    assert isinstance(clean.system, dict)
