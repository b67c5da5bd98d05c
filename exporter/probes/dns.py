"""Ask a name server one question by UDP, TCP or TLS, and judge what it answers.

Messages are made and read by dnspython; the way there is the one of all probes, so that the gate is asked.
"""

import asyncio
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import re2

from exporter.kinds.dns import DnsExpect, DnsProbe, Records
from exporter.observation import Measure, Outcome, Reading, Reason
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.dial import allowed_address, dial_stream, preferred_version, secured

ANSWER = Measure(name="dns_answer_rrs", help="Records in the answer section of the last answer.")
AUTHORITY = Measure(name="dns_authority_rrs", help="Records in the authority section of the last answer.")
ADDITIONAL = Measure(name="dns_additional_rrs", help="Records in the additional section of the last answer.")
SERIAL = Measure(name="dns_serial", help="Serial number of the zone in the last answer's SOA record.")

_STRAYS = 100  # datagrams that are not the answer
_LARGE = 2048  # bytes; more takes too long to read on the loop
# What dnspython raises over bytes that are not DNS.
_GARBLED = (dns.exception.DNSException, ValueError, LookupError, TypeError, struct.error)


class GarbledError(Exception):
    """The peer's bytes are not the answer to the question."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is judged of an answer, each record as text."""

    rcode: str
    truncated: bool
    answer: tuple[str, ...]
    authority: tuple[str, ...]
    additional: tuple[str, ...]
    serial: int | None


