"""``{unix: /PATH/TO.sock}``: open a socket file, and talk if told what."""

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, field_validator, model_validator

from exporter.kinds import ProbeBase, Tls
from exporter.kinds.exchange import Steps, begins_tls, check_one_start

PATH_LIMIT = 107  # bytes; the kernel takes no longer address


def socket_path(value: str) -> str:
    """Return *value* when it can be the path of a socket file. Raises ValueError otherwise."""
    if not value.startswith("/") or "\x00" in value:
        raise ValueError("must be the absolute path of a socket file, for example /run/app.sock")
    if len(value.encode()) > PATH_LIMIT:
        raise ValueError(f"a path of a socket has {PATH_LIMIT} bytes at most; move the socket or link to it")
    return value


SocketPath = Annotated[str, AfterValidator(socket_path)]


class UnixProbe(ProbeBase):
    """Open a socket file; then go through the steps of ``exchange``."""

    kind: ClassVar[str] = "unix"
    unix: SocketPath
    exchange: Steps = ()
    tls: Tls | None = None

    _one_start = field_validator("exchange")(check_one_start)

    @model_validator(mode="after")
    def _tls_has_a_start_and_a_name(self) -> Self:
        starts = begins_tls(self.exchange)
        if self.tls is not None and not starts:
            raise ValueError("tls needs a step with starttls: a socket file is not spoken to by TLS at once")
        if starts and (self.tls is None or (self.tls.verify and not self.tls.server_name)):
            raise ValueError("starttls needs tls: {server_name: NAME}, the name in the certificate")
        return self
