# ruff: noqa: E501 - samples of logs and secrets are read best on one line
"""Secrets of every rule in every carrier never come out, ordinary text stays, and the time stays linear."""

import base64
import dataclasses
import json
import logging
import random
import string
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulfra_monitor.events import MESSAGE_LIMIT, TEXT_LIMIT, Event, Frame, Kind, Raised, Relation
from soulfra_monitor.redaction import (
    CUT,
    DEPTH_LIMIT,
    EVENT_LENGTH_LIMIT,
    FAILED,
    FAILURES,
    LOOKED_AT,
    MASK,
    WIDTH_LIMIT,
    Personal,
    redact,
    redact_command,
    redact_event,
    redact_value,
)
from soulfra_monitor.redaction.keys import (
    SECRET_PAIRS,
    SECRET_WORDS,
    WEAK_WORDS,
    is_secret_key,
    key_places,
    may_have_keys,
)
from soulfra_monitor.redaction.patterns import Places
from soulfra_monitor.redaction.shapes import EMAIL, HOME, PHRASES, SHAPES, Shape

LETTERS = string.ascii_letters + string.digits
HEX = string.digits + "abcdef"


def _some(length: int, letters: str = LETTERS) -> str:
    """Draw a text that has a digit, so that it looks like a token."""
    return (
        "".join(_CHANCE.choice(letters) for _ in range(length - 2))
        + "7x"[: 2 if "x" in letters else 1]
        + ("" if "x" in letters else _CHANCE.choice(letters))
    )


_CHANCE = random.Random(4)  # the same corpus each time


def _card() -> str:
    digits = "4" + "".join(_CHANCE.choice(string.digits) for _ in range(14))
    last = next(last for last in string.digits if _is_luhn(digits + last))
    return digits + last


def _is_luhn(digits: str) -> bool:
    total = 0
    for at, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + at % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _iban() -> str:
    account = "".join(_CHANCE.choice(string.digits) for _ in range(18))
    check = 98 - int(account + "131400") % 97  # DE00
    return f"DE{check:02}{account}"


