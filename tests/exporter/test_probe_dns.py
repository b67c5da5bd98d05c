"""The DNS probe against a real dnsmasq, and against servers that misbehave."""

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from exporter.gate import gate_of
from exporter.kinds.dns import DnsExpect, DnsProbe
from exporter.observation import Outcome, Reason
from exporter.probes import dns as probing
from exporter.probes.context import Context, Note, Tools


async def ask(context: Context, server: str, query: str = "www.shop.test", **more: Any) -> Outcome:
    config = DnsProbe.model_validate({"dns": server, "query": query, **more})
    return await probing.probe(config, context)


@pytest.fixture
async def server(
    launch: Callable[..., object],
    binary: Callable[[str], str],
    free_port: Callable[[], int],
    until: Callable[..., Any],
    context: Context,
) -> str:
    """Start a dnsmasq that knows shop.test and passes nothing on."""
    port = free_port()
    records = [
        "--host-record=www.shop.test,192.0.2.10,2001:db8::10",
        "--host-record=mail.shop.test,192.0.2.20",
        "--cname=old.shop.test,www.shop.test",
        "--mx-host=shop.test,mail.shop.test,10",
        "--txt-record=shop.test,v=spf1 -all",
        "--srv-host=_imap._tcp.shop.test,mail.shop.test,993",
        "--caa-record=shop.test,0,issue,ca.test",
        "--local=/shop.test/",
        *("--auth-zone=zone.test,192.0.2.0/24", "--auth-server=ns.zone.test,127.0.0.99"),
        *("--auth-soa=2026112401,hostmaster.zone.test,1200,120,604800", "--auth-peer=192.0.2.254"),
        "--host-record=a.zone.test,192.0.2.30",
    ]
    records += [f"--txt-record=big.shop.test,{'x' * 200}{number}" for number in range(40)]
    quiet = ["--no-resolv", "--no-hosts", "--no-daemon", "--conf-file=/dev/null", "--bind-interfaces"]
    places = ["--listen-address=127.0.0.1", f"--port={port}", "--pid-file="]
    launch(binary("dnsmasq"), *quiet, *places, *records)

    async def answers() -> bool:
        return (await ask(context, f"127.0.0.1:{port}")).reason is None

    await until(answers)
    return f"127.0.0.1:{port}"


RECORDS = [
    ("www.shop.test", "A", r"^www\.shop\.test\.\t0\tIN\tA\t192\.0\.2\.10$"),
    ("www.shop.test", "AAAA", r"\tAAAA\t2001:db8::10$"),
    ("old.shop.test", "CNAME", r"\tCNAME\twww\.shop\.test\.$"),
    ("shop.test", "MX", r"\tMX\t10 mail\.shop\.test\.$"),
    ("shop.test", "TXT", r'\tTXT\t"v=spf1 -all"$'),
    ("_imap._tcp.shop.test", "SRV", r"\tSRV\t0 0 993 mail\.shop\.test\.$"),
    ("shop.test", "CAA", r'\tCAA\t0 issue "ca\.test"$'),
    ("192.0.2.20", "PTR", r"^20\.2\.0\.192\.in-addr\.arpa\.\t.*mail\.shop\.test\.$"),
]


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_records_of_a_real_server_are_read(server: str, context: Context, protocol: str) -> None:
    for query, kind, record in RECORDS:
        wanted = {"answer": [record]}
        outcome = await ask(context, server, query, type=kind, protocol=protocol, expect=wanted)

        assert outcome.reason is None, outcome.detail
        assert {"connect", "processing"} <= outcome.phases.keys()
        assert next(reading.value for reading in outcome.readings if reading.measure is probing.ANSWER) >= 1


async def test_response_codes_are_held_against_those_expected(server: str, context: Context) -> None:
    missing = await ask(context, server, "nobody.shop.test")
    wanted = await ask(context, server, "nobody.shop.test", expect={"rcode": ["NXDOMAIN", "SERVFAIL"]})
    refused = await ask(context, server, "elsewhere.test")

    assert [missing.reason, wanted.reason, refused.reason] == [Reason.STATUS, None, Reason.STATUS]
    assert missing.detail == "answered NXDOMAIN, expected NOERROR"
    assert refused.detail == "answered REFUSED, expected NOERROR"


