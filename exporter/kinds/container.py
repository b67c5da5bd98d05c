"""``{container: NAME}``: watch a container of a Docker engine."""

import re
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from exporter.fields import Percent, Strict
from exporter.kinds import ProbeBase, Tls

_PLAIN_PORT, _TLS_PORT = 2375, 2376
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def _container_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be the name or the id of a container")
    return value


ContainerName = Annotated[str, AfterValidator(_container_name)]


class ComposeContainer(Strict):
    """One container of a service of Docker Compose; Compose's labels tell which."""

    project: ContainerName
    service: ContainerName
    number: Annotated[int, Field(ge=1)] = 1  # of the container, when the service is scaled


def _read_container(value: Any) -> str | ComposeContainer:
    if isinstance(value, str):
        return _container_name(value)
    if not isinstance(value, dict | ComposeContainer):
        raise ValueError("must be the name of a container, or {project: ..., service: ...} of Compose")  # noqa: TRY004 - pydantic makes mistakes of ValueErrors only
    return ComposeContainer.model_validate(value)


def _engine(value: str) -> str:
    parts = urlsplit(value)
    local = parts.scheme == "unix" and not parts.netloc and parts.path not in ("", "/")
    remote = parts.scheme == "tcp" and parts.hostname and parts.path in ("", "/") and parts.port != 0
    if not local and not remote:
        raise ValueError("must be unix:///path/of/docker.sock or tcp://HOST:PORT")
    return value


class ContainerProbe(ProbeBase):
    """Ask a Docker engine for the state of a container and what it uses."""

    kind: ClassVar[str] = "container"
    container: Annotated[str | ComposeContainer, PlainValidator(_read_container)]
    engine: Annotated[str, AfterValidator(_engine)] = "unix:///var/run/docker.sock"
    tls: Tls | None = None
    max_memory: Percent | None = None  # working set of the limit

    @model_validator(mode="after")
    def _tls_needs_tcp(self) -> Self:
        if self.tls is not None and not self.engine.startswith("tcp:"):
            raise ValueError("tls needs an engine at tcp://HOST:PORT")
        return self

    def engine_address(self) -> tuple[str, int] | None:
        """Return host and port of the engine; None for a socket file."""
        parts = urlsplit(self.engine)
        if parts.scheme == "unix":
            return None
        return parts.hostname or "", parts.port or (_PLAIN_PORT if self.tls is None else _TLS_PORT)