# Each gives a secret that is known by itself. In pieces, so that no scanner takes them for real ones.
BY_SHAPE: dict[str, Callable[[], str]] = {
    "private key": lambda: (
        "-----BEGIN RSA PRIV" + f"ATE KEY-----\n{_some(64)}\n-----END RSA PRIV" + "ATE KEY-----"
    ),
    "cut private key": lambda: "-----BEGIN PRIV" + f"ATE KEY-----\n{_some(64)}",
    "jwt": lambda: "ey" + f"J{_some(20)}.{_some(30)}.{_some(40)}",
    "aws": lambda: "AK" + "IA" + _some(16, string.ascii_uppercase + "234567"),
    "github": lambda: "gh" + "p_" + _some(36),
    "github fine-grained": lambda: "github" + "_pat_" + _some(60),
    "gitlab": lambda: "gl" + "pat-" + _some(20),
    "slack": lambda: "xo" + "xb-" + _some(30),
    "stripe": lambda: "sk" + "_live_" + _some(24),
    "stripe webhook": lambda: "wh" + "sec_" + _some(32),
    "openai": lambda: "s" + "k-proj-" + _some(40),
    "anthropic": lambda: "s" + "k-ant-api03-" + _some(40),
    "google": lambda: "AI" + "za" + _some(35),
    "google oauth": lambda: "GO" + "CSPX-" + _some(28),
    "npm": lambda: "np" + "m_" + _some(36),
    "pypi": lambda: "py" + "pi-" + _some(60),
    "sendgrid": lambda: "S" + "G." + f"{_some(22)}.{_some(43)}",
    "twilio": lambda: "S" + "K" + _some(32, HEX),
    "telegram": lambda: f"{_CHANCE.randrange(10**8, 10**9)}:A" + "A" + _some(33),
    "hugging face": lambda: "h" + "f_" + _some(34),
    "digitalocean": lambda: "do" + "p_v1_" + _some(64, HEX),
    "vault": lambda: "hv" + "s." + _some(24),
    "databricks": lambda: "da" + "pi" + _some(32, HEX),
    "shopify": lambda: "shp" + "at_" + _some(32, HEX),
    "mailgun": lambda: "ke" + "y-" + _some(32, HEX),
    "stripe restricted": lambda: "rk" + "_live_" + _some(24),
    "slack app": lambda: "xa" + "pp-1-" + _some(30),
    "google access": lambda: "ya" + "29." + _some(40),
    "square": lambda: "sq" + "0csp-" + _some(40),
    "new relic": lambda: "NR" + "AK-" + _some(27, string.ascii_uppercase + string.digits),
    "linear": lambda: "lin" + "_api_" + _some(40),
    "doppler": lambda: "d" + "p.st." + _some(40),
    "atlassian": lambda: "ATA" + "TT3" + _some(40),
    "age": lambda: "AGE-SEC" + "RET-KEY-1" + _some(58, string.ascii_uppercase + string.digits),
    "grafana": lambda: "gl" + "sa_" + f"{_some(32)}_{_some(8, HEX)}",
    "docker": lambda: "dc" + "kr_pat_" + _some(27),
    "postman": lambda: "PM" + "AK-" + f"{_some(24, HEX)}-{_some(34, HEX)}",
    "groq": lambda: "gs" + "k_" + _some(52),
    "sentry": lambda: "sn" + "trys_" + _some(60),
    "xai": lambda: "x" + "ai-" + _some(80),
    "supabase": lambda: "sb" + "p_" + _some(40, HEX),
    "replicate": lambda: "r" + "8_" + _some(37),
    "notion": lambda: "nt" + "n_" + _some(46),
    "netlify": lambda: "nf" + "p_" + _some(36),
    "figma": lambda: "fi" + "gd_" + _some(40),
    "tailscale": lambda: "ts" + "key-auth-" + _some(30),
    "perplexity": lambda: "pp" + "lx-" + _some(48),
    "pulumi": lambda: "pu" + "l-" + _some(40, HEX),
    "facebook": lambda: "EA" + "AC" + _some(100),
    "hash of a password": lambda: "$2" + "b$12$" + _some(53),
    "bearer": lambda: f"Bearer {_some(24)}",
    "basic": lambda: "Basic " + base64.b64encode(f"bob:{_some(20)}".encode()).decode(),
    "password in an address": lambda: f"redis://:{_some(12)}@cache:6379/0",
    "odd password in an address": lambda: f"postgresql://bob:p/{_some(6)}@{_some(6)}#x@db:5432/shop",
    "user in an address": lambda: f"https://{_some(32)}@sentry.example/1",
    "signed address": lambda: f"https://files.example/x?X-Amz-Signature={_some(64, HEX)}",
    "webhook": lambda: f"https://hooks.slack.com/services/T0/B0/{_some(24)}",
    "key in a query": lambda: f"https://a.example/x?a=1;access_token={_some(20)};b=2",
    "card": _card,
    "iban": _iban,
    "percent-encoded": lambda: "x=" + quote(f"password={_some(12)}", safe=""),
    "base64": lambda: base64.b64encode(json.dumps({"password": _some(12)}).encode()).decode(),
    "dsn": lambda: f"Server=db;User=sa;Password={_some(12)};Timeout=3",
    "libpq": lambda: f"host=db user=bob password='{_some(6)} {_some(6)}' dbname=x",
    "curl": lambda: f"curl -u bob:{_some(12)} -H 'X-Api-Key: {_some(16)}' https://a.example/",
    "option": lambda: f"serve --db-password {_some(12)} --port 80",
    "mysql": lambda: f"mysqldump -h db -p{_some(12)} shop",
    "redis auth": lambda: f"command: AUTH default {_some(12)}",
    "redis auth as a list": lambda: f"['AUTH', 'default', '{_some(12)}']",
    "redis set": lambda: f"SET session:token:17 {_some(12)} EX 60",
    "redis config": lambda: f"CONFIG SET requirepass {_some(12)}",
    "sentence": lambda: f"the password is {_some(12)}",
    "named in a sentence": lambda: f"invalid token {_some(24)} given",
    "pin": lambda: f"the PIN is {_CHANCE.randrange(10**5, 10**6)}",
    "unknown token": lambda: "ac" + "me_" + "".join(f"{_some(3)}7{_some(3)}x4" for _ in range(5)),
    "behind a user": lambda: f"rabbitmqctl change_password bob {_some(12)}",
    "login": lambda: f"vault login {_some(24)}",
    "user of its own form": lambda: f"smbclient //h/s -U bob%{_some(12)}",
    "psql": lambda: f"psql -h db -W {_some(12)} shop",
    "table": lambda: f" id | password\n----+----------\n  1 | {_some(12)}\n(1 row)",
    "key of two words": lambda: f"Api key: {_some(20)}",
    "cookie": lambda: f"Cookie: a={_some(8)}; theme=dark; sid={_some(20)}",
    "authorization": lambda: f"Authorization: Digest username=x, response={_some(32, HEX)}",
    "repr": lambda: f"User(name='x', password='{_some(12)}', age=3)",
    "secret repr": lambda: f"Settings(api_key=SecretStr('{_some(20)}'))",
    "xml": lambda: f"<login><user>x</user><password>{_some(12)}</password></login>",
    "insert": lambda: f"INSERT INTO users (name, password) VALUES ('x', '{_some(6)}''{_some(6)}')",
    "update": lambda: f"UPDATE users SET password = '{_some(12)}' WHERE id = 3",
    "alter": lambda: f"ALTER USER x WITH PASSWORD '{_some(12)}'",
    "identified": lambda: f"CREATE USER x IDENTIFIED BY '{_some(12)}'",
    "like": lambda: f"SELECT 1 FROM users WHERE api_key LIKE '{_some(12)}%'",
    "pair": lambda: f"[('x-api-key', '{_some(20)}'), ('accept', '*/*')]",
    "environment": lambda: f"PGPASSWORD={_some(12)} psql -h db",
    "nested": lambda: '{"password": {"old": "' + _some(12) + '", "new": ["' + _some(12) + '"]}}',
}

_PLAIN = frozenset(
    """bob x a b db user User sa Server Timeout host dbname shop cache curl serve port mysqldump command AUTH default
    SET session token EX CONFIG requirepass the password is Cookie theme dark sid Authorization Digest username response
    name age Settings login INSERT INTO users VALUES UPDATE WHERE id ALTER WITH PASSWORD CREATE IDENTIFIED BY SELECT
    FROM api_key LIKE accept PGPASSWORD psql old new Bearer Basic redis postgresql https sentry example files hooks
    slack com services rabbitmqctl change_password smbclient invalid vault access_token Signature Amz Password""".split()  # noqa: SIM905 - one a line would be a page
)


def _parts(secret: str) -> set[str]:
    """Return the pieces of a sample that nobody may see: the drawn ones."""
    words = "".join(letter if letter.isalnum() else " " for letter in secret).split()
    return {
        word for word in words if word not in _PLAIN and len(word) >= 6 and any(c.isdigit() for c in word)
    }


CARRIERS: dict[str, Callable[[str], tuple[str, Any]]] = {
    "message": lambda secret: ("message", f"it failed: {secret}"),
    "nested object": lambda secret: ("context", {"a": {"b": [{"note": secret}]}}),
    "list": lambda secret: ("context", {"args": ["x", secret, 3]}),
    "address": lambda secret: (
        "facts",
        {"url": f"https://a.example/?password={quote(secret, safe='')}&page=2"},
    ),
    "header": lambda secret: ("context", {"headers": {"Authorization": secret, "X-Other": f"a {secret}"}}),
    "json in a string": lambda secret: ("message", json.dumps(json.dumps({"note": secret, "n": 1}))),
    "sql": lambda secret: (
        "message",
        f"INSERT INTO t (a, secret) VALUES (1, '{secret.replace(chr(39), chr(39) * 2)}')",
    ),
    "repr": lambda secret: ("message", f"Call(user='x', api_token={secret!r})"),
    "cause": lambda secret: ("cause", secret),
    "note": lambda secret: ("note", secret),
    "log arguments": lambda secret: ("message", _logged("sent %s to %r", secret, {"secret": secret})),
    "bytes": lambda secret: ("context", {"body": secret.encode()}),
}


