"""The remediator's API as its commands use it."""

from collections.abc import Mapping
from typing import Any

from remediator.calls import Answer, CallError, call

_TIMEOUT = 15.0  # seconds; the health of many services may need the exporter first


class ClientError(Exception):
    """No answer, or one that refuses; the message is for people."""


class RefusedError(ClientError):
    """The remediator answered that it will not."""

    def __init__(self, message: str, *, status: int, answer: Any) -> None:
        super().__init__(message)
        self.status = status
        self.answer = answer


class Client:
    """Asks one remediator. Every method raises ClientError, with a message that tells how to go on."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, query: Mapping[str, str | None] | None = None) -> Any:
        """Return what stands at *path*; parts of the query that are None are left out."""
        fields = [(key, value) for key, value in (query or {}).items() if value is not None]
        return self._ask("GET", path, fields=fields)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Ask for a change and return the answer."""
        return self._ask("POST", path, json_body=body)

    def _ask(self, method: str, path: str, **details: Any) -> Any:
        url = f"{self._url}/api/monitoring{path}"
        try:
            answer = call(method, url, timeout=_TIMEOUT, headers=self._headers, **details)
            content = answer.json()
        except CallError as error:
            raise ClientError(
                f"the remediator at {self._url} cannot be asked: {error} "
                "(is it running? --url or SOULFRA_URL says where)"
            ) from error
        if not answer.ok:
            raise _refused(answer, content)
        return content


def _refused(answer: Answer, content: Any) -> RefusedError:
    told = content if isinstance(content, dict) else {}
    message = str(told.get("error") or f"the remediator answered with status {answer.status}")
    if told.get("reason"):
        message = f"{message} ({told['reason']})"
    return RefusedError(message, status=answer.status, answer=content)
