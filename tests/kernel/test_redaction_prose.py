"""Secrets in sentences, tables and odd arguments, or known by their randomness; and what only looks so."""

import random
import string
import time
from collections.abc import Callable

import pytest

from soulfra_monitor.redaction import MASK, redact
from soulfra_monitor.redaction.randomness import is_random, looks_like_a_password

_CHANCE = random.Random(11)  # the same samples each time
LETTERS = string.ascii_letters + string.digits
LOWER = string.ascii_lowercase + string.digits
HEX = string.digits + "abcdef"

WORD = "hunt" + "er2"


def _some(length: int, letters: str = LETTERS) -> str:
    return "".join(_CHANCE.choice(letters) for _ in range(length))


@pytest.mark.parametrize(
    "sentence",
    [
        "the password is @",
        "The password was '@'.",
        "password for bob is @, please change it",
        "Password set to @",
        "new password: @",
        "your temporary password is: @",
        "password reset to @ for user 7",
        "logging in with password @ failed",
        'wrong password "@" for bob',
        "passwd @ rejected",
        "user bob pass: @",
        "login=bob, pass: @",
        "db_pass: @",
        "pass = @",
        "the passphrase is @!",
        "passwort @ ist falsch",
    ],
)
@pytest.mark.parametrize("password", [WORD, "S3cr" + "et!pw", "tr0ub4dor&3", "p@ss" + "w0rd"])
def test_a_password_in_a_sentence_is_masked(sentence: str, password: str) -> None:
    shown = redact(sentence.replace("@", password))

    assert password not in shown
    assert MASK in shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "sentence",
    [
        "token @ was refused",
        "invalid token @",
        "refresh token '@' has expired",
        "got API key @ from the vault",
        "the access key @ is disabled",
        "session id @ not found",
        "the token is @",
        "cookie @ dropped",
        "jwt @ is malformed",
        "secret @ leaked",
        "token: @",
        "session: @ closed",
        "Unauthorized: credential @ is unknown",
    ],
)
@pytest.mark.parametrize(
    "token",
    [
        _some(24),
        _some(40),
        _some(32, HEX),
        _some(36, LOWER),
        "tok_" + _some(20),
        "9b2e" + "-77aa-4f0c-" + _some(12, HEX),
    ],
)
def test_a_token_in_a_sentence_is_masked(sentence: str, token: str) -> None:
    shown = redact(sentence.replace("@", token))

    assert token not in shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "sentence",
    [
        "pin @",
        "PIN @ was wrong",
        "the PIN is @",
        "your otp is @",
        "OTP @ sent",
        "verification code @",
        "passcode: @",
    ],
)
@pytest.mark.parametrize("number", ["1234", "90210", "482913"])
def test_a_number_that_lets_somebody_in_is_masked(sentence: str, number: str) -> None:
    assert number not in redact(sentence.replace("@", number))


def test_a_long_word_that_nobody_would_write_is_masked_wherever_it_stands() -> None:
    kinds: list[Callable[[], str]] = [
        lambda: "acme_" + _some(32),
        lambda: "live-" + _some(40),
        lambda: _some(40),
        lambda: _some(64),
        lambda: "zz" + _some(48) + "==",
        lambda: "corp_prod_" + _some(44, LOWER),
    ]
    forms = ("it says {} here", "{}", "x={}", '{{"a": "{}"}}', "[{}]", "https://a.example/x/{}?b=1")
    words = [make() for make in kinds for _ in range(200)]

    seen = [word for at, word in enumerate(words) if word in redact(forms[at % len(forms)].format(word))]

    assert len(seen) <= len(words) * 0.04, seen[:5]


TABLE = """\
 id |  name   |  password  | created
----+---------+------------+------------
  1 | bob     | {0} | 2026-01-01
  2 | {1}ann  | {0}x | 2026-01-02
(2 rows)
"""
MYSQL = """\
+----+------+----------------+
| id | name | api_token      |
+----+------+----------------+
|  1 | bob  | {0}   |
|  2 | ann  | NULL           |
+----+------+----------------+
"""
MARKDOWN = """\
| secret | user |
|:-------|-----:|
| {0} | bob |
"""
SINGLE = """\
  password
------------
 {0}
 {0}y
(2 rows)
"""
BOXED = """\
┌────┬──────────┐
│ id │ password │
├────┼──────────┤
│  1 │ {0}  │
└────┴──────────┘
"""


