"""The trust engine: keeps a score for every user in Redis, moved by events and fading with time."""

import math
import os
import time
from typing import Any

import redis
from flask import Flask, abort, jsonify, request
from flask.typing import ResponseReturnValue
from redis.backoff import NoBackoff
from redis.retry import Retry

from service import application, command_line, json_object, serve, text_of
from soulfra_monitor import ErrorMonitor

POINTS = {
    "message": 1.0,
    "helpful": 5.0,
    "verified": 15.0,
    "complaint": -8.0,
    "spam": -15.0,
    "fraud": -60.0,
}
HALF_LIFE = 7 * 24 * 3600.0  # seconds until an event counts half
EPOCH = 1_704_067_200.0  # 2024-01-01, the moment at which one point is stored as one
SCORES = "trust:points"
EVENTS = "trust:events:"
LONGEST_NAME = 128


class Scores:
    """Points per user in one sorted set.

    An event is stored as its points times how much they have to shrink until now since EPOCH
    ("forward decay"). All scores then fade alike by reading, so that adding is one atomic ZINCRBY and
    the order in Redis is the order of the scores at any time.
    """

    def __init__(self, client: "redis.Redis") -> None:
        self._redis = client

    def add(self, user: str, kind: str, now: float) -> float:
        """Count one event and return the user's new score."""
        with self._redis.pipeline(transaction=True) as batch:
            batch.zincrby(SCORES, POINTS[kind] * _growth(now), user)
            batch.hincrby(EVENTS + user, kind, 1)
            stored, _ = batch.execute()
        return _score(float(stored), now)

    def of(self, user: str, now: float) -> dict[str, Any] | None:
        """Return the score of *user* and what moved it; None for a user nobody has told about."""
        with self._redis.pipeline(transaction=True) as batch:
            batch.zscore(SCORES, user)
            batch.hgetall(EVENTS + user)
            stored, events = batch.execute()
        if stored is None:
            return None
        counts = {kind: int(count) for kind, count in events.items()}
        return {"user": user, "score": _score(float(stored), now), "events": counts}

    def top(self, limit: int, now: float) -> list[dict[str, Any]]:
        """Return the most trusted users."""
        best: Any = self._redis.zrevrange(SCORES, 0, limit - 1, withscores=True)
        return [{"user": user, "score": _score(stored, now)} for user, stored in best]

    def ping(self) -> None:
        """Raise redis.RedisError if Redis does not answer."""
        self._redis.ping()


def _growth(now: float) -> float:
    return math.exp2((now - EPOCH) / HALF_LIFE)


def _score(stored: float, now: float) -> float:
    """Map points to a score from 0 to 100, where 50 is neither trust nor distrust."""
    return round(50 * (1 + math.tanh(stored / _growth(now) / 40)), 2)


def connect(url: str) -> "redis.Redis":
    """Return a client that fails fast and connects again by itself when Redis is back."""
    # One retry at once replaces a connection that died with the last Redis; a timeout is not retried.
    retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return redis.Redis.from_url(
        url, decode_responses=True, socket_timeout=0.5, socket_connect_timeout=0.5, retry=retry
    )


def create_app(scores: Scores) -> Flask:
    """Return the service that answers with these *scores*."""
    app = application("trust-engine")

    @app.errorhandler(redis.RedisError)
    def redis_away(error: redis.RedisError) -> ResponseReturnValue:
        return jsonify(error=f"redis: {error}"), 503

    @app.post("/events")
    def add_event() -> ResponseReturnValue:
        body = json_object()
        user = text_of(body, "user", longest=LONGEST_NAME)
        kind = text_of(body, "kind", longest=LONGEST_NAME)
        if kind not in POINTS:
            abort(400, f"'kind' must be one of {', '.join(POINTS)}")
        return jsonify(user=user, kind=kind, score=scores.add(user, kind, time.time())), 201

    @app.get("/scores/<user>")
    def score(user: str) -> ResponseReturnValue:
        found = scores.of(user, time.time())
        if found is None:
            abort(404, f"nothing is known about {user!r}")
        return jsonify(found)

    @app.get("/scores")
    def top() -> ResponseReturnValue:
        limit = request.args.get("limit", 10, int)
        if not 1 <= limit <= 100:
            abort(400, "'limit' must be from 1 to 100")
        return jsonify(scores=scores.top(limit, time.time()))

    @app.get("/health")
    def health() -> ResponseReturnValue:
        try:
            scores.ping()
        except redis.RedisError as error:
            return jsonify(status="unhealthy", service=app.name, reason=f"redis: {error}"), 503
        return jsonify(status="healthy", service=app.name)

    return app


if __name__ == "__main__":
    parser = command_line("trust-engine", "Keeps trust scores in Redis.")
    parser.add_argument(
        "--redis",
        default=os.environ.get("REDIS_URL", "redis://127.0.0.1:4000/0"),
        help="for example redis://127.0.0.1:4000/0",
    )
    arguments = parser.parse_args()
    monitor = ErrorMonitor(service="trust-engine").start()
    scores = monitor.add_service("trust-engine", Scores(connect(arguments.redis)))
    serve(create_app(scores), arguments.port)
