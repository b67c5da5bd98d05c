"""Basic authentication against bcrypt hashes, without holding the event loop."""

import asyncio
import hashlib
import hmac
import secrets
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

KEPT = 100
WAITING = 16
_USED = 72  # bytes of a password that bcrypt looks at


class Admission(Enum):
    """The answer to somebody who wants to come in."""

    YES = "yes"
    NO = "no"
    BUSY = "busy"  # too many passwords wait to be looked at


class Users:
    """Says who may come in. What was once looked at is remembered, as a scraper comes every few seconds."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = {name: text.encode() for name, text in hashes.items()}
        self._nobody = _nobodys_hash(hashes)
        self._secret = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._bad: OrderedDict[bytes, None] = OrderedDict()
        self._looking: dict[bytes, asyncio.Task[bool]] = {}
        self._closed = False
        # One thread: guessing passwords must not take the cores from the probes.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bcrypt")

    def close(self) -> None:
        """Let go of the thread at once."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def retire(self) -> None:
        """Look at no more passwords; those who wait get their answer."""
        self._closed = True
        self._thread.shutdown(wait=False)

    async def admits(self, authorization: str) -> Admission:
        """Look at an Authorization header. Unknown users take as long as known ones."""
        given = _credentials(authorization)
        if given is None:
            return Admission.NO
        name, password = given
        known = self._hashes.get(name)
        wanted = known or self._nobody
        key = hmac.digest(self._secret, b"\0".join((name.encode(), wanted, password)), hashlib.sha256)
        if key in self._good:
            self._good.move_to_end(key)
            return Admission.YES
        if key in self._bad:
            return Admission.NO
        if key not in self._looking and (self._closed or len(self._looking) >= WAITING):
            return Admission.BUSY
        matches = await asyncio.shield(self._looked_at(key, password, wanted))
        return Admission.YES if matches and known is not None else Admission.NO

    def _looked_at(self, key: bytes, password: bytes, wanted: bytes) -> "asyncio.Task[bool]":
        if key not in self._looking:
            looked = asyncio.get_running_loop().run_in_executor(self._thread, _matches, password, wanted)
            task = asyncio.create_task(self._look(key, wanted, looked))
            self._looking[key] = task
            task.add_done_callback(lambda _: self._looking.pop(key, None))
        return self._looking[key]

    async def _look(self, key: bytes, wanted: bytes, looked: "asyncio.Future[bool]") -> bool:
        matches = await looked
        kept = self._good if matches and wanted is not self._nobody else self._bad
        kept[key] = None
        if len(kept) > KEPT:
            kept.popitem(last=False)
        return matches


def _credentials(authorization: str) -> tuple[str, bytes] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = b64decode(encoded.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except ValueError:  # of base64, or of a text that is none
        return None


def _matches(password: bytes, wanted: bytes) -> bool:
    import bcrypt  # noqa: PLC0415 - memory that only those spend who have users

    return bcrypt.checkpw(password[:_USED], wanted)


def _nobodys_hash(hashes: Mapping[str, str]) -> bytes:
    """Return a hash, as costly as the costliest, that stands for users who do not exist."""
    cost = max((text[4:6] for text in hashes.values()), default="10")
    return f"$2b${cost}$".encode() + b"." * 53
