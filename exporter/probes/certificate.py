"""When a TLS peer's certificate ends, also for one that does not verify.

The ssl module decodes verified certificates only, so the one date is read from the DER form.
"""

import asyncio
import ssl
from datetime import UTC, datetime
from hashlib import sha256

from exporter.observation import TlsFacts

_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0
_LONG_FORM = 0x80


def not_after(der: bytes) -> float | None:
    """Return the end of validity in epoch seconds; None when *der* is not a certificate."""
    try:
        return _not_after(der)
    except (IndexError, ValueError):
        return None


async def ask_facts(host: str, port: int, server_name: str) -> TlsFacts | None:
    """Shake hands without verifying and read what the peer shows. None when even that fails.

    Nothing is sent over this connection.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.create_connection(
            asyncio.Protocol, host, port, ssl=context, server_hostname=server_name
        )
    except OSError:
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
    cipher = connection.cipher()
    return TlsFacts(
        not_after=end,
        verified=connection.context.verify_mode is not ssl.CERT_NONE,
        version=connection.version() or "",
        cipher=cipher[0] if cipher else "",
        fingerprint=sha256(der).hexdigest(),
    )


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