def _logged(text: str, *args: object) -> str:
    return logging.LogRecord("x", logging.ERROR, "x.py", 1, text, args, None).getMessage()


def _event(place: str, value: Any) -> Event:
    event = Event(id="0" * 32, at=0.0, kind=Kind.TASK, service="shop", message="it failed")
    if place in ("cause", "note"):
        relation = Relation.CAUSE if place == "cause" else Relation.RAISED
        notes = (value,) if place == "note" else ()
        raised = (
            Raised(type="E"),
            Raised(type="F", message=value if not notes else "", relation=relation, notes=notes),
        )
        return dataclasses.replace(event, raised=raised)
    return dataclasses.replace(event, **{place: value})


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_shape_has_a_sample(shape: Shape) -> None:
    """A new one belongs in BY_SHAPE, so that it is tried in every carrier."""
    assert any(shape.pattern.search(make()) for make in BY_SHAPE.values() for _ in range(3))


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("rule", BY_SHAPE)
def test_no_secret_of_any_rule_comes_out_of_any_carrier(rule: str, carrier: str) -> None:
    for _ in range(3):
        secret = BY_SHAPE[rule]()
        place, value = CARRIERS[carrier](secret)

        shown = repr(redact_event(_event(place, value)))

        assert not [part for part in _parts(secret) if part in shown], f"{secret!r} -> {shown}"


