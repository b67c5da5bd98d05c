"""The AI router: sends each prompt to the provider that suits best, and to the next one if that fails."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flask import Flask, abort, jsonify
from flask.typing import ResponseReturnValue

from peer import CheapCall, Peer, PeerError, answer_link
from service import application, command_line, json_object, named_url, serve, text_of
from soulfra_monitor import ErrorMonitor

LONGEST_PROMPT = 20_000
ANSWER_WITHIN = 1.5  # seconds
LOOK_WITHIN = 0.4  # seconds, for a look at a provider's health
REST_AFTER_FAILURE = 3.0  # seconds in which a provider that failed is only the last choice
FACTS_LAST = 30.0  # seconds after which a provider that was not used is tried afresh
SECONDS_PER_PRICE = 0.2  # a price of 1 per 1000 tokens weighs as much as this wait
SCARCE_QUOTA = 0.1  # below this share of its quota a provider is spared


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the router knows about a provider."""

    name: str
    latency: float | None = None  # seconds, moving average
    price: float = 0.0  # per 1000 tokens
    quota_left: float = 1.0  # share
    measured_at: float = 0.0
    failed_at: float | None = None
    requests: int = 0
    failures: int = 0
    tokens: int = 0
    cost: float = 0.0


def rank(providers: Sequence[Facts], now: float) -> list[str]:
    """Return the names of *providers*, the one to ask first in front."""
    return [facts.name for facts in sorted(providers, key=lambda facts: _burden(facts, now))]


def _burden(facts: Facts, now: float) -> tuple[bool, bool, float]:
    resting = facts.failed_at is not None and now - facts.failed_at < REST_AFTER_FAILURE
    if facts.latency is None or now - facts.measured_at > FACTS_LAST:
        return (resting, False, 0.0)  # nothing recent is known: find out
    scarce = facts.quota_left < SCARCE_QUOTA
    return (resting, scarce, facts.latency + facts.price * SECONDS_PER_PRICE)


def after_answer(facts: Facts, answer: dict[str, Any], seconds: float, now: float) -> Facts:
    """Return *facts* with what one answer has taught."""
    latency = seconds if facts.latency is None else 0.7 * facts.latency + 0.3 * seconds
    return replace(
        facts,
        latency=latency,
        price=answer["price"],
        quota_left=answer["quota"]["remaining"] / max(answer["quota"]["limit"], 1),
        measured_at=now,
        failed_at=None,
        requests=facts.requests + 1,
        tokens=facts.tokens + answer["tokens"],
        cost=facts.cost + answer["cost"],
    )


class Router:
    """Routes prompts and keeps the books."""

    def __init__(self, providers: Sequence[Peer]) -> None:
        self.peers = {peer.name: peer for peer in providers}
        self._lock = threading.Lock()
        self._facts = {name: Facts(name=name) for name in self.peers}

    def route(self, prompt: str) -> dict[str, Any]:
        """Return the first answer, what it cost and who was asked in vain. Raises PeerError if all fail."""
        failed: list[dict[str, str]] = []
        for name in rank(self.facts(), time.monotonic()):
            started = time.monotonic()
            try:
                answer = self.peers[name].post("/complete", {"prompt": prompt}, timeout=ANSWER_WITHIN)
            except PeerError as error:
                failed.append({"provider": name, "reason": str(error)})
                self._note_failure(name)
                continue
            seconds = time.monotonic() - started
            self._note_answer(name, answer, seconds)
            return {
                "text": answer["text"],
                "provider": name,
                "tokens": answer["tokens"],
                "cost": answer["cost"],
                "seconds": round(seconds, 4),
                "failed": failed,
            }
        raise PeerError("; ".join(failure["reason"] for failure in failed))

    def facts(self) -> list[Facts]:
        """Return what is known about every provider."""
        with self._lock:
            return list(self._facts.values())

    def look(self) -> dict[str, str]:
        """Ask every provider at once how it is: name -> "healthy" or the reason why it is not."""
        states = {name: f"{name} did not answer within {LOOK_WITHIN:g} s" for name in self.peers}

        def ask(peer: Peer) -> None:
            states[peer.name] = _state_of(peer)

        # Threads of its own and daemons, so that one slow provider delays neither the others nor our end.
        threads = [threading.Thread(target=ask, args=(peer,), daemon=True) for peer in self.peers.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LOOK_WITHIN + 0.1)
        return dict(states)

    def _note_answer(self, name: str, answer: dict[str, Any], seconds: float) -> None:
        with self._lock:
            self._facts[name] = after_answer(self._facts[name], answer, seconds, time.monotonic())

    def _note_failure(self, name: str) -> None:
        with self._lock:
            facts = self._facts[name]
            self._facts[name] = replace(facts, failures=facts.failures + 1, failed_at=time.monotonic())


def _state_of(peer: Peer) -> str:
    try:
        remaining = peer.get("/health", timeout=LOOK_WITHIN)["quota"]["remaining"]
    except PeerError as error:
        return str(error)
    return "healthy" if remaining > 0 else f"{peer.name} has used up its quota"


def _usage(facts: Sequence[Facts]) -> dict[str, Any]:
    providers = {
        each.name: {
            "requests": each.requests,
            "failures": each.failures,
            "tokens": each.tokens,
            "cost": round(each.cost, 6),
            "latency": each.latency and round(each.latency, 4),
        }
        for each in facts
    }
    requests = sum(each.requests for each in facts)
    cost = sum(each.cost for each in facts)
    total = {"requests": requests, "tokens": sum(each.tokens for each in facts), "cost": round(cost, 6)}
    return {
        "total": total,
        "cost_per_request": round(cost / requests, 6) if requests else None,
        "providers": providers,
    }


def create_app(router: Router) -> Flask:
    """Return the service that answers by *router*."""
    app = application("ai-router")

    @app.post("/route")
    def route() -> ResponseReturnValue:
        prompt = text_of(json_object(), "prompt", longest=LONGEST_PROMPT)
        try:
            return jsonify(router.route(prompt))
        except PeerError as error:
            return jsonify(error=f"no provider answered: {error}"), 503

    @app.get("/usage")
    def usage() -> ResponseReturnValue:
        return jsonify(_usage(router.facts()))

    @app.get("/links/<provider>")
    def link(provider: str) -> ResponseReturnValue:
        if provider not in router.peers:
            abort(404, f"there is no provider {provider!r}")
        return answer_link(router.peers[provider], CheapCall(path="/health"))

    @app.get("/health")
    def health() -> ResponseReturnValue:
        states = router.look()
        working = [name for name, state in states.items() if state == "healthy"]
        if not working:
            reason = "; ".join(states.values())
            return jsonify(status="unhealthy", service=app.name, reason=reason, providers=states), 503
        status = "healthy" if len(working) == len(states) else "degraded"
        return jsonify(status=status, service=app.name, providers=states)

    return app


if __name__ == "__main__":
    parser = command_line("ai-router", "Sends prompts to the provider that suits best.")
    parser.add_argument("--provider", type=named_url, action="append", required=True, metavar="NAME=URL")
    arguments = parser.parse_args()
    peers = [Peer(name=name, url=url) for name, url in arguments.provider]
    monitor = ErrorMonitor(service="ai-router").start()
    router = monitor.add_service("ai-router", Router(peers))
    serve(create_app(router), arguments.port)