async def test_a_truncated_answer_says_so_when_it_does_not_do(server: str, context: Context) -> None:
    wanted = {"answer": {"at_least": 40}}
    by_udp = await ask(context, server, "big.shop.test", type="TXT", expect=wanted)
    by_tcp = await ask(context, server, "big.shop.test", type="TXT", expect=wanted, protocol="tcp")

    assert by_udp.reason is Reason.ANSWER
    assert "truncated; protocol: tcp" in by_udp.detail
    assert by_tcp.reason is None, by_tcp.detail


async def test_each_record_is_noted(server: str, tools: Tools) -> None:
    notes: list[Note] = []
    await ask(Context(timeout=2.0, tools=tools, notes=notes), server)

    told = [note.text for note in notes]
    assert told[0] == "asking for www.shop.test A by udp"
    assert "answered NOERROR" in told
    assert "record www.shop.test. 0 IN A 192.0.2.10" in told


async def test_a_closed_port_is_connect_refused(context: Context, free_port: Callable[[], int]) -> None:
    for protocol in ("udp", "tcp"):
        outcome = await ask(context, f"127.0.0.1:{free_port()}", protocol=protocol)
        assert outcome.reason is Reason.CONNECT_REFUSED, protocol


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_the_gate_is_asked(tools: Tools, protocol: str) -> None:
    narrow = Context(timeout=1.0, tools=tools, gate=gate_of(["192.0.2.1"]))

    assert (await ask(narrow, "127.0.0.1:9", protocol=protocol)).reason is Reason.FORBIDDEN


class Server(asyncio.DatagramProtocol):
    """Answers each question with the datagrams that *reply* makes."""

    def __init__(self, reply: Callable[[bytes], list[bytes]]) -> None:
        self.reply = reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: Any) -> None:
        for datagram in self.reply(data):
            self.transport.sendto(datagram, address)


async def ask_stranger(
    context: Context, reply: Callable[[bytes], list[bytes]], protocol: str = "udp", **more: Any
) -> Outcome:
    if protocol == "udp":
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: Server(reply), local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        try:
            return await ask(context, f"127.0.0.1:{port}", **more)
        finally:
            transport.abort()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        for message in reply(await reader.readexactly(length)):
            writer.write(len(message).to_bytes(2, "big") + message)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        return await ask(context, f"127.0.0.1:{port}", protocol="tcp", **more)


def good(wire: bytes, name: str = "www.shop.test.", records: int = 1) -> bytes:
    response = dns.message.make_response(dns.message.from_wire(wire))
    texts = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(records)]
    response.answer.append(dns.rrset.from_text_list(name, 60, "IN", "A", texts))
    return response.to_wire()


def other_id(wire: bytes) -> bytes:
    answer = good(wire)
    return bytes([answer[0] ^ 1]) + answer[1:]


def other_question(wire: bytes) -> bytes:
    asked = dns.message.make_query("evil.test", "A", id=int.from_bytes(wire[:2], "big"))
    return good(asked.to_wire(), "evil.test.")


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("reply", "udp", "tcp"),
    [
        (lambda wire: [], Reason.TIMEOUT, Reason.RESET),
        (lambda wire: [wire[:2] + b"garbage"], Reason.PROTOCOL, Reason.PROTOCOL),
        (lambda wire: [b""], Reason.TIMEOUT, Reason.PROTOCOL),
        (lambda wire: [wire], Reason.PROTOCOL, Reason.PROTOCOL),
        (lambda wire: [other_id(wire)], Reason.TIMEOUT, Reason.PROTOCOL),
        (lambda wire: [other_id(wire), good(wire)], None, Reason.PROTOCOL),
        (lambda wire: [other_id(wire)] * 200, Reason.PROTOCOL, Reason.PROTOCOL),
        (lambda wire: [other_question(wire)], Reason.PROTOCOL, Reason.PROTOCOL),
        (lambda wire: [good(wire, records=2000)], None, None),
        (lambda wire: [good(wire) + b"more"], Reason.PROTOCOL, Reason.PROTOCOL),
        (lambda wire: [good(wire)[:-3]], Reason.PROTOCOL, Reason.PROTOCOL),
    ],
    ids=[
        *("silence", "garbage", "nothing", "echo", "other id", "other id first", "flood"),
        *("other question", "many records", "trailing bytes", "cut short"),
    ],
)
async def test_answers_that_are_none_are_named(
    tools: Tools,
    reply: Callable[[bytes], list[bytes]],
    udp: Reason | None,
    tcp: Reason | None,
    protocol: str,
) -> None:
    expected = udp if protocol == "udp" else tcp
    limit = 0.4 if expected is Reason.TIMEOUT else 5.0

    outcome = await ask_stranger(Context(timeout=limit, tools=tools), reply, protocol)

    assert outcome.reason is expected, outcome.detail