class _Inbox(asyncio.DatagramProtocol):
    """Takes the datagram that answers the question and nothing else."""

    def __init__(self, question: int, progress: Progress) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._id = question.to_bytes(2, "big")
        self._strays = 0
        self._progress = progress

    def datagram_received(self, data: bytes, _address: object) -> None:
        if self.answer.done():
            return
        if data[:2] == self._id:
            self.answer.set_result(data)
            return
        # Anybody can send datagrams in the server's name; only who saw the question knows its number.
        self._strays += 1
        if self._strays > _STRAYS:
            self.answer.set_exception(GarbledError(f"more than {_STRAYS} datagrams with another id"))
        elif self._strays == 1:
            self._progress.note("passed over a datagram of %d bytes with another id", len(data))

    def error_received(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


async def probe(config: DnsProbe, context: Context) -> Outcome:
    """Ask once and judge the answer. Never raises: a failure is the outcome."""
    progress = context.progress()
    return await guarded(_ask(config, context, progress), progress, context.timeout)


async def _ask(config: DnsProbe, context: Context, progress: Progress) -> Outcome:
    query = dns.message.make_query(
        config.question(), config.type, config.class_, flags=dns.flags.RD if config.recursion else 0
    )
    progress.note("asking for %s %s by %s", config.question(), config.type, config.protocol)
    try:
        wire = await _exchange(query, config, context, progress)
        progress.reach("processing")
        if len(wire) > _LARGE:
            seen, failure = await context.tools.judging.run(
                partial(read_and_judge, wire, query, config.expect)
            )
        else:
            seen, failure = read_and_judge(wire, query, config.expect)
    except GarbledError as error:
        return progress.outcome(Reason.PROTOCOL, str(error))
    _note(seen, progress)
    readings = _readings(seen)
    if failure is not None:
        reason, detail = failure
        more = " (the answer is truncated; protocol: tcp gets all of it)" if seen.truncated else ""
        return progress.outcome(reason, detail + more, readings=readings)
    return progress.outcome(detail=seen.rcode, readings=readings)


async def _exchange(
    query: dns.message.Message, config: DnsProbe, context: Context, progress: Progress
) -> bytes:
    host, port = config.address()
    version = await preferred_version(
        host, config.ip_version, fallback=config.ip_fallback, context=context, progress=progress
    )
    if config.protocol == "udp":
        address = await allowed_address(host, port, context, progress, version)
        return await _by_datagram(query, address, port, progress)
    secure = None
    if config.protocol == "tls":
        secure = await secured(config.tls, host, context)
    reader, writer = await dial_stream(
        host, port, context=context, progress=progress, version=version, secure=secure
    )
    try:
        return await _by_stream(query, reader, writer)
    finally:
        writer.transport.abort()


async def _by_datagram(query: dns.message.Message, address: str, port: int, progress: Progress) -> bytes:
    loop = asyncio.get_running_loop()
    # A connected socket: the kernel drops datagrams from other addresses, and tells that a port is closed.
    transport, inbox = await loop.create_datagram_endpoint(
        lambda: _Inbox(query.id, progress), remote_addr=(address, port)
    )
    progress.connect()
    try:
        transport.sendto(query.to_wire())
        return await inbox.answer
    finally:
        transport.abort()


async def _by_stream(
    query: dns.message.Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes:
    wire = query.to_wire()
    writer.write(len(wire).to_bytes(2, "big") + wire)
    try:
        length = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError from error


def read_and_judge(
    wire: bytes, query: dns.message.Message, expect: DnsExpect
) -> tuple[_Answer, tuple[Reason, str] | None]:
    """Return what *wire* says and what is wrong with it. Raises GarbledError when it is no answer."""
    try:
        response = dns.message.from_wire(wire, one_rr_per_rrset=True)
        if not query.is_response(response):
            raise GarbledError("the message does not answer the question")
        seen = _answer_of(response)
    except _GARBLED as error:
        raise GarbledError(f"the answer is not DNS: {type(error).__name__}") from error
    return seen, _failure(seen, expect)


def _answer_of(response: dns.message.Message) -> _Answer:
    serials = [
        record.serial
        for rrset in response.answer
        for record in rrset
        if record.rdtype == dns.rdatatype.SOA and hasattr(record, "serial")
    ]
    return _Answer(
        rcode=dns.rcode.to_text(response.rcode()),
        truncated=bool(response.flags & dns.flags.TC),
        answer=tuple(_texts(response.answer)),
        authority=tuple(_texts(response.authority)),
        additional=tuple(_texts(response.additional)),
        serial=serials[-1] if serials else None,
    )


def _texts(section: Iterable[dns.rrset.RRset]) -> Iterable[str]:
    for rrset in section:
        kind = dns.rdatatype.to_text(rrset.rdtype)
        for record in rrset:
            scope = dns.rdataclass.to_text(rrset.rdclass)
            yield f"{rrset.name}\t{rrset.ttl}\t{scope}\t{kind}\t{record.to_text()}"


def _failure(seen: _Answer, expect: DnsExpect) -> tuple[Reason, str] | None:
    if seen.rcode not in expect.rcode:
        return Reason.STATUS, f"answered {seen.rcode}, expected {' or '.join(expect.rcode)}"
    sections = (
        ("answer", seen.answer, expect.answer),
        ("authority", seen.authority, expect.authority),
        ("additional", seen.additional, expect.additional),
    )
    for name, records, wanted in sections:
        fault = next(_faults(records, wanted), None)
        if fault is not None:
            return Reason.ANSWER, f"{name}: {fault}"
    return None


def _faults(records: tuple[str, ...], wanted: Records) -> Iterator[str]:
    """Say what is wrong with *records*; nothing when they are as *wanted*."""
    found = {pattern: [_finds(pattern, text) for text in records] for pattern in _patterns(wanted)}
    if len(records) < wanted.at_least:
        yield f"{len(records)} records, expected {wanted.at_least} at least"
    yield from (f"no record has {pattern}" for pattern in wanted.contains if not any(found[pattern]))
    if wanted.any and not any(any(found[pattern]) for pattern in wanted.any):
        yield f"no record has {' or '.join(wanted.any)}"
    if wanted.every and not records:
        yield f"no record, so none has {wanted.every[0]}"
    yield from (f"not every record has {pattern}" for pattern in wanted.every if not all(found[pattern]))
    yield from (f"a record has {pattern}" for pattern in wanted.none if any(found[pattern]))
    if wanted.not_every and records and all(all(found[pattern]) for pattern in wanted.not_every):
        yield f"every record has {' and '.join(wanted.not_every)}"


def _patterns(wanted: Records) -> Iterable[str]:
    return (*wanted.contains, *wanted.any, *wanted.every, *wanted.none, *wanted.not_every)


def _finds(pattern: str, text: str) -> bool:
    return re2.search(pattern, text) is not None


def _readings(seen: _Answer) -> tuple[Reading, ...]:
    counts = (
        Reading(ANSWER, len(seen.answer)),
        Reading(AUTHORITY, len(seen.authority)),
        Reading(ADDITIONAL, len(seen.additional)),
    )
    return counts if seen.serial is None else (*counts, Reading(SERIAL, seen.serial))


def _note(seen: _Answer, progress: Progress) -> None:
    progress.note("answered %s%s", seen.rcode, ", truncated" if seen.truncated else "")
    for record in (*seen.answer, *seen.authority, *seen.additional)[:20]:
        progress.note("record %s", record)