KEYS = sorted(SECRET_WORDS) + ["_".join(pair) for pair in sorted(SECRET_PAIRS)]
KEYS += [
    "dbPassword",
    "X-Auth-Token",
    "REDIS_PASSWORD",
    "mypasswordold",
    "userapikey",
    "dbpass",
    "stripeSecretKey",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_value_under_a_secret_key_is_masked_in_every_notation(key: str) -> None:
    secret = _some(12)
    texts = [
        f"{key}={secret}",
        f"{key}: {secret}",
        f'{{"{key}": "{secret}"}}',
        json.dumps(json.dumps({"a": {key: secret}})),
        json.dumps(json.dumps(json.dumps({key: f'quote" {secret}'}))),
        f"{{'{key}': b'{secret}'}}",
        f"{{'{key}' => '{secret}'}}",
        f"--{key} {secret}",
        f"--{key}={secret}",
        f"x(a=1, {key}='a {secret}')",
        f"/x?{key}={secret}&b=1",
        f"a=1;{key}={secret};b=2",
        f"{key}=a,b{secret}",
        f"{key} = ['a', '{secret}']",
    ]

    assert [text for text in texts if secret in redact(text)] == []
    assert redact_value({"a": [{key: secret}]}) == {"a": [{key: MASK}]}
    assert redact_value([key, secret]) == [key, MASK]


# {k} is a key, {q} the same as a column of SQL, {s} its value.
NOTATIONS: dict[str, str] = {
    "aligned ini": "user     = bob\n{k}              = {s}\nport = 3",
    "blanks after": "{k}:                    {s}",
    "tabs": "{k}\t\t\t\t\t\t=\t\t\t\t\t\t{s}",
    "yaml": "db:\n  {k}:      {s}\n  port: 3",
    "yaml quoted": "db:\n  {k}:    '{s}'\n",
    "yaml list": "db:\n  {k}:\n    - {s}\n    - {s}\n  port: 3",
    "yaml list flat": "{k}:\n- {s}\n- {s}\nport: 3",
    "yaml block": "db:\n  {k}: |\n    {s}\n    {s}\n  port: 3",
    "yaml nested": "{k}:\n  current: {s}\n  before: {s}\nport: 3",
    "next line": "{k}:\n\n      {s}",
    "toml": '[db]\n{k} = "{s}"',
    "toml triple": '{k} = """\n{s}"""',
    "toml literal": "{k}='''{s}'''",
    "xml": "<db><{k}>{s}</{k}></db>",
    "xml cdata": "<db><{k}><![CDATA[{s}]]></{k}></db>",
    "xml blank cdata": "<db><{k}>\n  <![CDATA[{s}]]>\n</{k}></db>",
    "xml attributes": '<{k} type="text" n="1">{s}</{k}>',
    "xml attribute": '<db {k}="{s}" port="3"/>',
    "xml nested": "<{k}><old>{s}</old><new>{s}</new></{k}>",
    "xml property": '<property name="{k}">{s}</property>',
    "xml add": '<add key="{k}" value="{s}" />',
    "html input": '<input name="{k}" type="text" value="{s}">',
    "html escaped": "{{&quot;{k}&quot;:&quot;{s}&quot;}}",
    "xml escaped": "&lt;{k}&gt;{s}&lt;/{k}&gt;",
    "json": '{{"{k}": "{s}"}}',
    "json tight": '{{"{k}":"{s}","a":1}}',
    "json wide": '{{\n    "{k}"      :      "{s}"\n}}',
    "json escaped": '"{{\\"{k}\\": \\"{s}\\"}}"',
    "json twice": '"\\"{{\\\\\\"{k}\\\\\\": \\\\\\"{s}\\\\\\"}}\\""',
    "json list": '{{"{k}": ["{s}", "{s}"]}}',
    "json object": '{{"{k}": {{"a": "{s}"}}}}',
    "json lines escaped": '"a: 1\\n{k}: {s}\\nb"',
    "tab escaped": '"a: 1\\t{k}={s}\\tb"',
    "name value": '[{{"name": "{k}", "value": "{s}"}}]',
    "value name": '[{{"value": "{s}", "name": "{k}"}}]',
    "name value escaped": '"[{{\\"name\\":\\"{k}\\",\\"value\\":\\"{s}\\"}}]"',
    "name value wide": '{{\n  "name": "{k}",\n  "enabled": true,\n  "value": "{s}"\n}}',
    "key value yaml": "env:\n  - name: {k}\n    value: {s}\n  - name: X\n    value: y",
    "header value repr": "{{'header': '{k}', 'value': '{s}'}}",
    "env": "PATH=/bin\n{k}={s}\nHOME=/x",
    "export": "export {k}='{s}'",
    "setenv dict": "environ({{'PATH': '/bin', '{k}': '{s}'}})",
    "php": "'{k}' => '{s}',",
    "ruby": ':{k}=>"{s}"',
    "go": "map[{k}:{s} a:b]",
    "go struct": "{{User:bob {k}:{s}}}",
    "pascal": "{k} := '{s}'",
    "compared in code": "if {k} == '{s}':",
    "compared in javascript": "({k} !== '{s}')",
    "arrow": "{k} -> {s}",
    "unicode arrow": "{k} → {s}",
    "table": "| {k}    | {s}   |",
    "box": "│ {k}  │ {s} │",
    "index": "config['{k}'] = '{s}'",
    "index two": "config['{k}']['value'] = '{s}'",
    "index bare": "{k}[bob] = {s}",
    "dataclass": "User(name='x', {k}='{s}', age=3)",
    "namedtuple": 'C(a=1, {k}="{s}")',
    "dict": "{{'a': 1, '{k}': '{s}'}}",
    "bytes dict": "{{b'{k}': b'{s}'}}",
    "tuple": "[('a', 'b'), ('{k}', '{s}')]",
    "pair list": '[["{k}", "{s}"]]',
    "secret": "S({k}=SecretStr('{s}'))",
    "pydantic": "1 validation error for User\n{k}\n  String should have at most 3 characters [type=string_too_long, input_value='{s}', input_type=str]\n    For further information",
    "pydantic nested": "1 validation error for User\nuser.{k}\n  too short [type=x, input_value='{s}', input_type=str]",
    "pydantic escaped": "\"1 validation error for User\\n{k}\\n  too short [type=x, input_value='{s}', input_type=str]\"",
    "argv list": "['serve', '--{k}', '{s}', '--port', '3']",
    "argv json": '["serve", "--{k}", "{s}"]',
    "option": "serve --{k}    {s}",
    "option =": "serve --{k}='{s}'",
    "java": "java -D{k}={s} -jar x",
    "query": "/x?a=1&{k}={s}&b=2",
    "form": "a=1&{k}={s}",
    "percent": "x=%7B%22{k}%22%3A%22{s}%22%7D",
    "percent twice": "{k}%253D{s}",
    "semicolon": "Server=h;{k}={s};A=b",
    "sqlalchemy tuple": "(sqlite3.IntegrityError) x [SQL: UPDATE users SET {q}=? WHERE id=?]\n[parameters: ('{s}', 7)]",
    "sqlalchemy one": "[SQL: SELECT * FROM t WHERE {q} = ?]\n[parameters: ('{s}',)]",
    "sqlalchemy dict": "[SQL: SELECT * FROM t WHERE {q} = %(p)s]\n[parameters: {{'p': '{s}'}}]",
    "sqlalchemy many": "[SQL: INSERT INTO users (name, {q}) VALUES (?, ?)]\n[parameters: [('bob', '{s}'), ('x', '{s}')]]",
    "sqlalchemy escaped": "\"[SQL: UPDATE users SET {q}=? WHERE id=?]\\n[parameters: ('{s}', 7)]\"",
    "postgres parameters": "STATEMENT: UPDATE users SET {q} = $1 WHERE id = $2\nDETAIL:  parameters: $1 = '{s}', $2 = '7'",
    "postgres key": "DETAIL:  Key ({q})=({s}) already exists.",
    "postgres keys": "DETAIL:  Key ({q}, id)=({s}, 7) already exists.",
    "postgres keys last": "DETAIL:  Key (id, {q})=(7, {s}) is not present",
    "postgres row": "DETAIL:  Failing row contains (1, bob, {s}).",
    "mysql duplicate": "Duplicate entry '{s}' for key 'users.{k}'",
    "mssql": "Violation of UNIQUE KEY constraint 'UQ_users_{k}'. The duplicate key value is ({s}).",
    "mongo": 'E11000 duplicate key error index: {k}_1 dup key: {{ {k}: "{s}" }}',
    "typeorm": 'query: UPDATE users SET {q} = $1 -- PARAMETERS: ["{s}",7]',
    "rails": 'UPDATE "users" SET "{q}" = $1 [["{k}", "{s}"], ["id", 7]]',
    "where": "SELECT 1 FROM t WHERE {q}='{s}'",
    "where wide": "SELECT 1 FROM t WHERE {q}    =    '{s}'",
    "like": "WHERE {q}   LIKE   '{s}%'",
    "insert": "INSERT INTO t (a, {q}) VALUES (1, '{s}')",
    "insert wide": "INSERT  INTO  t  (a,  {q})  VALUES   (1,   '{s}')",
    "bound args": "UPDATE t SET {q} = %s WHERE id = %s; args=('{s}', 7)",
    "backtick": "`{k}`: `{s}`",
    "double equals header": "{k}: {s}",
}

CROSSED_KEYS: tuple[str, ...] = (
    "password",
    "db_password",
    "api_token",
    "apiKey",
    "X-Auth-Token",
    "DB_PASSWORD",
    "rabbitmq_pass",
)
CROSSED_KEYS += ("pw", "client-secret", "pin", "otp", "sessionid", "PGPASSWORD", "signing_key")


@pytest.mark.parametrize("key", CROSSED_KEYS)
@pytest.mark.parametrize("notation", NOTATIONS)
def test_a_value_is_masked_under_every_key_in_every_notation(notation: str, key: str) -> None:
    secret = _some(15)
    text = NOTATIONS[notation].format(k=key, q=key.replace("-", "_"), s=secret)

    shown = redact(text)

    assert secret not in shown
    assert redact(shown) == shown
    assert secret not in repr(redact_event(_event("message", text)))
    assert secret not in repr(redact_event(_event("context", {"a": [text, {"b": json.dumps(text)}]})))


@pytest.mark.parametrize("rule", BY_SHAPE)
def test_a_secret_that_is_one_word_is_masked_in_every_notation(rule: str) -> None:
    secret = BY_SHAPE[rule]()
    if len(secret.split()) > 1 or not {"'", '"', "<", "&"}.isdisjoint(secret):
        return

    shown = {
        name: redact(form.format(k="note", q="note", s=secret))
        for name, form in NOTATIONS.items()
        if "%" not in form
    }

    assert {name: text for name, text in shown.items() if any(part in text for part in _parts(secret))} == {}


@pytest.mark.parametrize("name", ["name", "key", "header", "field", "Name"])
@pytest.mark.parametrize("value", ["value", "val", "old", "Value"])
def test_a_value_is_masked_where_its_name_stands_beside_it(name: str, value: str) -> None:
    secret = _some(12)

    assert redact_value([{name: "DB_PASSWORD", value: secret}]) == [{name: "DB_PASSWORD", value: MASK}]
    assert redact_value({value: [secret], "x": 1, name: "x-api-key"}) == {
        value: MASK,
        "x": 1,
        name: "x-api-key",
    }
    assert redact_value({name: "PATH", value: "/bin"}) == {name: "PATH", value: "/bin"}


def test_a_value_beside_the_name_of_something_else_stays() -> None:
    text = '[{"name": "DB_PASSWORD", "value": "' + _some(12) + '"}, {"name": "PORT", "value": "5432"}]'

    assert redact(text).endswith(f'"value": "{MASK}"}}, {{"name": "PORT", "value": "5432"}}]')


def test_the_number_of_a_card_is_masked_as_a_number() -> None:
    card = int(_card())

    assert redact_value({"card": card, "n": [card, float(card)]}) == {"card": MASK, "n": [MASK, MASK]}
    assert redact_value({"n": card + 1, "ns": 1_732_456_789_123_456_789}) == {
        "n": card + 1,
        "ns": 1_732_456_789_123_456_789,
    }


@pytest.mark.parametrize(
    ("argv", "kept"),
    [
        (["sshpass", "-p", "@", "ssh", "h"], "sshpass -p *** ssh h"),
        (["redis-cli", "-h", "h", "-a", "@"], "redis-cli -h h -a ***"),
        (["/usr/bin/mysql", "-u", "root", "-p@", "shop"], "/usr/bin/mysql -u root -p*** shop"),
        (["docker", "login", "-u", "bob", "-p", "@"], "docker login -u bob -p ***"),
        (["sqlcmd", "-U", "sa", "-P", "@ x"], "sqlcmd -U sa -P ***"),
        (["ldapsearch", "-w", "@", "-b", "dc=x"], "ldapsearch -w *** -b dc=x"),
        (["plink", "-pw", "@", "host"], "plink -pw *** host"),
        (["openssl", "rsa", "-passin", "pass:@"], "openssl rsa -passin ***"),
        (["mysql", "-p", "shop"], "mysql -p shop"),
        (["docker", "run", "-p", "8080:80", "image"], "docker run -p 8080:80 image"),
        (["mkdir", "-p", "/srv/shop"], "mkdir -p /srv/shop"),
    ],
)
def test_a_password_is_masked_by_the_command_it_is_for(argv: list[str], kept: str) -> None:
    secret = _some(12)
    given_ = [word.replace("@", secret) for word in argv]

    assert redact_command(given_) == kept
    assert secret not in redact(f"Command '{given_}' returned non-zero exit status 1")
    assert secret not in redact(json.dumps(json.dumps({"argv": given_})))
    assert secret not in redact(" ".join(repr(word) if " " in word else word for word in given_))


@pytest.mark.parametrize("key", sorted(WEAK_WORDS))
def test_a_word_of_many_meanings_names_a_secret_in_data_only(key: str) -> None:
    secret = _some(12)

    assert secret not in redact(f"{key}={secret}")
    assert secret not in redact(json.dumps({key: secret}))
    assert redact_value({key: secret}) == {key: MASK}
    assert redact(f"{key}: closed by {secret}") == f"{key}: closed by {secret}"
    assert redact(f"{key}=3 fail=0") == f"{key}=3 fail=0"


def test_the_quick_look_misses_no_key() -> None:
    keys = [*SECRET_WORDS, *("".join(pair) for pair in SECRET_PAIRS), *WEAK_WORDS]
    spelt = [form for key in keys for form in (key, key.upper(), key.title(), f"user{key.title()}Value")]

    assert [key for key in spelt if is_secret_key(key) and not may_have_keys(key, key.lower())] == []
    assert [key for key in spelt if is_secret_key(key) and not key_places(Places(key), key.lower())] == []
    assert [key for key in WEAK_WORDS if not key_places(Places(key), key)] == []


def test_a_hint_is_found_where_letters_become_two_in_lower_case() -> None:
    secret = _some(12)

    assert (
        redact(f"İİİ the password is {secret}, password={secret}")
        == f"İİİ the password is {MASK} password={MASK}"
    )


@pytest.mark.parametrize("shape", [*PHRASES], ids=lambda shape: shape.name)
def test_a_phrase_begins_with_one_of_its_hints(shape: Shape) -> None:
    """It is tried where these stand, and nowhere else."""
    samples = [found for make in BY_SHAPE.values() if (found := shape.pattern.search(make()))]

    assert samples
    assert all(found[0].lower().startswith(shape.hints) for found in samples)


def test_commands_are_masked_by_their_arguments() -> None:
    secret = _some(12)

    assert redact_command(["x", "--password", f"a {secret}", "-v"]) == f"x --password {MASK} -v"
    assert redact_command(["curl", "-u", f"bob:{secret}", "http://x"]) == f"curl -u bob:{MASK} http://x"
    assert redact_value(["AUTH", "bob", secret]) == ["AUTH", MASK, MASK]
    assert redact_value(["SET", "session:token:1", secret]) == ["SET", f"session:token:{MASK}", MASK]
    assert redact_value([["Authorization", secret], ["Accept", "x"]]) == [
        ["Authorization", MASK],
        ["Accept", "x"],
    ]


def _ordinary() -> Iterator[str]:
    """Give log lines as programs of many kinds write them, with nothing secret in them."""
    chance = random.Random(17)
    words = [
        "order",
        "cart",
        "user",
        "page",
        "index",
        "cache",
        "shard",
        "worker",
        "queue",
        "image",
        "mail",
        "batch",
    ]
    hosts = ["10.1.2.3", "db-1", "cache.internal", "192.168.7.9", "node17", "api.example.org", "[::1]"]

    def one() -> dict[str, Any]:
        return {
            "w": chance.choice(words),
            "v": chance.choice(words),
            "n": chance.randrange(100_000),
            "m": chance.randrange(1, 999),
            "h": chance.choice(hosts),
            "x": "".join(chance.choice(HEX) for _ in range(12)),
            "u": str(chance.randrange(10**15, 10**16 - 1)).translate(str.maketrans("23456", "11789")),
            "t": f"2026-11-{chance.randrange(10, 29)} {chance.randrange(10, 24)}:{chance.randrange(10, 60)}:07,{chance.randrange(100, 999)}",
            "i": f"{_uuid(chance)}",
            "f": chance.random() * 100,
        }

    while True:
        for style in _STYLES:
            yield style.format(**one())


def _uuid(chance: random.Random) -> str:
    return "-".join("".join(chance.choice(HEX) for _ in range(length)) for length in (8, 4, 4, 4, 12))


_STYLES = (
    "{t} INFO shop.{w}: {v} {n} taken in {f:.1f} ms (worker={m}, queue={n})",
    '{h} - - [24/Nov/2026:10:00:00 +0000] "GET /{w}/{n}?page={m}&sort=asc HTTP/1.1" 200 {n} "-" "Mozilla/5.0 (X11)"',
    '{{"level": "info", "ts": {n}.{m}, "msg": "{w} done", "{v}": {n}, "host": "{h}", "request_id": "{i}"}}',
    'level=warn ts=2026-11-24T10:00:00Z caller={w}.go:{m} msg="{v} is slow" took={f:.3f}s trace_id={x}',
    "Nov 24 10:00:00 {h} sshd[{n}]: Accepted publickey for deploy from {h} port {n} ssh2: ED25519 SHA256:{x}{x}",
    "Nov 24 10:00:00 {h} sshd[{n}]: Failed password for invalid user admin from {h} port {n} ssh2",
    "Nov 24 10:00:00 {h} systemd[1]: {w}.service: Main process exited, code=exited, status={m}/FAILURE",
    "[{t}] [error] [client {h}] File does not exist: /var/www/html/{w}/{n}.png",
    "E1124 10:00:00.123456 {n} {w}_controller.go:{m}] Failed to sync {v} {i}: context deadline exceeded",
    "Traceback (most recent call last):",
    '  File "/srv/{w}/{v}.py", line {m}, in handle_{w}',
    "KeyError: '{w}_{n}'",
    "ValueError: invalid literal for int() with base 10: '{w}'",
    'java.lang.NullPointerException: Cannot invoke "{w}.get()" because "this.{v}" is null',
    "\tat org.example.{w}.{v}Service.handle({w}Service.java:{m})",
    "    at processTicksAndRejections (node:internal/process/task_queues:{m}:5)",
    "npm WARN deprecated {w}@1.{m}.0: this package is no longer maintained",
    "081109 203615 {m} INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block blk_{u} terminating",
    "kernel: [{n}.{m}] usb 1-1: new high-speed USB device number {m} using xhci_hcd",
    "redis: {n}:M 24 Nov 2026 10:00:00.123 * Background saving started by pid {n}",
    "postgres[{n}]: LOG:  duration: {f:.3f} ms  statement: SELECT {w}, {v} FROM {w}s WHERE id = {n} LIMIT {m}",
    "UPDATE {w}s SET {v} = '{w}' WHERE id = {n}",
    "INSERT INTO {w}s (id, {v}) VALUES ({n}, '{w}')",
    "nginx: 2026/11/24 10:00:00 [error] {n}#0: *{m} connect() failed (111: Connection refused) while connecting to upstream",
    "celery: Task shop.tasks.{w}[{i}] succeeded in {f:.4f}s: {{'{v}': {n}}}",
    "max_tokens={n} prompt_tokens={m} completion_tokens={m} model=small cost={f:.4f}",
    "the token bucket of {h} is empty; retry after {m} s",
    "SyntaxError: Unexpected token '<' in JSON at position {m}",
    "authentication failed for {w} from {h}: account is locked",
    "session: {w} closed after {m} s; sessions open: {m}",
    "primary key ({w}_id)={n} already exists; key: {v}, partition key {m}",
    "connect to redis://{h}:6379/0 failed: timed out after {f:.1f} s",
    "GET https://api.example.org/v1/{w}s/{n}/{v}?limit={m}&offset={n} -> 503 in {f:.0f} ms",
    "author: {w}; keyboard: de; monkey: {v}; tokenizer: bpe",
    "commit {x}{x}{x}abcd by deploy: fix {w} of {v}",
    "sha256:{x}{x}{x}{x}{x}abcd pulled in {f:.1f}s",
    "docker run -u 1000:1000 -p 8080:80 -v /srv/{w}:/data {w}:1.{m}",
    "ps -u root -o pid,rss; mysql -u root -h {h} -P 3306 shop",
    "test_{w}.py::test_{v} PASSED [{m}%]  pass=12 fail=0 skip=3",
    "cookie consent shown to {w}; basic plan; bearer of news",
    "password reset mail sent for account {n}",
    "password: None, secret: null, token: ''",
    "ERROR: column {w}.password_file does not exist at character {m}",
    "event id={n} uuid={i} order=ORD-{n}-{m} sku={w}-{m}-XL phone ext {m}",
    "batch at 1732456789{m}123456 ns offset {u} lag {n}",
    "temperature {f:.2f} C, load 0.{m}, 5 min {f:.1f}; MemTotal: {n} kB",
    "C:\\Program Files\\{w}\\{v}.exe exited with 0x{x}",
    "<{w}><{v}>{n}</{v}><name>{w}</name></{w}>",
    "http: TLS handshake error from {h}:{n}: EOF",
    '[{t}] production.ERROR: {w} {{"userId":{n},"exception":"[object] (RuntimeException(code: 0)"}}',
)


def test_less_than_one_ordinary_line_in_a_hundred_changes() -> None:
    lines = _ordinary()
    told = [next(lines) for _ in range(5000)]

    changed = [line for line in told if redact(line) != line]

    assert len(changed) < len(told) / 100, changed[:10]


def test_every_style_of_ordinary_line_stays_as_it_is() -> None:
    lines = _ordinary()

    for line in (next(lines) for _ in range(len(_STYLES))):
        assert redact(line) == line


_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)
_SAMPLES = st.sampled_from([make() for make in BY_SHAPE.values()])


