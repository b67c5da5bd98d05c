"""The Node client by Node's own test runner on every Node there is, its wire format by our own reader."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event as Signal
from threading import Thread
from typing import Any

import pytest

from soulfra_monitor.events import Batch, Kind
from soulfra_monitor.redaction import Personal, redact
from soulfra_monitor.wire import read_body

CLIENT = Path(__file__).parents[2] / "clients" / "node"
FILE = CLIENT / "silent-error-monitoring.js"
TESTS = {file.name.split(".")[0]: file for file in sorted(CLIENT.glob("test/*.test.js"))}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("file", TESTS.values(), ids=TESTS.keys())
def test_nodes_own_tests_pass(node: str, file: Path) -> None:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("SOULFRA_", "NODE_"))
    }

    run = subprocess.run(
        [node, str(file)],
        cwd=CLIENT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )

    failed = re.findall(r"^ *(?:not ok \d+ - |✖ )(.+?)(?: \([\d.]+ms\))?$", run.stdout, re.MULTILINE)
    passed = re.findall(r"^ *(?:ok \d+ - |✔ )(.+)$", run.stdout, re.MULTILINE)
    assert run.returncode == 0, (
        f"failed: {'; '.join(failed) or 'all'}\n{run.stdout[-4000:]}\n{run.stderr[-2000:]}"
    )
    assert passed, run.stdout[-2000:]
    assert not failed


class _Taker:
    """Takes what is posted, as the remediator reads it."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.came = Signal()
        taker = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                batch = read_body(body, now=time.time())
                assert isinstance(batch, Batch)
                taker.batches.append(batch)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()
                taker.came.set()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def taker() -> Iterator[_Taker]:
    taker = _Taker()
    thread = Thread(target=taker.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield taker
    taker.server.shutdown()
    thread.join()
    taker.server.server_close()


PROGRAM = f"""
const monitor = require({json.dumps(str(FILE))})({{ release: '7' }});
const router = {{ route: (x) => x, fails() {{ throw new TypeError('no route') }} }};
const service = monitor.addService('router', router);
for (let i = 0; i < 5; i++) service.route(i);
try {{ service.fails() }} catch {{}}
monitor.gauge('cost', 0.25, {{ high: 1, help: 'of one request' }});
monitor.report('queue is stuck', {{ severity: 'high', problem: 'queue_stuck' }});
const cause = new RangeError('root');
const denied = {{ cause, code: 'EACCES', errno: -13, path: '/data/x' }};
setTimeout(() => {{ throw Object.assign(new Error('top'), denied) }}, 10);
"""


def test_our_reader_reads_what_it_sends_and_loses_nothing(node: str, taker: _Taker, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "SOULFRA_URL": taker.url, "SOULFRA_SERVICE": "shop"}
    environment["SOULFRA_SPOOL"] = str(tmp_path / "spool")

    run = subprocess.run([node, "-e", PROGRAM], env=environment, capture_output=True, timeout=30, check=False)

    assert run.returncode == 1
    assert taker.came.wait(10)
    events = [event for batch in taker.batches for event in batch.events]
    assert [(event.kind, event.service) for event in events] == [
        (Kind.METHOD, "router"),
        (Kind.REPORTED, "shop"),
        (Kind.UNCAUGHT, "shop"),
    ]
    uncaught = events[-1]
    assert not uncaught.handled
    assert [raised.type for raised in uncaught.raised] == ["Error", "RangeError"]
    assert uncaught.facts == {"errno": 13, "path": "/data/x"}
    assert uncaught.release == "7"
    assert events[1].problem == "queue_stuck"
    calls = {calls.method: calls for batch in taker.batches for calls in batch.calls}
    assert (calls["route"].count, sum(calls["route"].buckets), calls["fails"].failures) == (5, 5, 1)
    declared = [item for batch in taker.batches for item in batch.declared]
    assert [(item.name, item.value, item.high) for item in declared] == [("cost", 0.25, 1.0)]


def _texts() -> list[str]:
    """Return texts with and without secrets, in many notations; in pieces, so that no scanner takes them."""
    secret = "hunter2" + "Aa9" * 6
    token = "gh" + "p_" + "a1B2c3D4e5" * 4
    web = "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcDEF123456"
    notations = (
        "password={0}", "PASSWORD: {0}", '{{"password": "{0}", "x": 1}}', '"{{\\"api_key\\": \\"{0}\\"}}"',
        "--password {0} --user x", "Authorization: Bearer {0}", "cookie: sid={0}; other={0}",
        "redis://user:{0}@cache:6379/0", "https://h/p?sig={0}&x=1", "AUTH {0}", "SET session:key {0}",
        "IDENTIFIED BY '{0}'", "INSERT INTO users (name, password) VALUES ('ann', '{0}')", "['token', '{0}']",
        "<password>{0}</password>", "mysql -u root -p{0}", "the password is {0}!", "session={0}",
        "session: closed", "DB_PASS={0};Server=x", "token({0}, 2)",
        "secret = [\n{0}\n]", "%7B%22password%22%3A%22{0}%22%7D", "{0}",
        "db_password          = {0}", "pw:\t\t\t\t\t\t{0}", "rabbitmq_pass: {0}", "| token   | {0}  |",
        "token:\n  - {0}\n  - {0}\nport: 3", "token:\n  old: {0}\n  new: x", 'pin = """\n{0}"""',
        "<password><![CDATA[{0}]]></password>", '<property name="password">{0}</property>',
        '<add key="Password" value="{0}" />', '[{{"name": "DB_PASSWORD", "value": "{0}"}}]',
        '{{"value": "{0}", "name": "x-api-key"}}', '{{"pass\\u0077ord": "{0}"}}',
        "{{&quot;token&quot;:&quot;{0}&quot;}}",
        "[SQL: UPDATE users SET api_token=? WHERE id=?]\n[parameters: ('{0}', 7)]",
        "DETAIL:  Key (id, token)=(7, {0}) already exists.", "Failing row contains (1, {0}).",
        "Duplicate entry '{0}' for key 'users.token'", "config['password']['value'] = '{0}'",
        "java -Dpin={0} -jar x",
        "1 validation error\npassword\n  too short [type=x, input_value='{0}', input_type=str]",
        "password%253D{0}",
        "sshpass -p {0} ssh h", "['redis-cli', '-a', '{0}']", "Command '['mysql', '-p{0}']' failed",
        "docker login -u ann -p '{0} x' r", "az login; mkdir -p {0}", "glsa_{0}", "EAAC{0}{0}{0}",
        "if password == '{0}':", "(token !== '{0}')", "pass = {0}",
        "invalid token {0}", "token '{0}' refused", "password for ann is {0}, change it",
        "wrong password {0}",
        "password reset to {0}", "user ann pass: {0}", "session: {0} closed", "acme_{0}Bb8{0}",
        "id: acme_{0}Bb8{0}", "https://h/p/{0}x7{0}/y", "the PIN is 482913, not {0}",
        "psql -h db -W {0} shop",
        "unrar x -hp{0} a.rar", "rar a -hp{0} a.rar", "curl --pass {0} x", "keytool -storepass {0}",
        "smbclient //h/s -U ann%{0}", "htpasswd -b /etc/users ann {0}", "vault login {0}",
        "lftp -u ann,{0} h",
        "sqlplus ann/{0}@db", " id | password\n----+----------\n  1 | {0}\n  2 | x | {0}\n(2 rows)",
        "| token | user |\n|---|---|\n| {0} | ann |", " password\n----------\n {0}\n(1 row)",
        "+----+-------+\n| id | token |\n+----+-------+\n|  1 | {0} |\n+----+-------+",
        "id  password\n--  --------\n1   {0}\n", '" id | password\\n----+----------\\n  1 | {0}\\n"',
    )  # fmt: skip
    ordinary = (
        "GET /users/7 answered 503 in 12 ms", "token_count=5 of 10", "password_file=/etc/x", "author: Ann",
        "Cannot read properties of undefined (reading 'token')", "4111 1111 1111 1111", "4111 1111 1111 1112",
        "DE89 3704 0044 0532 0130 00", "mail to ann@example.org", "at 2026-11-28T01:00:00Z, id 5f0c3a7e",
        "a:b@c", "", "the secret garden", "basic usage of things", "C:\\Users\\ann\\x", "x" * 3000,
        "key=value&other=thing", "docker run -p 8080:80 image", "mysql -u root -P 3306 -p shop",
        "first_pass: 3 of 4",
        "token expired", "token bucket refilled", "unexpected token `utf8mb4_general_ci'", "pass: 12 tests",
        "PASS: TestHTTP2Server (0.03s)", "password is required!", "the password is wrong", "pin 13 set high",
        "pin 1024 pages", 'secret "shop-db-2" not found', "session 4711 closed", "psql -U ann -W shop",
        "AbstractSingletonProxyFactoryBeanPostProcessor2", "9fceb02d0ae598e95dc970b74767f19372d61af8",
        "SHA256:n4bQgYhMfWWaL+qgxVrQFaO0TxsrC4Is0V1sFbDwCgg", "pod shop-7d9f8b6c5d-x2x4z evicted",
        "0ujtsYcgvSTl8PAuAdqWYSMnLOv", "Password\n--------\nThe password is kept.",
        " a | b\n---+---\n 1 | token",
        '{"name": "PORT", "value": "5432"}', "usage: login <user> <password> <host>", "C:\\new\\table",
    )  # fmt: skip
    return [
        *(form.format(text) for form in notations for text in (secret, token, web, "short", "***")),
        *ordinary,
    ]


def test_it_masks_what_the_python_library_masks(node: str) -> None:
    texts = _texts()
    code = (
        f"const {{ internals }} = require({json.dumps(str(FILE))}); let text = '';"
        "process.stdin.on('data', (part) => (text += part)).on('end', () =>"
        " console.log(JSON.stringify(JSON.parse(text).map(internals.redact))));"
    )

    run = subprocess.run(
        [node, "-e", code], input=json.dumps(texts), capture_output=True, text=True, timeout=60, check=True
    )

    expected = [redact(text, also=frozenset({Personal.EMAIL})) for text in texts]
    assert json.loads(run.stdout) == expected


def test_the_lock_file_names_no_host() -> None:
    text = (CLIENT / "package-lock.json").read_text(encoding="utf-8")

    assert "://" not in re.sub(r'"(?:url|funding)": "[^"]*"', "", text)