async def test_an_answer_from_another_address_is_not_taken(tools: Tools) -> None:
    loop = asyncio.get_running_loop()
    forger, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))

    class Elsewhere(Server):
        def datagram_received(self, data: bytes, address: Any) -> None:
            forger.sendto(good(data), address)

    transport, _ = await loop.create_datagram_endpoint(
        lambda: Elsewhere(lambda wire: []), local_addr=("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    outcome = await ask(Context(timeout=0.3, tools=tools), f"127.0.0.1:{port}")
    forger.abort()
    transport.abort()

    assert outcome.reason is Reason.TIMEOUT


async def test_a_serial_is_read_and_recursion_asked_for_as_told(context: Context) -> None:
    flags = []

    def reply(wire: bytes) -> list[bytes]:
        query = dns.message.from_wire(wire)
        flags.append(bool(query.flags & dns.flags.RD))
        response = dns.message.make_response(query)
        soa = "ns.shop.test. hostmaster.shop.test. 2026112401 1200 120 604800 60"
        response.answer.append(dns.rrset.from_text("shop.test.", 60, "IN", "SOA", soa))
        return [response.to_wire()]

    outcomes = [
        await ask_stranger(context, reply, query="shop.test", type="SOA", recursion=recursion)
        for recursion in (True, False)
    ]

    assert flags == [True, False]
    values = {reading.measure.name: reading.value for reading in outcomes[0].readings}
    assert values == {
        "dns_answer_rrs": 1,
        "dns_authority_rrs": 0,
        "dns_additional_rrs": 0,
        "dns_serial": 2026112401,
    }


async def test_dns_over_tls_is_verified_and_its_expiry_known(
    context: Context, make_certificate: Callable[[int], tuple[Path, Path]]
) -> None:
    key, pem = make_certificate(30)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(pem, key)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        message = good(await reader.readexactly(length))
        writer.write(len(message).to_bytes(2, "big") + message)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0, ssl=serving) as listening:
        place = f"localhost:{listening.sockets[0].getsockname()[1]}"
        more: dict[str, Any] = {"protocol": "tls", "ip_version": 4}
        right = await ask(context, place, tls={"ca_file": str(pem)}, **more)
        stranger = await ask(context, place, **more)

    assert [right.reason, stranger.reason] == [None, Reason.TLS_VERIFY]
    for outcome in (right, stranger):
        assert outcome.tls is not None
        assert outcome.tls.not_after == pytest.approx(time.time() + 30 * 86400, abs=120)


TWO = ("10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize(
    ("records", "wanted", "fits"),
    [
        (TWO, ["0.1$", "0.2$"], True),
        (TWO, ["0.1$", "0.3$"], False),
        (TWO, {"any": ["0.3$", "0.2$"]}, True),
        (TWO, {"any": ["0.3$"]}, False),
        ((), {"any": ["1"]}, False),
        (TWO, {"every": ["^x", "10"]}, False),
        (TWO, {"every": ["A\t10.0"]}, True),
        (TWO, {"every": ["0.1$"]}, False),
        ((), {"every": ["1"]}, False),
        (TWO, {"none": ["0.3$"]}, True),
        (TWO, {"none": ["0.3$", "0.2$"]}, False),
        ((), {"none": ["1"]}, True),
        (TWO, {"not_every": ["10.0"]}, False),
        (TWO, {"not_every": ["10.0", "0.1$"]}, True),
        ((), {"not_every": ["1"]}, True),
        (TWO, {"at_least": 2}, True),
        (TWO, {"at_least": 3}, False),
    ],
)
@pytest.mark.parametrize("section", ["answer", "authority", "additional"])
def test_records_are_held_against_what_is_expected(
    section: str, records: tuple[str, ...], wanted: Any, fits: bool
) -> None:
    query = dns.message.make_query("www.shop.test", "A")
    response = dns.message.make_response(query)
    if records:
        rrset = dns.rrset.from_text_list("www.shop.test.", 60, "IN", "A", records)
        getattr(response, section).append(rrset)
    expect = DnsExpect.model_validate({section: wanted})

    _, failure = probing.read_and_judge(response.to_wire(), query, expect)

    assert (failure is None) is fits, failure
