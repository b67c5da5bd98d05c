"""The chat analyzer: turns chat logs into insights."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from itertools import pairwise
from statistics import mean, median
from typing import Any

from flask import Flask, abort, jsonify, request
from flask.typing import ResponseReturnValue

from chat_log import LogError, Message, parse
from peer import CheapCall, Peer, answer_link
from service import application, command_line, serve
from soulfra_monitor import ErrorMonitor

LONGEST_WAIT_FOR_A_REPLY = timedelta(hours=12)  # later than this is a new conversation
KEYWORDS = 10

_WORD = re.compile(r"[^\W\d_]{2,}(?:'[a-z]+)?")


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


_COMMON = frozenset(
    _words(
        "about after again all also am an and any are as at be been but by can could did do does for from "
        "get got had has have he her here him his how if in into is it its just like me more my no not of "
        "off on one or our out over see she should so some than that the their them then there they this "
        "to too up us was we well were what when where which who why will with would yes you your"
    )
)
_GOOD = frozenset(
    _words(
        "amazing awesome best better cool excellent fine glad good great happy helpful love lovely nice "
        "perfect pleased solved super thank thanks welcome wonderful works"
    )
)
_BAD = frozenset(
    _words(
        "angry annoying awful bad broken bug crash error fail failed fails hate horrible lost never "
        "problem sad slow sorry terrible ugly useless worse worst wrong"
    )
)


def insights(messages: Sequence[Message]) -> dict[str, Any]:
    """Say what stands out in *messages*, which are not empty and oldest first."""
    hour, in_hour = Counter(message.at.hour for message in messages).most_common(1)[0]
    return {
        "messages": len(messages),
        "authors": dict(Counter(message.author for message in messages).most_common()),
        "from": messages[0].at.isoformat(),
        "to": messages[-1].at.isoformat(),
        "busiest_hour": {"hour": hour, "messages": in_hour},
        "keywords": [
            {"word": word, "count": count} for word, count in _keywords(messages).most_common(KEYWORDS)
        ],
        "response_seconds": _response_times(messages),
        "sentiment": _sentiment(messages),
    }


def _keywords(messages: Iterable[Message]) -> Counter[str]:
    return Counter(
        word for message in messages for word in _words(message.text) if len(word) > 2 and word not in _COMMON
    )


def _response_times(messages: Sequence[Message]) -> dict[str, Any]:
    """Seconds from a message to the next one by somebody else, per the one who replied."""
    waits: dict[str, list[float]] = defaultdict(list)
    for earlier, later in pairwise(messages):
        wait = later.at - earlier.at
        if later.author != earlier.author and wait <= LONGEST_WAIT_FOR_A_REPLY:
            waits[later.author].append(wait.total_seconds())
    everyone = [wait for of_one in waits.values() for wait in of_one]
    if not everyone:
        return {"median": None, "mean": None, "longest": None, "by_author": {}}
    return {
        "median": median(everyone),
        "mean": round(mean(everyone), 1),
        "longest": max(everyone),
        "by_author": {author: median(of_one) for author, of_one in waits.items()},
    }


def _sentiment(messages: Iterable[Message]) -> dict[str, Any]:
    """Count kind and unkind words: -1 is all unkind, 1 all kind."""
    good: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for message in messages:
        words = _words(message.text)
        good[message.author] += sum(word in _GOOD for word in words)
        bad[message.author] += sum(word in _BAD for word in words)
    score = _balance(good.total(), bad.total())
    label = "neutral" if abs(score) < 0.1 else "positive" if score > 0 else "negative"
    by_author = {author: _balance(good[author], bad[author]) for author in good}
    return {"label": label, "score": score, "by_author": by_author}


def _balance(good: int, bad: int) -> float:
    return round((good - bad) / (good + bad), 2) if good + bad else 0.0


def create_app(trust_engine: str | None, analyzer: Callable[[Sequence[Message]], dict[str, Any]]) -> Flask:
    """Return the service of *analyzer*; *trust_engine* is the address its link check calls."""
    app = application("chat-analyzer")

    @app.post("/analyze")
    def analyze() -> ResponseReturnValue:
        try:
            text = request.get_data().decode()
            return jsonify(analyzer(parse(text, request.mimetype)))
        except UnicodeDecodeError as error:
            abort(400, f"not UTF-8: {error.reason} at byte {error.start}")
        except LogError as error:
            abort(400, str(error))

    @app.get("/links/trust-engine")
    def link() -> ResponseReturnValue:
        if trust_engine is None:
            abort(404, "started without --trust")
        return answer_link(Peer(name="trust-engine", url=trust_engine), CheapCall(path="/scores?limit=1"))

    @app.get("/health")
    def health() -> ResponseReturnValue:
        return jsonify(status="healthy", service=app.name)

    return app


if __name__ == "__main__":
    parser = command_line("chat-analyzer", "Turns chat logs into insights.")
    parser.add_argument(
        "--trust", default=os.environ.get("TRUST_URL"), help="the trust engine's address, for its link check"
    )
    arguments = parser.parse_args()
    monitor = ErrorMonitor(service="chat-analyzer").start()
    analyzer = monitor.add_service("chat-analyzer", insights)
    serve(create_app(arguments.trust, analyzer), arguments.port)