@pytest.mark.parametrize("table", [TABLE, MYSQL, MARKDOWN, SINGLE, BOXED])
def test_a_secret_column_of_a_table_is_masked_and_the_others_stay(table: str) -> None:
    secret = "swordfish"

    for text in (
        f"before\n{table.format(secret, '')}after",
        repr(f"psql said:\n{table.format(secret, '')}"),
        table.format(secret, "").replace("\n", "\r\n"),
    ):
        shown = redact(text)

        assert secret not in shown
        assert redact(shown) == shown
    assert "bob" in redact(table.format(secret, "")) or "bob" not in table


def test_a_row_with_more_cells_than_the_head_is_masked_from_the_secret_on() -> None:
    shown = redact(TABLE.format("floun|dery", ""))

    assert "floun" not in shown
    assert "dery" not in shown


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("psql -h db -W @ shop", "psql -h db -W *** shop"),
        ("psql -W@ shop", "psql -W*** shop"),
        ("pg_dump -h db -W @", "pg_dump -h db -W ***"),
        ("mysql -h db -p@ shop", "mysql -h db -p*** shop"),
        ("mysqladmin -u root -p'@' status", "mysqladmin -u root -p'***' status"),
        ("curl --pass @ https://a.example/", "curl --pass *** https://a.example/"),
        ("keytool -storepass @ -keypass @ -list", "keytool -storepass *** -keypass *** -list"),
        ("smbclient //h/s -U bob%@", "smbclient //h/s -U bob%***"),
        ("ipmitool -U admin -P @ power status", "ipmitool -U admin -P *** power status"),
        ("rabbitmqctl change_password bob @", "rabbitmqctl change_password bob ***"),
        ("rabbitmqctl add_user bob @", "rabbitmqctl add_user bob ***"),
        ("htpasswd -b /etc/users bob @", "htpasswd -b /etc/users bob ***"),
        ("vault login @", "vault login ***"),
        ("openssl enc -aes-256-cbc -k @ -in x", "openssl enc -aes-256-cbc -k *** -in x"),
        ("lftp -u bob,@ ftp.example.org", "lftp -u bob,*** ftp.example.org"),
        ("rar a -hp@ x.rar x", "rar a -hp*** x.rar x"),
        ("unrar x -p@ x.rar", "unrar x -p*** x.rar"),
        ("sqlplus bob/@@db", "sqlplus bob/***@db"),
    ],
)
def test_a_password_is_masked_among_the_arguments_of_a_command(command: str, kept: str) -> None:
    assert (
        redact(command.replace("@@db", "\0db").replace("@", "S3cretpw1").replace("\0", "S3cretpw1@")) == kept
    )


