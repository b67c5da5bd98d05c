"""Keeps the platform busy with varied requests and records which of them succeeded."""

import argparse
import contextlib
import json
import math
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import requests

from service import named_url

TIMEOUT = 3.0  # seconds, per network step
MOST_AT_ONCE = 64
JOURNEYS = 0.4  # share of all requests, when other services are given too
AUTHORS = ("ann", "ben", "cho", "dee", "eli")
TALK = (
    "good morning, did the export finish?",
    "the export failed again, the error is in the log",
    "sorry, the disk was slow last night",
    "thanks, the new converter works great",
    "can we move the meeting to friday?",
    "the router picked the cheaper provider, nice",
    "who has the numbers for the report?",
    "the report is ready, welcome to read it",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to make, and the status that counts as success."""

    service: str
    method: str
    path: str
    json: Mapping[str, Any] | None = None
    text: str | None = None
    content_type: str | None = None
    expect: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What came of one request: one line of the record file."""

    time: float  # when it was sent, seconds since 1970
    service: str
    method: str
    path: str
    ok: bool
    status: int | None  # None: no answer
    seconds: float
    error: str | None


def _messages(chance: random.Random) -> list[tuple[str, str, str]]:
    minute = chance.randrange(20 * 60)
    chat = []
    for _ in range(chance.randint(3, 20)):
        minute += chance.randint(0, 9)
        at = f"2024-05-{1 + minute // 1440:02d} {minute // 60 % 24:02d}:{minute % 60:02d}"
        chat.append((at, chance.choice(AUTHORS), chance.choice(TALK)))
    return chat


def _as_json(chat: list[tuple[str, str, str]]) -> str:
    return json.dumps([{"time": at, "author": author, "text": text} for at, author, text in chat])


def _as_csv(chat: list[tuple[str, str, str]]) -> str:
    return "time,author,text\n" + "".join(f'{at},{author},"{text}"\n' for at, author, text in chat)


def _as_text(chat: list[tuple[str, str, str]]) -> str:
    return "".join(f"[{at}] {author}: {text}\n" for at, author, text in chat)


def _as_markdown(chat: list[tuple[str, str, str]]) -> str:
    return "# A chat\n\n" + "".join(f"- **{author}** ({at}): {text}\n" for at, author, text in chat)


LOGS: dict[str, tuple[str, Callable[[list[tuple[str, str, str]]], str]]] = {
    "json": ("application/json", _as_json),
    "csv": ("text/csv", _as_csv),
    "text": ("text/plain", _as_text),
    "markdown": ("text/markdown", _as_markdown),
}
DOCUMENTS = ("html", "epub", "pdf")


def _journey(chance: random.Random) -> Call:
    name = chance.choice(list(LOGS))
    log = LOGS[name][1](_messages(chance))
    body = {"format": name, "log": log, "document": chance.choice(DOCUMENTS)}
    return Call(service="orchestrator", method="POST", path="/journey", json=body)


def _analyze(chance: random.Random) -> Call:
    content_type, write = LOGS[chance.choice(list(LOGS))]
    if chance.random() < 0.1:  # users send rubbish too; a polite refusal is a success
        return Call(
            service="chat-analyzer",
            method="POST",
            path="/analyze",
            text="rubbish",
            content_type=content_type,
            expect=400,
        )
    return Call(
        service="chat-analyzer",
        method="POST",
        path="/analyze",
        text=write(_messages(chance)),
        content_type=content_type,
    )


def _trust(chance: random.Random) -> Call:
    if chance.random() < 0.3:
        return Call(service="trust-engine", method="GET", path="/scores")
    event = {"user": chance.choice(AUTHORS), "kind": chance.choice(("message", "helpful", "complaint"))}
    return Call(service="trust-engine", method="POST", path="/events", json=event, expect=201)


def _route(chance: random.Random) -> Call:
    prompt = " ".join(chance.sample(TALK, 4))
    return Call(service="ai-router", method="POST", path="/route", json={"prompt": prompt})


def _convert(chance: random.Random) -> Call:
    lines = "\n".join(f"- {text}" for text in chance.sample(TALK, 5))
    body = {"title": "Notes", "markdown": f"## Said\n\n{lines}\n", "format": chance.choice(DOCUMENTS)}
    return Call(service="mobile-converter", method="POST", path="/convert", json=body, expect=201)


CALLS: dict[str, Callable[[random.Random], Call]] = {
    "orchestrator": _journey,
    "chat-analyzer": _analyze,
    "trust-engine": _trust,
    "ai-router": _route,
    "mobile-converter": _convert,
}


def choose(addresses: Mapping[str, str], chance: random.Random) -> Call:
    """Return the next request: a journey, or one of the services that are addressed directly."""
    direct = [service for service in addresses if service != "orchestrator"]
    service = "orchestrator" if not direct or chance.random() < JOURNEYS else chance.choice(direct)
    return CALLS[service](chance)


def send(call: Call, url: str) -> Record:
    """Make one request. Never raises for a failure: that is what is recorded."""
    sent, started = time.time(), time.monotonic()
    status: int | None = None
    error: str | None = None
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy lies between neighbours
            answer = session.request(
                call.method,
                url + call.path,
                json=call.json,
                data=None if call.text is None else call.text.encode(),
                headers={"Content-Type": call.content_type} if call.content_type else {},
                timeout=TIMEOUT,
            )
        status = answer.status_code
        if status != call.expect:
            error = f"answered {status}: {answer.text[:200].strip()}"
    except requests.Timeout:
        error = f"no answer within {TIMEOUT:g} s"
    except requests.RequestException as cause:
        error = f"no answer: {type(cause).__name__}"
    return Record(
        time=round(sent, 3),
        service=call.service,
        method=call.method,
        path=call.path,
        ok=error is None,
        status=status,
        seconds=round(time.monotonic() - started, 4),
        error=error,
    )


class Tally:
    """Writes each record as a line of JSON, at once, and counts."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._closed = False
        self.answered = 0
        self.succeeded = 0

    def add(self, record: Record) -> None:
        """Take one record; after close it is too late and the record is dropped."""
        with self._lock:
            if self._closed:
                return
            self.answered += 1
            self.succeeded += record.ok
            if self._file:
                self._file.write(json.dumps(asdict(record)) + "\n")
                self._file.flush()

    def close(self) -> None:
        """Take no more records: the counts are final."""
        with self._lock:
            self._closed = True
            if self._file:
                self._file.close()


class Load:
    """Sends requests to *addresses* at *rate* per second.

    The pace does not depend on the answers, so that an outage is felt as users would feel it.
    """

    def __init__(self, addresses: Mapping[str, str], tally: Tally, *, rate: float, seed: int) -> None:
        self._addresses = addresses
        self._tally = tally
        self._pause = 1 / rate
        self._chance = random.Random(seed)
        self._free = threading.Semaphore(MOST_AT_ONCE)
        self.sent = 0

    def run(self, duration: float) -> None:
        """Send for *duration* seconds, then wait for the answers under way."""
        begun = time.monotonic()
        turn = 0
        # Counted, not summed: a thousand small roundings would make one request too many.
        while (wait := turn * self._pause) < duration:
            time.sleep(max(begun + wait - time.monotonic(), 0.0))
            turn += 1
            if self._free.acquire(timeout=TIMEOUT):
                self.sent += 1
                call = choose(self._addresses, self._chance)
                threading.Thread(target=self._one, args=(call,), daemon=True).start()
        deadline = time.monotonic() + TIMEOUT
        while self._tally.answered < self.sent and time.monotonic() < deadline:
            time.sleep(0.05)

    def _one(self, call: Call) -> None:
        try:
            self._tally.add(send(call, self._addresses[call.service]))
        finally:
            self._free.release()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orchestrator", required=True, metavar="URL")
    parser.add_argument(
        "--direct",
        type=named_url,
        action="append",
        default=[],
        metavar="NAME=URL",
        help=f"call this service directly too: {', '.join(CALLS)}",
    )
    parser.add_argument("--rate", type=float, default=2.0, help="requests per second")
    parser.add_argument("--record", type=Path, help="file that gets one JSON line per request")
    parser.add_argument("--duration", type=float, default=math.inf, help="seconds; default: until SIGTERM")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if not 0 < arguments.rate <= 1000:
        parser.error("--rate must be above 0 and at most 1000")
    for name, _ in arguments.direct:
        if name not in CALLS:
            parser.error(f"--direct: there is no service {name!r}, only {', '.join(CALLS)}")
    return arguments


def main() -> None:
    """Run until told to stop and say in one line how it went."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
    addresses = {"orchestrator": arguments.orchestrator.rstrip("/"), **dict(arguments.direct)}
    tally = Tally(arguments.record.open("a") if arguments.record else None)
    load = Load(addresses, tally, rate=arguments.rate, seed=arguments.seed)
    with contextlib.suppress(KeyboardInterrupt):
        load.run(arguments.duration)
    tally.close()
    failed, unfinished = tally.answered - tally.succeeded, load.sent - tally.answered
    sys.stdout.write(
        f"{load.sent} requests: {tally.succeeded} succeeded, {failed} failed, {unfinished} unfinished\n"
    )


if __name__ == "__main__":
    main()
