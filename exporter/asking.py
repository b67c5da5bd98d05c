"""Asks one place for its targets: files, or an address. Keeps the last good answer of each."""

import asyncio
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp

from exporter.discovered import SIZE_LIMIT, Failure, Found, SourceError, is_json_file, parse
from exporter.probes.context import Tools
from exporter.sources import FileSd, HttpSd
from exporter.webconfig import Signature, signature_of
from soulfra_monitor import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a place names, as far as it is known, and why that may be old."""

    found: Found
    failures: tuple[SourceError, ...] = ()


@dataclass(slots=True)
class FileReader:
    """Reads files when they change. One that fails keeps its targets, one that is gone loses them."""

    place: FileSd
    folder: Path
    _read: dict[Path, Signature] = field(default_factory=dict)
    _known: dict[Path, Found] = field(default_factory=dict)

    async def read(self) -> Answer:
        """Return the targets of all files."""
        return await asyncio.to_thread(self._look)

    def _look(self) -> Answer:
        files = {file: signature_of([file]) for file in self._matches()}
        self._known = {file: found for file, found in self._known.items() if file in files}
        failures = []
        for file, signature in files.items():
            if self._read.get(file) == signature:
                continue
            try:
                self._known[file] = _content_of(file)
            except SourceError as error:
                failures.append(SourceError(error.failure, f"{file.name}: {error}"))
                files[file] = ()  # is read again at the next look
        self._read = files
        return Answer(found=_together(list(self._known.values())), failures=tuple(failures))

    def _matches(self) -> Iterator[Path]:
        for pattern in self.place.files:
            path = self.folder / pattern
            yield from sorted(found for found in path.parent.glob(path.name) if found.is_file())


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
        self._refresh = refresh
        self._known = Found()

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
            headers = await asyncio.to_thread(self._headers)
            tls = await asyncio.to_thread(Tools().tls, self._place.tls)
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

    def _headers(self) -> dict[str, str]:
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"soulfra-monitor/{__version__}",
            "X-Prometheus-Refresh-Interval-Seconds": f"{self._refresh:g}",
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