def _planted(value: Any, secret: str, at: random.Random) -> Any:
    if isinstance(value, dict):
        return {key: _planted(item, secret, at) for key, item in value.items()}
    if isinstance(value, list):
        return [_planted(item, secret, at) for item in value]
    if isinstance(value, str) and at.random() < 0.7:
        return f"{value} {secret}"
    return value


def _shape_of(value: Any) -> Any:
    if isinstance(value, dict):
        return [_shape_of(item) for item in value.values()]
    return [_shape_of(item) for item in value] if isinstance(value, list) else ""


@given(tree=_TREES, sample=_SAMPLES, at=st.randoms(use_true_random=False))
def test_planted_secrets_never_come_out_and_masking_again_changes_nothing(
    tree: Any, sample: str, at: random.Random
) -> None:
    event = _event("context", {"root": _planted(tree, sample, at)})

    clean = redact_event(event)

    assert not [part for part in _parts(sample) if part in repr(clean)]
    assert redact_event(clean) == clean


@given(_TREES)
def test_the_form_of_a_value_stays(tree: Any) -> None:
    if not any(is_secret_key(key) for key in _keys(tree)):
        assert json.dumps(redact_value(tree)).count("[") >= 0
        assert _depth(redact_value(tree)) <= _depth(tree)


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(item)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def test_numbers_and_names_of_an_event_stay() -> None:
    frame = Frame(module="shop.orders", function="take", file="/srv/shop/orders.py", line=3)
    event = _event("facts", {"errno": 13, "path": "/srv/out", "peer": "10.0.0.7:6379", "seconds": 2.5})
    event = dataclasses.replace(event, raised=(Raised(type="E", message="no", frames=(frame,)),))

    assert redact_event(event) == event


