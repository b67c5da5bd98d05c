"""The orchestrator: takes a chat log through all services and ends with a document."""

import re
import time
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from flask import Flask, abort, jsonify
from flask.typing import ResponseReturnValue

from peer import CheapCall, Peer, PeerError, answer_link
from service import HOST, application, command_line, json_object, serve, text_of
from soulfra_monitor import ErrorMonitor

LONGEST_LOG = 1_000_000
MOST_AUTHORS = 5  # whose trust one journey moves
LONGEST_TITLE = 200
CONTENT_TYPES = {
    "json": "application/json",
    "csv": "text/csv",
    "text": "text/plain",
    "markdown": "text/markdown",
}
REFUSALS = (400, 422)  # what a service answers when the input is at fault
DOCUMENTS = ("html", "epub", "pdf")
LINKS = {
    "chat-analyzer": CheapCall(path="/analyze", text="[2024-05-01 10:22] ann: hello"),
    "trust-engine": CheapCall(path="/scores?limit=1"),
    "ai-router": CheapCall(path="/usage"),
    "mobile-converter": CheapCall(path="/files?limit=1"),
}


_MARKUP = re.compile(r"[\\`*_\[\]|]")


class JourneyError(Exception):
    """A step failed; the steps so far are in the journey."""

    def __init__(self, step: str, cause: PeerError) -> None:
        super().__init__(f"{step}: {cause}")
        self.step = step
        self.status = cause.status


class Journey:
    """One way through all services, with the time each step took."""

    def __init__(self, peers: Mapping[str, Peer]) -> None:
        self._peers = peers
        self.steps: list[dict[str, Any]] = []

    def run(self, log: str, log_format: str, document: str) -> dict[str, Any]:
        """Return what came of it. Raises JourneyError at the first step that fails."""
        insights = self._step(
            "analyze", "chat-analyzer", lambda it: it.post_text("/analyze", log, CONTENT_TYPES[log_format])
        )
        trust = self._step("trust", "trust-engine", lambda it: _tell_trust(it, insights))
        routed = self._step(
            "prompt", "ai-router", lambda it: it.post("/route", {"prompt": _prompt(insights)})
        )
        report = {
            "title": f"Chat of {', '.join(list(insights['authors'])[:3])}"[:LONGEST_TITLE],
            "markdown": _markdown(insights, trust, routed),
            "format": document,
        }
        made = self._step("document", "mobile-converter", lambda it: it.post("/convert", report))
        return {"insights": insights, "trust": trust, "prompt": routed, "document": made, "steps": self.steps}

    def _step(self, name: str, service: str, work: Callable[[Peer], Any]) -> Any:
        started = time.monotonic()
        try:
            result = work(self._peers[service])
        except PeerError as error:
            raise JourneyError(name, error) from error
        finally:
            seconds = round(time.monotonic() - started, 4)
            self.steps.append({"step": name, "service": service, "seconds": seconds})
        return result


Travel = Callable[[Journey, str, str, str], dict[str, Any]]


def _tell_trust(trust_engine: Peer, insights: dict[str, Any]) -> dict[str, float]:
    """Tell the trust engine how the busiest authors behaved and return their scores."""
    scores = {}
    for author in list(insights["authors"])[:MOST_AUTHORS]:
        mood = insights["sentiment"]["by_author"].get(author, 0.0)
        kind = "helpful" if mood > 0.3 else "complaint" if mood < -0.3 else "message"
        scores[author] = trust_engine.post("/events", {"user": author, "kind": kind})["score"]
    return scores


def _prompt(insights: dict[str, Any]) -> str:
    words = ", ".join(keyword["word"] for keyword in insights["keywords"]) or "nothing in particular"
    return (
        f"Summarise a chat of {insights['messages']} messages. The chat was about {words}. "
        f"The mood of the chat was {insights['sentiment']['label']}. "
        f"Most messages came at {insights['busiest_hour']['hour']} o'clock."
    )


def _markdown(insights: dict[str, Any], trust: dict[str, float], routed: dict[str, Any]) -> str:
    authors = "\n".join(
        f"| {_cell(author)} | {count} | {trust.get(author, '')} |"
        for author, count in insights["authors"].items()
    )
    return (
        f"{routed['text']}\n\n## Who wrote\n\n| author | messages | trust |\n|---|---|---|\n{authors}\n\n"
        f"## Mood\n\n{insights['sentiment']['label']}, {insights['sentiment']['score']}\n"
    )


def _cell(text: str) -> str:
    """Write a name into a table as it is: nothing in it is markup."""
    return escape(_MARKUP.sub(r"\\\g<0>", text.replace("\n", " ")), quote=False)


def create_app(peers: Mapping[str, Peer], travel: Travel) -> Flask:
    """Return the orchestrator over *peers*, which need not be up; *travel* takes a journey."""
    app = application("orchestrator")

    @app.post("/journey")
    def journey() -> ResponseReturnValue:
        body = json_object()
        log = text_of(body, "log", longest=LONGEST_LOG)
        log_format, document = body.get("format", "text"), body.get("document", "html")
        if log_format not in CONTENT_TYPES:
            abort(400, f"'format' must be one of {', '.join(CONTENT_TYPES)}")
        if document not in DOCUMENTS:
            abort(400, f"'document' must be one of {', '.join(DOCUMENTS)}")
        way = Journey(peers)
        try:
            return jsonify(travel(way, log, log_format, document))
        except JourneyError as error:
            status = 400 if error.status in REFUSALS else 502
            return jsonify(error=str(error), failed=error.step, steps=way.steps), status

    @app.get("/links/<service>")
    def link(service: str) -> ResponseReturnValue:
        if service not in LINKS:
            abort(404, f"there is no link to {service!r}, only to {', '.join(LINKS)}")
        return answer_link(peers[service], LINKS[service])

    @app.get("/health")
    def health() -> ResponseReturnValue:
        # The others have checks of their own: their failure must not look like ours.
        return jsonify(status="healthy", service=app.name)

    return app


if __name__ == "__main__":
    parser = command_line("orchestrator", "Takes a chat log through all services.")
    for number, service in enumerate(LINKS):
        parser.add_argument(f"--{service}", default=f"http://{HOST}:{4001 + number}", metavar="URL")
    arguments = parser.parse_args()
    addresses = {service: getattr(arguments, service.replace("-", "_")) for service in LINKS}
    peers = {name: Peer(name=name, url=url.rstrip("/")) for name, url in addresses.items()}
    monitor = ErrorMonitor(service="orchestrator").start()
    travel = monitor.add_service("orchestrator", Journey.run)
    serve(create_app(peers, travel), arguments.port)
