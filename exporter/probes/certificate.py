"""When a TLS peer's certificate ends, also for one that does not verify.

The ssl module decodes verified certificates only, so the one date is read from the DER form.
"""

import asyncio
import ssl
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from typing import Any

from exporter.observation import TlsFacts

_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0
_LONG_FORM = 0x80
_DER = 2  # the number of the encoding in OpenSSL's binding
ASK_WITHIN = 1.0  # seconds


KEPT = 4096
"""Dates that are kept. Never the certificates themselves: a peer can show a new and large one each time."""
_ends: dict[bytes, float | None] = {}  # by digest


def not_after(der: bytes) -> float | None:
    """Return the end of validity in epoch seconds; None when *der* is not a certificate."""
    digest = sha256(der).digest()
    if digest not in _ends:
        if len(_ends) >= KEPT:
            del _ends[next(iter(_ends))]
        try:
            _ends[digest] = _not_after(der)
        except (IndexError, ValueError):
            _ends[digest] = None
    return _ends[digest]


async def ask_facts(host: str, port: int, server_name: str, *, within: float = ASK_WITHIN) -> TlsFacts | None:
    """Shake hands without verifying and read what the peer shows. None when even that fails.

    Nothing is sent over this connection, and it takes *within* seconds at most.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within):
            transport, _ = await loop.create_connection(
                asyncio.Protocol, host, port, ssl=_trusting(), server_hostname=server_name
            )
    except OSError:  # TimeoutError is one
        return None
    try:
        return tls_facts(transport.get_extra_info("ssl_object"))
    finally:
        transport.abort()


def tls_facts(connection: ssl.SSLObject | None) -> TlsFacts | None:
    """Return what the peer of an open TLS connection showed; None without a readable certificate."""
    der = connection.getpeercert(binary_form=True) if connection is not None else None
    end = not_after(der) if der else None
    if connection is None or der is None or end is None:
        return None
    verified = connection.context.verify_mode is not ssl.CERT_NONE
    cipher = connection.cipher()
    return TlsFacts(
        not_after=min(end, _earliest(_chain(connection, verified=False)) or end),
        verified=verified,
        version=connection.version() or "",
        cipher=cipher[0] if cipher else "",
        chain_not_after=_earliest(_chain(connection, verified=True)) if verified else None,
        fingerprint=sha256(der).hexdigest(),
    )


@cache
def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _chain(connection: Any, *, verified: bool) -> list[bytes]:
    """Return the certificates that the peer sent, or those from its own up to the trusted one."""
    name = "get_verified_chain" if verified else "get_unverified_chain"
    if hasattr(connection, name):  # Python 3.13 and later
        return list(getattr(connection, name)() or ())
    # The same function stands where it is not yet public.
    found = getattr(connection._sslobj, name)() or ()  # noqa: SLF001 - see above
    return [certificate.public_bytes(_DER) for certificate in found]


def _earliest(chain: list[bytes]) -> float | None:
    ends = [end for der in chain if (end := not_after(der)) is not None]
    return min(ends, default=None)


def _not_after(der: bytes) -> float | None:
    certificate = _content(der, 0, _SEQUENCE)[0]
    body = _content(certificate, 0, _SEQUENCE)[0]
    position = 0
    if body[0] == _VERSION:
        position = _element(body, position)[2]
    for _ in ("serial number", "signature algorithm", "issuer"):
        position = _element(body, position)[2]
    validity = _content(body, position, _SEQUENCE)[0]
    tag, value, _ = _element(validity, _element(validity, 0)[2])
    text = value.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year, 50 and above being 19xx
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _content(data: bytes, position: int, expected: int) -> tuple[bytes, int]:
    tag, value, end = _element(data, position)
    if tag != expected:
        raise ValueError(f"tag {tag:#x} where {expected:#x} belongs")
    return value, end


def _element(data: bytes, position: int) -> tuple[int, bytes, int]:
    """Return tag, content and the position after the DER element at *position*."""
    tag, length, position = data[position], data[position + 1], position + 2
    if length & _LONG_FORM:
        size = length & ~_LONG_FORM
        length = int.from_bytes(data[position : position + size], "big")
        position += size
    if position + length > len(data):
        raise ValueError("cut short")
    return tag, data[position : position + length], position + length