def test_texts_are_cut_after_they_are_masked() -> None:
    secret = _some(30)
    event = _event("message", "x" * (MESSAGE_LIMIT - 30) + f" redis://bob:{secret}@cache")
    event = dataclasses.replace(
        event, context={"a": "y" * (TEXT_LIMIT - 30) + f" redis://bob:{secret}@cache"}
    )

    clean = redact_event(event)

    assert secret[:6] not in clean.message + clean.context["a"]
    assert len(clean.message) <= MESSAGE_LIMIT
    assert len(clean.context["a"]) <= TEXT_LIMIT


def test_what_is_personal_is_masked_when_asked_for() -> None:
    text = "bob.x@example.org from 8.8.8.8 and 2001:4860:4860::8888, 10.0.0.1, 127.0.0.1, ::1 in /home/bob/x"

    assert redact(text) == text
    assert redact(text, also=frozenset(Personal)) == (
        f"{MASK}@{MASK} from {MASK} and {MASK}, 10.0.0.1, 127.0.0.1, ::1 in /home/{MASK}/x"
    )
    assert "bob" not in redact_event(_event("message", "mail to bob.x@example.org")).message


class _Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_a_failure_of_our_own_hides_the_text_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    before = FAILURES["RuntimeError"]

    def fail(*_: object, **__: object) -> str:
        raise RuntimeError

    assert redact_value({"a": _Hostile(), "b": 1}) == {"a": FAILED, "b": 1}
    monkeypatch.setattr("soulfra_monitor.redaction.texts._redacted", fail)
    assert redact("x") == FAILED
    assert FAILURES["RuntimeError"] == before + 2


