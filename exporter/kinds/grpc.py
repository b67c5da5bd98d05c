"""``{grpc: HOST:PORT}``: ask a gRPC server by the health checking protocol."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from exporter.fields import Address, as_list, header_text, split_address
from exporter.kinds import IpChoice, ProbeBase, Tls

_KEY = re.compile(r"^[0-9a-z_.-]+$")


def _metadata_key(value: str) -> str:
    if not _KEY.match(value) or value.endswith("-bin") or value.startswith("grpc-"):
        letters = "lower-case letters, digits, '_', '.' and '-'"
        raise ValueError(f"a key of metadata has {letters}, and is not grpc-... or ...-bin")
    return value


def _metadata_value(value: str) -> str:
    if not value.isascii():
        raise ValueError("a value of metadata is ASCII")
    return header_text(value)


class GrpcProbe(IpChoice, ProbeBase):
    """Call grpc.health.v1.Health/Check, by TLS with ``tls``."""

    kind: ClassVar[str] = "grpc"
    grpc: Address
    service: str = ""  # empty: the server as a whole
    metadata: Mapping[
        Annotated[str, AfterValidator(_metadata_key)],
        Annotated[tuple[Annotated[str, AfterValidator(_metadata_value)], ...], BeforeValidator(as_list)],
    ] = Field(default={}, repr=False)
    tls: Tls | None = None

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if find_spec("grpc") is None or find_spec("grpc_health") is None:
            raise ValueError("grpcio is not installed; pip install 'soulfra-monitor[grpc]'")
        tls = self.tls
        if tls is not None and not tls.verify:
            raise ValueError("grpc always verifies TLS; write tls: {ca_file: FILE, server_name: NAME}")
        if tls is not None and (tls.min_version or tls.max_version):
            raise ValueError("grpc speaks TLS 1.2 and later; leave min_version and max_version out")
        return self

    def address(self) -> tuple[str, int]:
        """Return host and port."""
        return split_address(self.grpc)
