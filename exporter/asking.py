"""Asks one place for its targets: files, or an address. Keeps the last good answer of each."""

import asyncio
import fnmatch
import os
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from exporter.discovered import SIZE_LIMIT, Failure, Found, SourceError, is_json_file, parse
from exporter.probes.context import tls_context
from exporter.probes.patience import in_thread
from exporter.sources import FileSd, HttpSd
from exporter.webconfig import Signature, signature_of
from soulfra_monitor import __version__

FILES_WITHIN = 5.0
"""Seconds for files; they may be on a network filesystem that is dead."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a place names, as far as it is known, and why that may be old."""

    found: Found
    failures: tuple[SourceError, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """What a look at files has found."""

    signatures: Mapping[Path, Signature] = field(default_factory=dict)
    known: Mapping[Path, Found] = field(default_factory=dict)


async def _patiently(work: Callable[[], T], recall: dict[str, Any]) -> T:
    """Return what *work*, which reads files, returns. Raises what it raises, SourceError when it hangs.

    Not in the threads of everybody: files that hang would keep those from a scrape and a reload.
    """
    try:
        async with asyncio.timeout(FILES_WITHIN):
            return await in_thread(work, recall)
    except TimeoutError as error:
        told = f"its files cannot be read within {FILES_WITHIN:g} s"
        raise SourceError(Failure.TIMEOUT, told) from error


@dataclass(slots=True)
class FileReader:
    """Reads files when they change. One that fails keeps its targets, one that is gone loses them."""

    place: FileSd
    folder: Path
    refresh: float = 0.0  # seconds between looks, as of HttpReader
    _seen: _Files = field(default_factory=_Files)
    _recall: dict[str, Any] = field(default_factory=dict)

    async def read(self) -> Answer:
        """Return the targets of all files."""
        try:
            self._seen, failures = await _patiently(partial(self._look, self._seen), self._recall)
        except SourceError as error:
            failures = (error,)
        except OSError as error:  # what cannot be looked at is not gone
            failures = (SourceError(Failure.READ, f"its files cannot be looked at: {error.strerror}"),)
        return Answer(found=_together(list(self._seen.known.values())), failures=failures)

    def _look(self, before: _Files) -> tuple[_Files, tuple[SourceError, ...]]:
        files = {file: signature_of([file]) for file in self._matches()}
        known = {file: found for file, found in before.known.items() if file in files}
        failures = []
        for file, signature in files.items():
            if before.signatures.get(file) == signature:
                continue
            try:
                known[file] = _content_of(file)
            except SourceError as error:
                failures.append(SourceError(error.failure, f"{file.name}: {error}"))
                files[file] = ()  # is read again at the next look
        return _Files(signatures=files, known=known), tuple(failures)

    def _matches(self) -> Iterator[Path]:
        for pattern in self.place.files:
            path = self.folder / pattern
            # Not by glob, which passes over a folder that may not be read as if it were empty.
            yield from sorted(found for found in _listed(path.parent, path.name) if found.is_file())


def _listed(folder: Path, pattern: str) -> list[Path]:
    """Return what matches *pattern* in *folder*; nothing when there is no such folder. Raises OSError."""
    try:
        return [folder / name for name in fnmatch.filter(os.listdir(folder), pattern)]  # noqa: PTH208 - names
    except (FileNotFoundError, NotADirectoryError):
        return []


def _content_of(file: Path) -> Found:
    try:
        with file.open("rb") as opened:
            content = opened.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise SourceError(Failure.READ, f"cannot be read: {error.strerror}") from error
    return parse(content, is_json=is_json_file(file))


def _together(parts: list[Found]) -> Found:
    return Found(
        targets=tuple(target for part in parts for target in part.targets),
        malformed=sum(part.malformed for part in parts),
    )


class HttpReader:
    """Asks an address, as Prometheus does."""

    def __init__(self, place: HttpSd, folder: Path, refresh: float) -> None:
        self._place = place
        self._folder = folder
        self.refresh = refresh  # seconds between looks, which it tells
        self._known = Found()
        self._recall: dict[str, Any] = {}

    async def read(self) -> Answer:
        """Return the targets that the address names now."""
        try:
            content = await self._fetch()
            self._known = await asyncio.to_thread(parse, content, is_json=True)
        except SourceError as error:
            return Answer(found=self._known, failures=(error,))
        return Answer(found=self._known)

    async def _fetch(self) -> bytes:
        try:
            headers, tls = await _patiently(self._of_files, self._recall)
        except OSError as error:
            raise SourceError(Failure.READ, f"a file for asking cannot be used: {error.strerror}") from error
        timeout = aiohttp.ClientTimeout(total=self._place.timeout)
        try:
            # What is packed could be a thousand times as large as it looks, so nothing is unpacked.
            async with (
                aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
                session.get(self._place.url, headers=headers, ssl=tls, allow_redirects=False) as answer,
            ):
                return await _body_of(answer)
        except TimeoutError as error:
            raise SourceError(Failure.TIMEOUT, f"no answer within {self._place.timeout:g} s") from error
        except aiohttp.ClientError as error:
            raise SourceError(Failure.CONNECT, f"cannot be asked: {type(error).__name__}") from error

    def _of_files(self) -> tuple[dict[str, str], ssl.SSLContext]:
        return self._headers(), tls_context(self._place.tls)

    def _headers(self) -> dict[str, str]:
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"soulfra-monitor/{__version__}",
            "X-Prometheus-Refresh-Interval-Seconds": f"{self.refresh:g}",
        }
        if self._place.bearer_token_file is not None:
            headers["Authorization"] = f"Bearer {_secret(self._folder / self._place.bearer_token_file)}"
        if self._place.basic_auth is not None:
            user = self._place.basic_auth
            pair = f"{user.username}:{_secret(self._folder / user.password_file)}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        return headers


def _secret(file: Path) -> str:
    text = file.read_text(encoding="utf-8", errors="replace").strip()
    if not text.isprintable():
        raise SourceError(Failure.READ, "the file with the secret has control characters")
    return text


async def _body_of(answer: aiohttp.ClientResponse) -> bytes:
    if answer.status != HTTPStatus.OK:
        raise SourceError(Failure.STATUS, f"answers with status {answer.status}")
    if answer.content_type != "application/json":
        raise SourceError(Failure.CONTENT_TYPE, "the answer is not application/json")
    body = bytearray()
    async for chunk in answer.content.iter_chunked(2**16):
        body += chunk
        if len(body) > SIZE_LIMIT:
            raise SourceError(Failure.TOO_LARGE, f"the answer has more than {SIZE_LIMIT // 2**20} MiB")
    return bytes(body)