def test_what_is_too_deep_or_too_wide_is_masked() -> None:
    deep: Any = "hunter2"
    for _ in range(DEPTH_LIMIT + 5):
        deep = [deep]

    assert "hunter2" not in repr(redact_value(deep))
    assert redact_value(["a"] * (WIDTH_LIMIT + 9))[-1] == MASK
    assert len(redact_value({str(number): 1 for number in range(WIDTH_LIMIT + 9)})) == WIDTH_LIMIT + 1


def test_a_value_that_contains_itself_many_times_ends() -> None:
    value: list[Any] = []
    value += [value] * 20
    began = time.process_time()

    redact_value(value)

    assert time.process_time() - began < 5.0


def _bait(shape: Shape) -> list[str]:
    """Return beginnings that a pattern goes into and does not come out of."""
    hints = [
        hint.upper() if shape.name.startswith(("private", "password of")) else hint for hint in shape.hints
    ]
    common = [
        "a",
        "1",
        "A1",
        "4111 ",
        "DE12",
        "://",
        "a:",
        "@",
        "a@",
        "-",
        " ",
        "'",
        '"',
        "\\",
        "eyJ",
        "(",
        "insert into t (",
    ]
    return [*hints, *(f"{hint}a" for hint in hints), *(f"{hint} " for hint in hints), *common]


