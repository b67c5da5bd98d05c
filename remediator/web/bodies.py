"""Bodies of strangers: bounded as they come, and bounded again when they are unpacked."""

import zlib
from collections.abc import Callable
from http import HTTPStatus

from flask import Request
from werkzeug.exceptions import ClientDisconnected

from remediator.web.access import denied

_PIECE = 64 * 1024
_GZIP_OR_ZLIB = 47  # zlib's way to say: whichever of the two it is
_RAW = -15


def read_body(asked: Request, *, packed: int, unpacked: int) -> bytes:
    """Return the body of *asked*, unpacked as its Content-Encoding says.

    Reads at most *packed* bytes and unpacks at most *unpacked*, whatever the body claims. Raises 413 for
    more, 415 for an encoding that nobody knows, 400 for a body that is not what it says (as HTTPException).
    """
    data = _received(asked, packed)
    coding = asked.headers.get("Content-Encoding", "identity").strip().lower() or "identity"
    unpack = _UNPACK.get(coding)
    if unpack is None:
        known = ", ".join(sorted(_UNPACK))
        message = f"Content-Encoding {coding[:40]!r} is not known; send one of {known}"
        raise denied(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)
    return unpack(data, unpacked)


def _received(asked: Request, limit: int) -> bytes:
    if (asked.content_length or 0) > limit:
        raise _too_large(limit, "as it is sent")
    # Chunked bodies say nothing of their length.
    asked.max_content_length = None
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := asked.stream.read(min(_PIECE, limit + 1 - size)):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise _too_large(limit, "as it is sent")
    except ClientDisconnected as error:
        raise denied(HTTPStatus.BAD_REQUEST, "the body ends before its Content-Length") from error
    return b"".join(pieces)


def _too_large(limit: int, how: str) -> Exception:
    message = f"the body is larger than {limit} bytes {how}; send less at once"
    return denied(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


def _broken(coding: str) -> Exception:
    return denied(HTTPStatus.BAD_REQUEST, f"the body is no whole {coding} data")


def _as_it_is(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise _too_large(limit, "unpacked")
    return data


def _inflate(data: bytes, limit: int) -> bytes:
    try:
        return _inflated(data, limit, _GZIP_OR_ZLIB)
    except zlib.error:
        # HTTP's "deflate" is zlib's format, but some send the bare stream.
        pass
    try:
        return _inflated(data, limit, _RAW)
    except zlib.error as error:
        raise _broken("gzip or deflate") from error


def _inflated(data: bytes, limit: int, form: int) -> bytes:
    inflater = zlib.decompressobj(form)
    plain = inflater.decompress(data, limit + 1)
    if len(plain) > limit:
        raise _too_large(limit, "unpacked")
    if not inflater.eof:
        raise zlib.error("the end is missing")
    return plain


def _unbrotli(data: bytes, limit: int) -> bytes:
    import brotli  # noqa: PLC0415 - few clients use it

    unpacker = brotli.Decompressor()
    try:
        plain = bytearray(unpacker.process(data, output_buffer_limit=_PIECE))
        while len(plain) <= limit and not unpacker.is_finished():
            more = unpacker.process(b"", output_buffer_limit=_PIECE)
            if not more:
                raise _broken("br")
            plain += more
    except brotli.error as error:
        raise _broken("br") from error
    if len(plain) > limit:
        raise _too_large(limit, "unpacked")
    return bytes(plain)


_UNPACK: dict[str, Callable[[bytes, int], bytes]] = {
    "identity": _as_it_is,
    "gzip": _inflate,
    "x-gzip": _inflate,
    "deflate": _inflate,
    "br": _unbrotli,
}
