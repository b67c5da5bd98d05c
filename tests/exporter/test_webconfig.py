"""The exporter's own port under a web-config.yml: TLS, client certificates, users, headers."""

import asyncio
import errno
import http.client
import json
import logging
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import bcrypt
import pytest
import yaml

from exporter import serving, users
from exporter.access import Door
from exporter.app import Exporter, make_app
from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.fields import split_address
from exporter.loading import load_config
from exporter.serving import Listener, unprotected
from exporter.shard import Shard
from exporter.users import Admission, Users
from exporter.webconfig import OPEN, WebConfig, load_web_config

PASSWORD = "pass" + "word-1"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
Make = Callable[[int], tuple[Path, Path]]


def write(folder: Path, web: dict[str, Any]) -> Path:
    file = folder / "web.yml"
    file.write_text(yaml.safe_dump(web))
    return file


class Running:
    """An exporter with its real listener."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{port}"
        self.file = folder / "soulfra.yml"
        self.started = False

    async def start(self, web: dict[str, Any]) -> None:
        write(self.folder, web)
        self.file.write_text("exporter: {fast_path: false, web_config: web.yml}\nservices: {a: {}}\n")
        config = load_config(self.file, WatchConfig)
        protection = load_web_config(self.folder / "web.yml")
        self.exporter = Exporter(self.file, config, self.address, web_config=protection)
        self.listener = Listener(make_app(self.exporter), self.address, self.exporter.door)
        await self.listener.start(self.exporter.reload_protection)
        await self.exporter.start()
        self.started = True

    async def stop(self) -> None:
        await self.exporter.stop()
        await self.listener.stop()

    async def get(
        self, path: str = "/-/healthy", *, tls: ssl.SSLContext | bool = True, **more: Any
    ) -> tuple[int, Any]:
        scheme = "http" if tls is True else "https"
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{scheme}://{self.address}{path}", ssl=tls, **more) as answer,
        ):
            return answer.status, answer.headers


@pytest.fixture
async def running(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    monkeypatch.setattr(serving, "LOOK_EVERY", 0.05)
    one = Running(tmp_path, free_port())
    yield one
    if one.started:
        await one.stop()


def trusting(pem: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pem))
    context.check_hostname = False
    return context


def tls_of(key: Path, pem: Path, **more: Any) -> dict[str, Any]:
    return {"tls_server_config": {"cert_file": pem.name, "key_file": key.name, **more}}


def basic(name: str, password: str) -> str:
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"


BASIC = basic("scraper", PASSWORD)
SCRAPER = {"Authorization": BASIC}


async def test_who_shows_no_password_or_a_wrong_one_is_not_let_in(running: Running) -> None:
    await running.start({"basic_auth_users": {"scraper": HASH}})

    assert (await running.get())[0] == 401
    assert (await running.get(headers={"Authorization": basic("scraper", "wrong")}))[0] == 401
    assert (await running.get(headers={"Authorization": basic("stranger", PASSWORD)}))[0] == 401
    assert (await running.get(headers={"Authorization": "Bearer x"}))[0] == 401
    assert (await running.get(headers={"Authorization": "Basic !!"}))[0] == 401
    for path in ("/metrics", "/state", "/http_sd", "/-/healthy", "/nowhere"):
        assert (await running.get(path))[0] == 401, path
    _, headers = await running.get("/state")
    assert headers["WWW-Authenticate"].startswith("Basic ")
    assert (await running.get(headers=SCRAPER))[0] == 200


async def test_who_is_let_in_may_call_this_machine_by_any_name(running: Running) -> None:
    await running.start({"basic_auth_users": {"scraper": HASH}})

    assert (await running.get(headers={**SCRAPER, "Host": "monitor.example"}))[0] == 200
    assert (await running.get("/check?target=a", headers={**SCRAPER, "Sec-Fetch-Site": "cross-site"}))[
        0
    ] == 403


async def test_without_users_other_names_are_refused_as_before(running: Running) -> None:
    await running.start({"http_server_config": {"headers": {"X-Frame-Options": "deny"}}})

    assert (await running.get(headers={"Host": "monitor.example"}))[0] == 403
    status, headers = await running.get("/nowhere")
    assert (status, headers["X-Frame-Options"]) == (404, "deny")


async def test_a_password_is_looked_at_once_and_then_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    real = users._matches

    def look(password: bytes, wanted: bytes) -> bool:
        looks.append(wanted)
        return real(password, wanted)

    monkeypatch.setattr(users, "_matches", look)
    known = Users({"scraper": HASH})
    header = BASIC

    answers = await asyncio.gather(*(known.admits(header) for _ in range(50)))
    answers += [await known.admits(basic("scraper", "wrong")) for _ in range(3)]

    assert set(answers[:50]) == {Admission.YES}
    assert set(answers[50:]) == {Admission.NO}
    assert len(looks) == 2
    known.close()


async def test_unknown_users_cost_as_much_as_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes: list[bytes] = []

    def look(_: bytes, wanted: bytes) -> bool:
        hashes.append(wanted)
        return False

    monkeypatch.setattr(users, "_matches", look)
    costly = f"$2b$12${'a' * 53}"
    known = Users({"scraper": costly, "other": HASH})

    await known.admits(basic("stranger", PASSWORD))

    assert [text[:7] for text in hashes] == [b"$2b$12$"]
    known.close()


async def test_guessing_passwords_is_bounded_and_holds_neither_the_loop_nor_the_known(
    tmp_path: Path,
) -> None:
    slow = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    known = Users({"scraper": slow})
    assert await known.admits(BASIC) is Admission.YES

    guesses = [
        asyncio.create_task(known.admits(basic("scraper", f"guess-{number}"))) for number in range(100)
    ]
    await asyncio.sleep(0)
    began = time.monotonic()
    assert await known.admits(BASIC) is Admission.YES
    waited = time.monotonic() - began
    answers = await asyncio.gather(*guesses)

    assert waited < 0.4  # all guesses together take twice as long
    assert answers.count(Admission.BUSY) == 100 - users.WAITING
    assert answers.count(Admission.NO) == users.WAITING
    known.close()


async def test_who_waits_while_the_users_change_gets_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(users, "_matches", lambda *_: go_on.wait(20))
    known = Users({"scraper": HASH})
    waiting = [asyncio.create_task(known.admits(basic("scraper", f"guess-{one}"))) for one in range(3)]
    await asyncio.sleep(0)

    known.retire()
    later = await known.admits(basic("scraper", "later"))
    go_on.set()

    assert await asyncio.gather(*waiting) == [Admission.YES] * 3
    assert later is Admission.BUSY


async def test_a_protection_that_cannot_be_put_in_force_changes_nothing() -> None:
    door = Door()
    before = door.config

    async def fails() -> None:
        raise OSError(errno.EMFILE, "no file is left")

    door.on_change = fails
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    secure = WebConfig(context=context, file=Path("web.yml"))
    with pytest.raises(OSError, match="no file"):
        await door.use(secure)

    assert door.config is before
    door.close()


@pytest.mark.parametrize("password", ["x" * 100, "n\x00ul", "p\u00e4ss", "", "with:colon"])
async def test_passwords_of_every_kind_are_looked_at_as_bcrypt_does(password: str) -> None:
    known = Users({"a": bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode()})

    assert await known.admits(basic("a", password)) is Admission.YES
    known.close()


async def test_a_new_certificate_is_shown_without_a_restart(running: Running, make_certificate: Make) -> None:
    key, pem = make_certificate(30)
    await running.start(tls_of(key, pem))
    first = trusting(pem)
    assert (await running.get(tls=first))[0] == 200

    key, pem = make_certificate(60)  # in the same files
    second = trusting(pem)
    deadline = time.monotonic() + 10
    while True:
        try:
            assert (await running.get(tls=second))[0] == 200
            break
        except aiohttp.ClientConnectorCertificateError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await running.get(tls=first)


async def test_files_are_looked_at_again_after_a_look_that_no_thread_was_left_for(
    running: Running, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Awaitable[object]]
) -> None:
    in_thread = asyncio.to_thread
    refused: list[object] = []

    async def none_left(work: Callable[..., Any], *more: Any) -> Any:
        if not refused:
            refused.append(work)
            raise RuntimeError("can't start new thread")
        return await in_thread(work, *more)

    await running.start({"basic_auth_users": {"scraper": HASH}})
    monkeypatch.setattr(asyncio, "to_thread", none_left)
    await until(lambda: refused)
    write(running.folder, {"basic_auth_users": {"other": HASH}})

    async def not_let_in() -> bool:
        return (await running.get(headers=SCRAPER))[0] == 401

    await until(not_let_in)


async def test_a_half_written_certificate_changes_nothing_and_is_told(
    running: Running, make_certificate: Make, until: Callable[..., Awaitable[object]]
) -> None:
    key, pem = make_certificate(30)
    await running.start(tls_of(key, pem))
    good = trusting(pem)

    pem.write_text("-----BEGIN CERTIFICATE-----\n")
    await until(lambda: not running.exporter.counters.reload_successful)

    assert (await running.get(tls=good))[0] == 200


async def test_a_user_who_is_taken_out_is_not_let_in_any_more(
    running: Running, until: Callable[..., Awaitable[object]]
) -> None:
    await running.start({"basic_auth_users": {"scraper": HASH, "other": HASH}})
    assert (await running.get(headers=SCRAPER))[0] == 200

    write(running.folder, {"basic_auth_users": {"other": HASH}})

    async def refused() -> bool:
        return (await running.get(headers=SCRAPER))[0] == 401

    await until(refused)


async def test_connections_that_say_nothing_are_bounded_and_keep_nobody_out(
    running: Running, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Awaitable[object]]
) -> None:
    monkeypatch.setattr(serving, "CONNECTIONS", 3)
    await running.start({})
    host, _, port = running.address.partition(":")
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
    server = running.listener._runner.server
    await until(lambda: server is not None and len(server.connections) == 3)

    assert (await running.get())[0] == 200  # in the place of the first
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(silent[0][0].read(), 5) == b""
    assert not silent[1][0].at_eof()

    for _, writer in silent:
        writer.close()
        with suppress(ConnectionResetError):
            await writer.wait_closed()
    await until(lambda: server is not None and not server.connections)


async def test_who_asked_and_is_kept_goes_after_who_said_nothing(
    running: Running, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Awaitable[object]]
) -> None:
    monkeypatch.setattr(serving, "CONNECTIONS", 2)
    await running.start({})
    host, _, port = running.address.partition(":")
    asking, asking_writer = await asyncio.open_connection(host, int(port))
    asked = b"GET /-/healthy HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    asking_writer.write(asked)
    assert b" 200 " in await asyncio.wait_for(asking.readuntil(b"\r\n\r\n"), 5)
    dripping, dripping_writer = await asyncio.open_connection(host, int(port))
    dripping_writer.write(b"GET /-/healthy HT")
    server = running.listener._runner.server
    await until(lambda: server is not None and len(server.connections) == 2)

    third, third_writer = await asyncio.open_connection(host, int(port))

    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(dripping.read(), 5) == b""
    for reader, writer in ((asking, asking_writer), (third, third_writer)):
        writer.write(asked)
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    for writer in (asking_writer, dripping_writer, third_writer):
        writer.close()


async def test_who_says_nothing_or_drips_is_hung_up_on_and_who_has_asked_is_not(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEAD_WITHIN", 0.2)
    await running.start({})
    host, _, port = running.address.partition(":")
    silent, silent_writer = await asyncio.open_connection(host, int(port))
    dripping, dripping_writer = await asyncio.open_connection(host, int(port))
    dripping_writer.write(b"GET /-/healthy HT")
    asking, asking_writer = await asyncio.open_connection(host, int(port))
    asking_writer.write(b"GET /-/healthy HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")

    for reader in (silent, dripping):
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
    assert b" 200 " in await asyncio.wait_for(asking.readline(), 5)
    asking_writer.write(b"GET /-/healthy HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert b" 200 " in await asyncio.wait_for(asking.read(), 5)

    for writer in (silent_writer, dripping_writer, asking_writer):
        writer.close()


async def test_one_peer_cannot_take_all_connections(
    running: Running, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Awaitable[object]]
) -> None:
    monkeypatch.setattr(serving, "CONNECTIONS_OF_ONE", 2)
    monkeypatch.setattr(serving, "is_loopback", lambda host: host != "127.0.0.9")
    await running.start({})
    host, _, port = running.address.partition(":")
    greedy = [await asyncio.open_connection(host, int(port), local_addr=("127.0.0.9", 0)) for _ in range(3)]

    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(greedy[2][0].read(), 5) == b""
    assert (await running.get())[0] == 200

    for _, writer in greedy:
        writer.close()
    await until(lambda: "127.0.0.9" not in running.listener._peers)


async def test_handshakes_that_nobody_goes_on_with_are_bounded_and_keep_nobody_out(
    running: Running,
    make_certificate: Make,
    monkeypatch: pytest.MonkeyPatch,
    until: Callable[..., Awaitable[object]],
) -> None:
    monkeypatch.setattr(serving, "CONNECTIONS", 3)
    key, pem = make_certificate(30)
    await running.start(tls_of(key, pem))
    host, _, port = running.address.partition(":")
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
    await until(lambda: len(running.listener._handshakes) == 3)

    assert (await running.get(tls=trusting(pem)))[0] == 200  # in the place of the first
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(silent[0][0].read(), 5) == b""
    assert not silent[1][0].at_eof()
    assert len(running.listener._handshakes) == 2

    for _, writer in silent:
        writer.close()
    await until(lambda: not running.listener._handshakes)


async def test_handshakes_of_one_peer_are_bounded_end_in_time_and_leave_nothing(
    running: Running,
    make_certificate: Make,
    monkeypatch: pytest.MonkeyPatch,
    until: Callable[..., Awaitable[object]],
) -> None:
    monkeypatch.setattr(serving, "CONNECTIONS_OF_ONE", 2)
    monkeypatch.setattr(serving, "HANDSHAKE_LIMIT", 0.5)
    monkeypatch.setattr(serving, "is_loopback", lambda host: host != "127.0.0.9")
    key, pem = make_certificate(30)
    await running.start(tls_of(key, pem))
    host, _, port = running.address.partition(":")
    greedy = [await asyncio.open_connection(host, int(port), local_addr=("127.0.0.9", 0)) for _ in range(3)]

    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(greedy[2][0].read(), 0.3) == b""
    assert (await running.get(tls=trusting(pem)))[0] == 200
    for reader, writer in greedy:
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    await until(lambda: not running.listener._handshakes and "127.0.0.9" not in running.listener._peers)


async def test_a_machine_without_a_free_file_goes_on_listening_once_there_is_one(
    running: Running, make_certificate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "ACCEPT_AGAIN", 0.1)
    key, pem = make_certificate(30)
    await running.start(tls_of(key, pem))
    host, _, port = running.address.partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    await asyncio.sleep(0.05)
    opened = socket.create_connection((host, int(port)))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        await asyncio.sleep(0.05)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert (await running.get(tls=trusting(pem)))[0] == 200
    opened.close()
    writer.close()


async def test_old_tls_and_plain_text_get_no_answer(
    running: Running, make_certificate: Make, binary: Callable[[str], str]
) -> None:
    key, pem = make_certificate(30)
    await running.start(tls_of(key, pem, min_version="TLS13"))

    async def offers(version: str) -> bool:
        asked = await asyncio.create_subprocess_exec(
            *(binary("openssl"), "s_client", "-connect", running.address, version, "-brief"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await asked.wait() == 0

    assert await offers("-tls1_3")
    assert not await offers("-tls1_2")
    with pytest.raises(aiohttp.ClientError):
        await running.get()


async def test_without_a_client_certificate_nobody_comes_in(
    running: Running, make_certificate: Make, binary: Callable[[str], str]
) -> None:
    key, pem = make_certificate(30)
    await running.start(
        tls_of(
            key,
            pem,
            client_auth_type="RequireAndVerifyClientCert",
            client_ca_file=pem.name,
            client_allowed_sans=["localhost"],
        )
    )
    curl = [
        binary("curl"),
        "-sS",
        "--cacert",
        str(pem),
        "--resolve",
        f"localhost:{running.address[10:]}:127.0.0.1",
    ]
    url = f"https://localhost:{running.address.rpartition(':')[2]}/-/healthy"
    certificate = ["--cert", str(pem), "--key", str(key)]

    async def asked(*more: str) -> tuple[int, bytes]:
        process = await asyncio.create_subprocess_exec(
            *curl, *more, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        out, _ = await process.communicate()
        return process.returncode or 0, out

    assert (await asked())[0] != 0
    assert await asked(*certificate) == (0, b"healthy\n")

    write(
        running.folder,
        tls_of(
            key,
            pem,
            client_auth_type="RequireAndVerifyClientCert",
            client_ca_file=pem.name,
            client_allowed_sans=["somebody-else"],
        ),
    )
    await running.exporter.reload_protection()
    assert b"names nobody who is allowed in" in (await asked(*certificate))[1]


async def test_a_real_prometheus_scrapes_over_tls_with_a_password(
    running: Running,
    make_certificate: Make,
    prometheus: Callable[[dict[str, Any]], str],
    until: Callable[..., Awaitable[object]],
) -> None:
    key, pem = make_certificate(30)
    await running.start({**tls_of(key, pem), "basic_auth_users": {"scraper": HASH}})
    access = {
        "scheme": "https",
        "tls_config": {"ca_file": str(pem), "server_name": "localhost"},
    }

    def job(name: str, password: str) -> dict[str, Any]:
        return {
            "job_name": name,
            **access,
            "basic_auth": {"username": "scraper", "password": password},
            "static_configs": [{"targets": [running.address]}],
        }

    address = prometheus(
        {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [job("right", PASSWORD), job("wrong", "wrong")],
        }
    )

    async def ups() -> dict[str, str] | None:
        url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': 'up'})}"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                data = json.loads(await answer.text())
        except (OSError, ValueError):
            return None
        found = {row["metric"]["job"]: row["value"][1] for row in data.get("data", {}).get("result", [])}
        return found if found.get("right") == "1" and "wrong" in found else None

    assert await until(ups, deadline=60, every=0.2) == {"right": "1", "wrong": "0"}


@pytest.mark.parametrize(
    ("web", "mistakes"),
    [
        ([], [": must be a mapping with keys such as tls_server_config"]),
        ({"tls": {}}, ["tls: unknown key"]),
        (
            {"tls_server_config": {"key_file": "absent.pem"}},
            ["tls_server_config.cert_file: is missing"],
        ),
        (
            {"tls_server_config": {"cert_file": "no.pem", "key_file": "no.key"}},
            [
                "tls_server_config.cert_file: cannot be read: No such file or directory",
                "tls_server_config.key_file: cannot be read: No such file or directory",
            ],
        ),
        (
            {"tls_server_config": {"cert_file": "web.yml", "key_file": "web.yml"}},
            ["tls_server_config: the certificates or the key cannot be used"],
        ),
        (
            {"basic_auth_users": {"a": PASSWORD}},
            ["basic_auth_users.a: must be a bcrypt hash with a cost from 4 to 15"],
        ),
        (
            {"basic_auth_users": {"a": HASH.replace("$04$", "$31$")}},
            ["basic_auth_users.a: must be a bcrypt hash with a cost from 4 to 15"],
        ),
        (
            {"basic_auth_users": {"a:b": HASH}},
            ["basic_auth_users.a:b: a user's name is not empty, is printable and has no colon"],
        ),
        (
            {"http_server_config": {"headers": {"X-Other": "1"}}},
            ["http_server_config.headers.X-Other: must be one of Content-Security-Policy"],
        ),
        (
            {"http_server_config": {"headers": {"X-Frame-Options": "a\nb"}}},
            ["http_server_config.headers.X-Frame-Options: a header has printable ASCII characters only"],
        ),
    ],
)
def test_each_rule_of_the_file_names_the_place_that_breaks_it(
    tmp_path: Path, web: dict[str, Any], mistakes: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_web_config(write(tmp_path, web))

    found = [f"{mistake.place}: {mistake.message}" for mistake in caught.value.mistakes]
    assert len(found) == len(mistakes)
    assert all(text.startswith(wanted) for text, wanted in zip(found, mistakes, strict=True)), found


@pytest.mark.parametrize(
    ("more", "mistake"),
    [
        ({"client_auth_type": "RequireAnyClientCert"}, "a certificate that nobody verifies protects nothing"),
        ({"client_auth_type": "Sometimes"}, "must be NoClientCert, VerifyClientCertIfGiven or Require"),
        ({"client_auth_type": "RequireAndVerifyClientCert"}, "belong together"),
        ({"client_ca_file": "cert.pem"}, "belong together"),
        ({"client_allowed_sans": ["x"]}, "client_allowed_sans needs client_auth_type Require"),
        ({"min_version": "TLS10"}, "must be TLS12 or TLS13; older versions are not safe any more"),
        ({"min_version": "TLS13", "max_version": "TLS12"}, "min_version is above max_version"),
        ({"cipher_suites": ["TLS_RSA_WITH_RC4_128_SHA"]}, "must be one of TLS_ECDHE_ECDSA"),
        (
            {"max_version": "TLS12", "cipher_suites": ["TLS_AES_128_GCM_SHA256"]},
            "cipher_suites has none of TLS 1.2",
        ),
        ({"curve_preferences": ["CurveP256", "X25519"]}, "at most 1 entry"),
        ({"curve_preferences": ["P1"]}, "must be one of CurveP256"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    tmp_path: Path, make_certificate: Make, more: dict[str, Any], mistake: str
) -> None:
    key, pem = make_certificate(30)

    with pytest.raises(ConfigError) as caught:
        load_web_config(write(tmp_path, tls_of(key, pem, **more)))

    [found] = caught.value.mistakes
    assert mistake in found.message


@pytest.mark.parametrize("curve", ["CurveP256", "CurveP384", "CurveP521", "X25519"])
def test_curves_and_suites_of_the_go_names_are_honoured(
    tmp_path: Path, make_certificate: Make, curve: str
) -> None:
    key, pem = make_certificate(30)
    suites = ["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"]
    more = {"curve_preferences": [curve], "cipher_suites": suites, "prefer_server_cipher_suites": False}

    config = load_web_config(write(tmp_path, tls_of(key, pem, **more)))

    assert config.context is not None
    older = [found["name"] for found in config.context.get_ciphers() if found["protocol"] != "TLSv1.3"]
    assert older == ["ECDHE-RSA-AES256-GCM-SHA384"]
    assert not config.context.options & ssl.OP_CIPHER_SERVER_PREFERENCE


def test_beyond_loopback_only_who_authenticates_everybody_listens(
    tmp_path: Path, make_certificate: Make
) -> None:
    key, pem = make_certificate(30)
    only_tls = load_web_config(write(tmp_path, tls_of(key, pem)))
    verify = {"client_ca_file": pem.name, "client_auth_type": "VerifyClientCertIfGiven"}
    if_given = load_web_config(write(tmp_path, tls_of(key, pem, **verify)))
    verify["client_auth_type"] = "RequireAndVerifyClientCert"
    mutual = load_web_config(write(tmp_path, tls_of(key, pem, **verify)))
    with_users = load_web_config(write(tmp_path, {"basic_auth_users": {"a": HASH}}))

    refused = [unprotected("0.0.0.0:1", config) is not None for config in (OPEN, only_tls, if_given)]
    allowed = [unprotected("[::]:1", config) is None for config in (mutual, with_users)]

    assert refused == [True, True, True]
    assert allowed == [True, True]
    assert unprotected("127.0.0.1:1", OPEN) is None


async def test_a_reload_that_would_leave_an_open_port_unprotected_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_text("exporter: {fast_path: false, web_config: web.yml}")
    protection = load_web_config(write(tmp_path, {"basic_auth_users": {"a": HASH}}))
    exporter = Exporter(file, load_config(file, WatchConfig), "192.0.2.1:1", web_config=protection)
    await exporter.start()
    try:
        file.write_text("exporter: {fast_path: false}")
        with pytest.raises(ConfigError, match="refused to listen on"):
            await exporter.reload()

        assert exporter.door.config is protection
    finally:
        await exporter.stop()


@pytest.mark.parametrize("option", [(), ("--web.config.file", "web.yml")])
def test_the_command_serves_as_the_web_configuration_says(
    option: tuple[str, ...],
    tmp_path: Path,
    free_port: Callable[[], int],
    launch: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    port = free_port()
    write(tmp_path, {"basic_auth_users": {"scraper": HASH}})
    named = "" if option else ", web_config: web.yml"
    (tmp_path / "soulfra.yml").write_text(
        f"exporter: {{fast_path: false, listen: '127.0.0.1:{port}'{named}}}\nservices: {{a: {{}}, b: {{}}}}\n"
    )
    command = [sys.executable, "-c", "from exporter.cli import exporter; exporter()"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = ("--config", "soulfra.yml", *option, "--shard", "1/2")
    launch(*command, *arguments, cwd=tmp_path, env=environment)

    def ask(headers: dict[str, str]) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/state", headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    deadline = time.monotonic() + 20
    while True:
        try:
            assert ask({})[0] == 401
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    status, text = ask(SCRAPER)
    assert status == 200
    assert set(json.loads(text)["services"]) == {name for name in "ab" if Shard(1, 2).has(name)}


async def test_the_command_shows_new_certificates_and_asks_for_those_of_clients(
    running: Running,
    make_certificate: Make,
    binary: Callable[[str], str],
    launch: Callable[..., "subprocess.Popen[bytes]"],
    until: Callable[..., Awaitable[object]],
) -> None:
    """As its own process, because only that one has the event loop of production."""
    address, folder = running.address, running.folder
    port = address.rpartition(":")[2]
    mutual = {"client_auth_type": "RequireAndVerifyClientCert", "client_allowed_sans": ["localhost"]}
    key, pem = make_certificate(30)
    write(folder, tls_of(key, pem, client_ca_file=pem.name, **mutual))
    (folder / "soulfra.yml").write_text(
        f"exporter: {{fast_path: false, listen: '{address}', web_config: web.yml}}\nservices: {{a: {{}}}}\n"
    )
    command = [sys.executable, "-c", "from exporter.cli import exporter; exporter()"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    launch(*command, "--config", "soulfra.yml", cwd=folder, env=environment)
    program = binary("curl")

    async def asked(*more: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            *(program, "-s", "--cacert", str(pem), "--resolve", f"localhost:{port}:127.0.0.1", *more),
            f"https://localhost:{port}/-/healthy",
            stdout=asyncio.subprocess.PIPE,
        )
        return (await process.communicate())[0]

    shown = ["--cert", str(pem), "--key", str(key)]
    await until(lambda: asked(*shown), every=0.1)
    assert await asked(*shown) == b"healthy\n"
    assert await asked() == b""

    make_certificate(60)  # in the same files: the old one is neither shown nor trusted any more
    assert await until(lambda: asked(*shown), every=0.1) == b"healthy\n"


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (("--shard", "2/2"), "--shard: must be INDEX/COUNT"),
        (("--web.config.file", "absent.yml"), "absent.yml: cannot be read: No such file or directory"),
        (("--web.config.file", "web.yml"), "web.yml:1: basic_auth_users.a: must be a bcrypt hash"),
        (("--listen", "192.0.2.1:1"), "give a web configuration with basic_auth_users"),
    ],
)
def test_the_command_refuses_what_would_not_protect(
    tmp_path: Path, arguments: tuple[str, ...], refusal: str
) -> None:
    (tmp_path / "soulfra.yml").write_text("exporter: {fast_path: false}")
    (tmp_path / "web.yml").write_text("basic_auth_users: {a: plain}")
    command = [sys.executable, "-c", "from exporter.cli import exporter; exporter()"]

    done = subprocess.run(
        [*command, "--config", "soulfra.yml", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )

    assert done.returncode == 2
    assert refusal in done.stderr


def test_bcrypt_is_imported_only_when_somebody_has_users() -> None:
    program = "import sys, exporter.app; sys.exit('bcrypt' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False, env=os.environ).returncode == 0


async def sent_raw(running: Running, sent: bytes) -> bytes:
    """Send bytes, and return what comes back until the peer hangs up."""
    host, port = split_address(running.address)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(sent)
    answer = b""
    with suppress(ConnectionResetError):  # when bytes of ours are unread; the answer comes before
        while piece := await asyncio.wait_for(reader.read(65_536), 5):
            answer += piece
    writer.close()
    return answer


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x-echo: b\r\n" * 20_000 + b"\r\n",
        bytes(range(256)) * 80,
    ],
    ids=["length", "path", "headers", "binary"],
)
async def test_what_is_no_http_is_answered_briefly_and_fills_no_log(
    running: Running, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    await running.start({})
    answer = await sent_raw(running, sent)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert b"Server: soulfra\r\n" in head + b"\r\n"
    assert body == b"bad request\n"
    assert [one.message for one in caplog.records if one.levelno > logging.INFO] == []


async def test_credentials_that_are_no_text_are_refused_and_no_fault_of_ours(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    await running.start({"basic_auth_users": {"scraper": HASH}})
    answer = await sent_raw(
        running,
        b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Basic \xe9\xff\r\n\r\n",
    )

    assert b" 401 " in answer.partition(b"\r\n")[0]
    assert running.exporter.counters.internal_errors.total() == 0
    assert [one.message for one in caplog.records if one.levelno > logging.INFO] == []


async def test_a_request_that_fails_writes_no_lines_of_its_own_into_the_log(
    running: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running.start({})

    async def broken(_door: Door, _request: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(Door, "refusal", broken)
    await sent_raw(running, b"GET /x%0aERROR%20all%20is%20lost HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")

    told = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert told == ["GET /x%0aERROR%20all%20is%20lost failed"]


async def test_answers_tell_no_versions(running: Running) -> None:
    await running.start({})
    answer = await sent_raw(running, b"GET /-/healthy HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")

    assert b"Server: soulfra\r\n" in answer
    assert b"aiohttp" not in answer