def _seconds(pattern: Callable[[str], object], text: str) -> float:
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        pattern(text)
        best = min(best, time.process_time() - began)
    return best


def _assert_linear(work: Callable[[str], object], piece: str) -> None:
    """Four times the text may take four times as long, and some; measured again while in doubt."""
    length = 20_000
    ratios = []
    for _ in range(4):
        short = _seconds(work, piece * (length // len(piece)))
        long = _seconds(work, piece * (4 * length // len(piece)))
        ratios.append(long / max(short, 0.002))
        if ratios[-1] < 8:
            return
    raise AssertionError(f"{piece!r}: {ratios}")  # quadratic is 16


@pytest.mark.parametrize("shape", [*SHAPES, EMAIL, HOME], ids=lambda shape: f"{shape.name} {shape.hints[:1]}")
def test_the_time_of_each_rule_grows_no_faster_than_the_text(shape: Shape) -> None:
    for piece in _bait(shape):
        _assert_linear(lambda text: shape.pattern.sub(shape.replacement, text), piece)


@pytest.mark.parametrize(
    "piece",
    [
        "password=", "password='", 'password="', 'password=\\"', "password=(", "password=[{", "password=a,", "a=", "a.",
        "--password ", "-a ", "'token', ", "('token', '", "token LIKE ", "<password>", "<a ", "insert into t (password) values (",
        "SET token ", "AUTH ", "%3D", "a%3Da", "QUFB", "cGFzc3dvcmQ9eHh4", "password=a'", 'cookie: a="', "key is ",
        "password for x: ", "pass=", "\\", '\\\\\\"',
    ],
)  # fmt: skip
def test_the_time_of_all_of_it_grows_no_faster_than_the_text(piece: str) -> None:
    _assert_linear(redact, piece)


def _microseconds(text: str) -> float:
    return _seconds(redact, text) / len(text) * 1e6


_WORST = [
    ":token{value", "'|[-u a:b value", "%253Dpass&quot;AUTH &quot;", "passwordsk-mysql -p%3D", "value: [ name: pin ",
    "az login docker login ", "mysql -p ", "redis-cli -a x ", "a:b@c", "cGFzc3dvcmQ9eHh4QUJD ", "a%3Dpassword%3Dx ",
    "<password>", "<password> <", "password=a ", "password='", '"name": "password", "value": ', "value=a name=pin ",
    "('token', '", "AUTH a ", "\\u0070", "&quot;", "password" + " " * 64, "token[a][b][c]", "a\n input_value=", "pin\n  ",
    "parameters: (token ", "(token)=(", "password: |\n ", "\n  password:\n   - ", "Duplicate entry '", "password=\n  a:\n",
    "x://a:b@c ", "insert into t (password) values ('a')", "ID: eyJ", "--a-b ", "a b ", 'pin="""', "DE89 3704 ",
]  # fmt: skip


@pytest.mark.parametrize("piece", _WORST)
def test_no_text_costs_more_than_two_microseconds_a_character(piece: str) -> None:
    text = (piece * 16_384)[:16_384]

    assert min(_microseconds(text) for _ in range(3)) < 2.0


@pytest.mark.parametrize("shape", [*SHAPES, EMAIL, HOME], ids=lambda shape: f"{shape.name} {shape.hints[:1]}")
def test_no_bait_of_a_rule_costs_more_than_two_microseconds_a_character(shape: Shape) -> None:
    for piece in _bait(shape):
        text = (piece * 8192)[:8192]
        assert _microseconds(text) < 2.0 or min(_microseconds(text) for _ in range(3)) < 2.0, piece


def test_an_ordinary_text_costs_a_fraction_of_a_microsecond_a_character() -> None:
    lines = _ordinary()
    text = "\n".join(next(lines) for _ in range(200))

    assert min(_microseconds(text) for _ in range(3)) < 0.6  # three times what it takes


def test_what_an_event_costs_is_bounded_however_much_is_in_it() -> None:
    text = "az login docker login " * 700
    raised = Raised(type="E", message=text, notes=(text,) * 8)
    event = dataclasses.replace(
        _event("context", {str(number): text for number in range(500)}), raised=(raised,) * 8
    )

    took = min(_seconds(lambda _: redact_event(event), ""), _seconds(lambda _: redact_event(event), ""))

    assert took < 2e-6 * EVENT_LENGTH_LIMIT + 0.1


def test_many_small_values_cost_no_more_than_one_large_text() -> None:
    event = _event("context", {"a": ["x"] * 9000, "b": list(range(9000)), "c": [["y"] * 9000] * 20})

    assert _seconds(lambda _: redact_event(event), "") < 1.0


def test_what_is_beyond_the_budget_of_an_event_is_cut_and_not_passed_on() -> None:
    event = _event("context", {f"k{number:03}": f"{number:03} " + "word " * 3000 for number in range(100)})

    clean = redact_event(event)

    assert clean.context["k000"].startswith("000 word")
    assert "099 word" not in repr(clean)
    assert list(clean.context.values())[-1] in (CUT, MASK)


def test_half_a_secret_is_dropped_where_a_text_is_cut() -> None:
    token = "gh" + "p_" + "a1B2" * 9
    for before in range(LOOKED_AT * MESSAGE_LIMIT - 45, LOOKED_AT * MESSAGE_LIMIT):
        message = ("password=" + "x" * 500 + " ") * (before // 510)
        message += "y " * ((before - len(message)) // 2) + token

        assert "a1B2" not in redact_event(_event("message", message)).message
