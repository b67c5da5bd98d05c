"""The resolver against a real DNS server, whose names change."""

import asyncio
import contextlib
import os
import pwd
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import dns.message as dns_message
import dns.rrset as dns_rrset
import pytest
import uvloop

from exporter.kinds.tcp import TcpProbe
from exporter.observation import Reason
from exporter.probes import resolver as resolving
from exporter.probes.context import Context, Tools
from exporter.probes.resolver import Resolver
from exporter.probes.tcp import probe

Until = Callable[..., Awaitable[Any]]


class Dns:
    """A dnsmasq that knows the names of a hosts file."""

    def __init__(
        self, argv: list[str], launch: Callable[..., "subprocess.Popen[bytes]"], hosts: Path
    ) -> None:
        self._hosts = hosts
        self._argv = argv
        self._launch = launch
        self.address = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, port: int, hosts: dict[str, str], ttl: int, *more: str) -> Resolver:
        self.address = f"127.0.0.1:{port}"
        self._write(hosts)
        self.process = self._launch(*self._argv, f"--port={port}", f"--local-ttl={ttl}", *more)
        return Resolver(servers=(self.address,))

    def change(self, hosts: dict[str, str]) -> None:
        assert self.process is not None
        self._write(hosts)
        self.process.send_signal(signal.SIGHUP)

    def end(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def _write(self, hosts: dict[str, str]) -> None:
        self._hosts.write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))


