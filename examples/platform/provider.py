"""A stand-in for a provider of language models: takes its time, has a quota and costs money."""

import random
import re
import threading
import time
from collections import Counter, deque

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue

from service import application, command_line, json_object, serve, text_of

QUOTA_WINDOW = 60.0  # seconds
LONGEST_PROMPT = 20_000
LONGEST_ANSWER = 3  # sentences

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]?")
_WORD = re.compile(r"\w+")


class Quota:
    """At most *limit* requests in any QUOTA_WINDOW."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._taken: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Use one request of the quota; False if none is left."""
        with self._lock:
            self._forget(now)
            if len(self._taken) >= self.limit:
                return False
            self._taken.append(now)
            return True

    def remaining(self, now: float) -> int:
        """Say how many requests are left now."""
        with self._lock:
            self._forget(now)
            return self.limit - len(self._taken)

    def seconds_to_next(self, now: float) -> float:
        """Say how long until a request is free again; 0 if one is."""
        with self._lock:
            self._forget(now)
            full = len(self._taken) >= self.limit
            return max(self._taken[0] + QUOTA_WINDOW - now, 0.0) if full and self._taken else 0.0

    def _forget(self, now: float) -> None:
        while self._taken and self._taken[0] <= now - QUOTA_WINDOW:
            self._taken.popleft()


def summary(prompt: str) -> str:
    """Return the sentences that say most about what the prompt keeps coming back to, in their order."""
    weight = Counter(word for word in _WORD.findall(prompt.lower()) if len(word) > 3)
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(prompt) if sentence.strip()]

    def worth(sentence: str) -> float:
        words = _WORD.findall(sentence.lower())
        return sum(weight[word] for word in words) / (len(words) or 1)

    chosen = sorted(sentences, key=worth, reverse=True)[:LONGEST_ANSWER]
    return " ".join(sentence for sentence in sentences if sentence in chosen)


def create_app(name: str, *, latency: float, quota: int, price: float) -> Flask:
    """Return a provider that answers in about *latency* seconds and takes *price* per 1000 tokens."""
    app = application(name)
    allowed = Quota(quota)

    @app.post("/complete")
    def complete() -> ResponseReturnValue:
        prompt = text_of(json_object(), "prompt", longest=LONGEST_PROMPT)
        if not allowed.take(time.monotonic()):
            wait = allowed.seconds_to_next(time.monotonic())
            answer = jsonify(error=f"the quota of {quota} requests per minute is used up")
            answer.headers["Retry-After"] = f"{wait:.0f}"
            return answer, 429
        time.sleep(latency * random.uniform(0.8, 1.2))
        text = summary(prompt)
        tokens = len(_WORD.findall(prompt)) + len(_WORD.findall(text))
        return jsonify(
            text=text, tokens=tokens, cost=round(tokens * price / 1000, 6), price=price, quota=quota_now()
        )

    @app.get("/health")
    def health() -> ResponseReturnValue:
        return jsonify(status="healthy", service=name, price=price, quota=quota_now())

    def quota_now() -> dict[str, int]:
        return {"limit": allowed.limit, "remaining": allowed.remaining(time.monotonic())}

    return app


if __name__ == "__main__":
    parser = command_line("provider", "Stands in for a provider of language models.")
    parser.add_argument("--name", default="provider")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds per answer")
    parser.add_argument("--quota", type=int, default=600, help="requests per minute")
    parser.add_argument("--price", type=float, default=0.5, help="per 1000 tokens")
    arguments = parser.parse_args()
    app = create_app(arguments.name, latency=arguments.latency, quota=arguments.quota, price=arguments.price)
    serve(app, arguments.port)