BENIGN = """\
token expired
token expired at 2026-11-24T10:00:00Z
token bucket refilled
token bucket refilled with 500 tokens
the token is expired
the token is 3600 s old
token type mismatch
token refresh failed for user17
Unexpected token '<' in JSON at position 12
unexpected token `utf8mb4_general_ci' near line 3
SyntaxError: Unexpected token x1 in foo2.js
CSRF token missing or incorrect
tokens: 512 in, 77 out
token budget 4096 exceeded
token limit 128000 reached
token count 5123
pass: 12 tests
pass: closed
pass: ok
pass: 3/4
pass: test_login_17
pass: tests/test_shop.py::test_a1
pass: 12ms
PASS: TestHTTP2Server (0.03s)
first pass: 3 of 4
password is required
Password is required!
the password is wrong
the password is wrong!
password is incorrect
password is too short (minimum is 8 characters)
password is 8 characters at least
password was changed
password was changed 3 days ago
password is stored as sha256 hash
password must have 12 characters
Failed password for root from 10.0.0.1 port 22 ssh2
Failed password for invalid user oracle1 from 10.0.0.1 port 52113 ssh2
password authentication failed for user "shop17"
password reset mail sent to user17
password reset2fa
password hash argon2id
password sha256 mismatch
password policy v2 applied
password expires in 30 days
password for bob is set
no password supplied
password file /etc/shop/passwd2 is missing
pin 13 set high
pin 13 set high after 20 ms
GPIO pin 4 is low
pin 1024 pages in memory
pin 2048 KB of memory
PIN required
pin D13 is an output
pinned 1234 pages
spin 1234 times
secret "shop-db-2" not found
secret default/shop-tls-v2 not found
MountVolume.SetUp failed for volume "certs" : secret "shop-tls-7d9f8" not found
secrets "regcred" not found
secret is missing
secret rotation finished in 12 s
the secret garden
session: shop closed after 12 s
session: 17 open
session 4711 closed
auth: ok
auth: sha256
auth: user17 logged in
signature: valid
sid: 17
cookie consent shown
cookie banner v2.1 shown
api key is missing
API key required
api key rotation due in 12 days
access key is disabled
verification code sent to user17
status code 1234
exit code 1234
error code 48291 at line 7
otp sent
OTP expired after 30 s
exports.Socks5Auth = Socks5Auth
psql -h db -U bob -W shop
psql -U postgres -d shop
mysql -u root -P 3306 -p shop
mysqldump --all-databases -u root
openssl x509 -in cert.pem -noout
7z x archive.7z
docker run -p 8080:80 image
mysql -hprod-db1 -u root shop
openssl version; curl -k https://a.example/
ssh -p 2222 host
cp -p a b; mkdir -p /srv/shop17
grep -P 'a.b' file
tar -xpf a.tar
make -k test2
curl -k https://a.example/
login from 10.0.0.1
smbclient //h/s -U bob
commit 9fceb02d0ae598e95dc970b74767f19372d61af8
sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
SHA256:n4bQgYhMfWWaL+qgxVrQFaO0TxsrC4Is0V1sFbDwCgg
integrity sha512-9fceb02d0ae598e95dc970b74767f19372d61af8Zz1Yy2Xx3Ww4Vv5Uu6Tt7Ss8Rr9Qq0Pp==
etag: "n4bQgYhMfWWaL0qgxVrQFaO0TxsrC4Is0V1sFbDwCgg"
request id: n4bQgYhMfWWaL0qgxVrQFaO0TxsrC4Is0V1sFbDwCgg
550e8400-e29b-41d4-a716-446655440000
pod shop-7d9f8b6c5d-x2x4z evicted
req_01ARZ3NDEKTSV4RRFFQ69G5FAV done
0ujtsYcgvSTl8PAuAdqWYSMnLOv enqueued
pi_3MtwBwLkdIwHu7ix28a3tqPa captured
_ZN4core3ops8function6FnOnce9call_once17h0123456789abcdefE
org.springframework.beans.factory.support.DefaultSingletonBeanRegistry
AbstractSingletonProxyFactoryBeanPostProcessor2
test_that_a_very_long_name_of_a_test_with_3_numbers_and_4_words_stays
TestHTTP2ServerUpgradesToTLS13WhenAskedByOldClients
/var/lib/docker/overlay2/e3b0c44298fc1c149afbf4c8996fb92427ae41e4/merged/usr/lib
/usr/lib/python3/dist-packages/Foo2Bar/Site7/ABC123/Xyz9/modules
arn:aws:iam::123456789012:role/Shop-Prod-Role-1A2B3C4D
projects/shop-prod/locations/europe-west1/keyRings/ring1/cryptoKeys/key1
ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7Zz1Yy2Xx3Ww4Vv5Uu6Tt7Ss8Rr9Qq0Pp bob@host
v0.0.0-20210921155107-089bfa567519
manylinux_2_17_x86_64.manylinux2014_x86_64
20261124T100000Z-20261125T100000Z-backup-db1-shop2-full-v3
Password
--------
The password is kept by the service.
the docs of a token
-------------------
 a token is a word
 id | name
----+------
  1 | token
(1 row)
 token_count | user
-------------+------
        4711 | bob
"""


@pytest.mark.parametrize("line", BENIGN.splitlines())
def test_a_line_that_only_sounds_like_a_secret_stays_as_it_is(line: str) -> None:
    assert redact(line) == line


def test_the_lines_that_only_sound_like_secrets_stay_together_too() -> None:
    assert redact(BENIGN) == BENIGN


@pytest.mark.parametrize(
    "piece",
    [
        "password is ", "token a1 ", "pin 1", "pass: a1b2 ", "a1B", "a1B2/", "-+-\n", "| a |\n|--|\n",
        " password\n---\n x\n", "psql -W a1 ", " | token\n--+--\n", "\n token \n", "htpasswd -b x y ",
        "smbclient -U a%b ", "token token token a1b2c3d4e5 ", "password password ", "a b\n", "│ token │\n",
        "--pass a1 ", "vault login ", "sqlplus -a -a ", "lftp -u ", "password for a is ",
    ],
)  # fmt: skip
def test_the_time_of_it_grows_no_faster_than_the_text(piece: str) -> None:
    def seconds(length: int) -> float:
        text = (piece * length)[:length]
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            redact(text)
            best = min(best, time.process_time() - began)
        return best

    ratios = [seconds(80_000) / max(seconds(20_000), 0.002) for _ in range(2)]

    assert min(ratios) < 8  # quadratic is 16
    assert seconds(16_384) < 2e-6 * 16_384


def test_random_words_are_told_from_names() -> None:
    assert is_random(_some(40))
    assert not is_random("AbstractSingletonProxyFactoryBeanPostProcessor2")
    assert looks_like_a_password(WORD)
    assert not looks_like_a_password("required")