@pytest.fixture
def dns(
    binary: Callable[[str], str], launch: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path
) -> Dns:
    hosts = tmp_path / "names"
    argv = [binary("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]
    argv += [f"--addn-hosts={hosts}", "--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file="]
    argv += [f"--user={pwd.getpwuid(os.getuid()).pw_name}", "--local=/test/"]
    tmp_path.chmod(0o755)
    return Dns(argv, launch, hosts)


@pytest.fixture
async def serve(
    dns: Dns, free_port: Callable[[], int], until: Until
) -> AsyncIterator[Callable[..., Awaitable[Resolver]]]:
    """Start the server with names and a TTL; return a resolver that asks it, with nothing counted yet."""
    made: list[Resolver] = []

    async def start(hosts: dict[str, str], ttl: int, *more: str, ready: str = "ready.test") -> Resolver:
        resolver = dns.start(free_port(), {ready: "127.0.0.1", **hosts}, ttl, *more)
        made.append(resolver)
        await until(lambda: knows(resolver, ready, "127.0.0.1"))
        resolver.counts.lookups = resolver.counts.hits = resolver.counts.failures = 0
        return resolver

    yield start
    for resolver in made:
        await resolver.close()


@pytest.fixture
def silent() -> Iterator[str]:
    """Be a server that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{deaf.getsockname()[1]}"


async def knows(resolver: Resolver, name: str, address: str) -> bool:
    with contextlib.suppress(socket.gaierror):
        return await resolver.addresses(name) == (address,)
    return False


def system_knows(monkeypatch: pytest.MonkeyPatch, names: dict[str, str]) -> list[str]:
    """Have the system's resolver know these names alone; return the list of what it is asked."""
    asked: list[str] = []

    def getaddrinfo(host: str, *_: object) -> list[Any]:
        asked.append(host)
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (names[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    ("host", "version", "address"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("::1", None, "::1"),
        ("::1", 6, "::1"),
        ("fe80::1%lo", None, "fe80::1%lo"),
        ("LOCALHOST.", 4, "127.0.0.1"),
    ],
)
async def test_addresses_and_localhost_ask_nobody(
    tmp_path: Path, host: str, version: Any, address: str
) -> None:
    resolver = Resolver(servers=("127.0.0.1:1",), hosts=tmp_path / "none")

    assert await resolver.addresses(host, version) == (address,)
    assert resolver.counts.lookups == 0
    assert resolver._dns is None


BOTH, ONE = "::1 ip6-localhost localhost # both\n127.0.0.1\tlocalhost\n", "127.0.0.1 localhost\n"


@pytest.mark.parametrize(
    ("hosts", "version", "addresses"),
    [
        (BOTH, None, ("127.0.0.1", "::1")),
        (BOTH, 4, ("127.0.0.1",)),
        (BOTH, 6, ("::1",)),
        (ONE, None, ("127.0.0.1",)),
        (ONE, 6, ()),
        ("127.0.1.1 localhost\n", None, ("127.0.1.1",)),
        ("10.0.0.1 localhost\n127.0.0.1 shop # localhost\n", None, ("127.0.0.1", "::1")),
        ("", 6, ("::1",)),
    ],
)
async def test_localhost_is_what_the_file_of_hosts_says(
    tmp_path: Path, hosts: str, version: Any, addresses: tuple[str, ...]
) -> None:
    file = tmp_path / "hosts"
    file.write_text(hosts)
    resolver = Resolver(hosts=file)

    if addresses:
        assert await resolver.addresses("localhost", version) == addresses
        return
    with pytest.raises(socket.gaierror):
        await resolver.addresses("localhost", version)


async def test_localhost_falls_back_to_ipv4_where_the_file_has_no_other(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text(ONE)
    tools = Tools(resolver=Resolver(hosts=file))

    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        config = TcpProbe.model_validate({"tcp": f"localhost:{port}", "ip_version": 6})
        outcome = await probe(config, Context(timeout=2.0, tools=tools))
    await tools.close()

    assert (outcome.reason, outcome.address) == (None, "127.0.0.1")


async def test_the_file_of_hosts_is_read_anew_at_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text(ONE)
    resolver = Resolver(hosts=file)
    assert await resolver.addresses("localhost") == ("127.0.0.1",)

    file.write_text(BOTH)
    assert await resolver.addresses("localhost") == ("127.0.0.1",)
    resolver.forget()

    assert await resolver.addresses("localhost") == ("127.0.0.1", "::1")


@pytest.mark.parametrize(("host", "version"), [("127.0.0.1", 6), ("::1", 4)])
async def test_an_address_of_the_other_ip_version_is_none(host: str, version: Any) -> None:
    with pytest.raises(socket.gaierror):
        await Resolver().addresses(host, version)


async def test_an_address_is_kept_for_its_ttl_and_no_longer(dns: Dns, serve: Any, until: Until) -> None:
    resolver = await serve({"shop.test": "127.0.0.2"}, 1)
    assert await resolver.addresses("shop.test") == ("127.0.0.2",)

    dns.change({"shop.test": "127.0.0.3"})
    kept = await resolver.addresses("shop.test")
    await until(lambda: knows(resolver, "shop.test", "127.0.0.3"), deadline=2.5)

    assert kept == ("127.0.0.2",)
    assert resolver.counts.hits >= 1
    assert resolver.counts.lookups in (2, 3)
    assert resolver.counts.failures == 0


async def test_what_has_no_ttl_is_asked_each_time(serve: Any) -> None:
    resolver = await serve({"shop.test": "127.0.0.2"}, 0)

    for _ in range(3):
        await resolver.addresses("shop.test")

    assert (resolver.counts.lookups, resolver.counts.hits) == (3, 0)


async def test_a_long_ttl_is_cut(dns: Dns, serve: Any, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "KEPT_AT_MOST", 0.4)
    resolver = await serve({"shop.test": "127.0.0.2"}, 3600)
    await resolver.addresses("shop.test")

    dns.change({"shop.test": "127.0.0.3"})

    await until(lambda: knows(resolver, "shop.test", "127.0.0.3"), deadline=2.0)


async def test_a_name_that_was_unknown_is_known_as_soon_as_it_is(
    dns: Dns, serve: Any, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The zone says that its "no such name" is good for 20 minutes.
    zone = ("--auth-zone=zone.test", "--auth-server=ns.zone.test,lo", "--auth-ttl=1200")
    resolver = await serve({}, 0, *zone, ready="ready.zone.test")
    system_knows(monkeypatch, {})
    with pytest.raises(socket.gaierror):
        await resolver.addresses("new.zone.test")

    dns.change({"new.zone.test": "127.0.0.4"})

    await until(lambda: knows(resolver, "new.zone.test", "127.0.0.4"), deadline=2.0)
    assert resolver.counts.failures >= 1


async def test_the_same_question_at_the_same_time_is_asked_once(serve: Any) -> None:
    resolver = await serve({"shop.test": "127.0.0.2"}, 60)

    found = await asyncio.gather(*(resolver.addresses("Shop.test") for _ in range(50)))

    assert set(found) == {("127.0.0.2",)}
    assert resolver.counts.lookups == 1


async def test_one_ip_version_can_be_asked_for(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    system_knows(monkeypatch, {})
    resolver = await serve({"four.test": "127.0.0.2", "six.test": "::2"}, 60)

    assert await resolver.addresses("four.test", 4) == ("127.0.0.2",)
    assert await resolver.addresses("six.test", 6) == ("::2",)
    for name, version in (("four.test", 6), ("six.test", 4)):
        with pytest.raises(socket.gaierror):
            await resolver.addresses(name, version)


async def test_while_the_server_is_down_what_is_kept_is_used_until_its_ttl(
    dns: Dns, serve: Any, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    system_knows(monkeypatch, {})
    resolver = await serve({"shop.test": "127.0.0.2"}, 1)
    await resolver.addresses("shop.test")

    dns.end()

    assert await resolver.addresses("shop.test") == ("127.0.0.2",)
    context = Context(timeout=2.0, tools=Tools(resolver=resolver))

    async def no_longer() -> bool:
        outcome = await probe(TcpProbe(tcp="shop.test:1"), context)
        assert outcome.reason in (Reason.DNS, Reason.CONNECT_REFUSED)
        return outcome.reason is Reason.DNS

    await until(no_longer, deadline=3.0)


async def test_a_probe_of_a_name_goes_to_its_new_address_after_the_ttl(
    dns: Dns, serve: Any, until: Until
) -> None:
    resolver = await serve({"shop.test": "127.0.0.2"}, 1)
    server = await asyncio.start_server(lambda _, writer: writer.close(), ("127.0.0.2", "127.0.0.3"), 0)
    ports = {listener.getsockname()[0]: listener.getsockname()[1] for listener in server.sockets}
    context = Context(timeout=2.0, tools=Tools(resolver=resolver))

    async def reached() -> str:
        return (await probe(TcpProbe(tcp=f"shop.test:{ports['127.0.0.3']}"), context)).address

    assert await reached() == "127.0.0.2"
    dns.change({"shop.test": "127.0.0.3"})

    async def moved() -> bool:
        return await reached() == "127.0.0.3"

    await until(moved, deadline=2.5)
    server.close()
    await server.wait_closed()


async def test_a_silent_server_costs_a_probe_its_timeout_and_is_told_as_dns(silent: str) -> None:
    resolver = Resolver(servers=(silent,))
    context = Context(timeout=0.3, tools=Tools(resolver=resolver))
    loop = asyncio.get_running_loop()

    started = loop.time()
    outcomes = await asyncio.gather(*(probe(TcpProbe(tcp="shop.test:1"), context) for _ in range(20)))

    assert loop.time() - started < 1.0
    assert {outcome.reason for outcome in outcomes} == {Reason.DNS}
    assert outcomes[0].detail == "the host name was not resolved within 0.3 s"
    assert resolver.counts.lookups == 1
    await resolver.close()
    assert not resolver._asking


async def test_who_stops_waiting_takes_the_answer_from_nobody(serve: Any) -> None:
    resolver = await serve({"shop.test": "127.0.0.2"}, 60)
    first = asyncio.create_task(resolver.addresses("shop.test"))
    second = asyncio.create_task(resolver.addresses("shop.test"))
    await asyncio.sleep(0)

    first.cancel()

    assert await second == ("127.0.0.2",)
    assert first.cancelled() or first.done()


async def test_what_dns_does_not_know_is_asked_of_the_system(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = await serve({"shop.test": "127.0.0.2"}, 60)
    asked = system_knows(monkeypatch, {"printer.test": "127.0.0.9"})

    assert await resolver.addresses("shop.test") == ("127.0.0.2",)
    assert asked == []
    for _ in range(3):
        assert await resolver.addresses("printer.test") == ("127.0.0.9",)
    assert asked == ["printer.test"]


async def test_a_server_that_cannot_tell_is_no_reason_to_ask_the_system(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = await serve({}, 60)  # it refuses what is not in its own domain
    asked = system_knows(monkeypatch, {"shop.elsewhere": "127.0.0.9"})

    with pytest.raises(socket.gaierror):
        await resolver.addresses("shop.elsewhere")

    assert asked == []


async def test_the_system_alone_can_be_asked(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = await serve({"shop.test": "127.0.0.2"}, 60)
    asked = system_knows(monkeypatch, {"shop.test": "127.0.0.9"})
    resolver.source = "system"
    resolver.forget()

    for _ in range(3):
        assert await resolver.addresses("shop.test") == ("127.0.0.9",)
    assert asked == ["shop.test"]
    assert (resolver.counts.lookups, resolver.counts.hits) == (1, 2)


async def test_only_so_many_names_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "CACHE_SIZE", 10)
    system_knows(monkeypatch, {f"s{number}.test": "127.0.0.9" for number in range(30)})
    resolver = Resolver()
    resolver.source = "system"

    for number in range(30):
        await resolver.addresses(f"s{number}.test")

    assert len(resolver._kept) == 10
    assert ("s29.test", None) in resolver._kept
    await resolver.close()


@pytest.mark.parametrize(
    "host",
    ["a..b", "x" * 300, "b\u00fc.test", ".", "", "a b", "\ud800x", "a" * 64 + ".test", "a\0b", "[::1]"],
)
async def test_what_is_no_host_name_is_told_as_unknown(serve: Any, host: str) -> None:
    resolver = await serve({}, 60)

    with pytest.raises(socket.gaierror):
        await resolver.addresses(host)


def test_names_are_resolved_on_the_loop_that_the_exporter_uses(
    dns: Dns, free_port: Callable[[], int]
) -> None:
    async def ask() -> tuple[str, ...]:
        resolver = dns.start(free_port(), {"shop.test": "127.0.0.2"}, 60)
        for _ in range(100):
            if await knows(resolver, "shop.test", "127.0.0.2"):
                break
            await asyncio.sleep(0.05)
        found = await resolver.addresses("shop.test")
        await resolver.close()
        return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == ("127.0.0.2",)


def answer_all(server: socket.socket) -> None:
    """Know every name at once, but for those that begin with ``slow`` or ``never``."""
    while True:
        data, address = server.recvfrom(512)
        if not data:
            return
        query = dns_message.from_wire(data)
        asked = query.question[0]
        answer = dns_message.make_response(query)
        if asked.rdtype == 1:
            answer.answer.append(dns_rrset.from_text(asked.name, 1, "IN", "A", "127.0.0.5"))
        if asked.name.to_text().startswith("slow"):
            threading.Timer(0.6, server.sendto, (answer.to_wire(), address)).start()
        elif not asked.name.to_text().startswith("never"):
            server.sendto(answer.to_wire(), address)


@pytest.fixture
async def quick() -> AsyncIterator[Resolver]:
    """Return a resolver that has had quick answers only."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        answering = threading.Thread(target=answer_all, args=(server,))
        answering.start()
        resolver = Resolver(servers=("{}:{}".format(*server.getsockname()),))
        for number in range(20):
            await resolver.addresses(f"quick{number}.test")
        yield resolver
        await resolver.close()
        await asyncio.sleep(0.7)  # the last slow answers go out
        server.sendto(b"", server.getsockname())
        answering.join(5)


async def test_a_server_that_was_quick_so_far_is_waited_for_as_long_as_any(quick: Resolver) -> None:
    found = await asyncio.gather(*(quick.addresses(f"slow{number}.test") for number in range(5)))

    assert set(found) == {("127.0.0.5",)}
    assert quick.counts.failures == 0


async def test_a_server_that_was_quick_so_far_is_given_up_in_time_too(quick: Resolver) -> None:
    started = time.monotonic()
    with pytest.raises(socket.gaierror) as raised:
        await quick.addresses("never.test")

    assert raised.value.errno == socket.EAI_AGAIN
    assert time.monotonic() - started < resolving.PATIENCE + 1
