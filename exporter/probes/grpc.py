"""Ask a gRPC server by the health checking protocol (grpc.health.v1).

grpcio opens its connections itself, tries again and again, and tells in free text why one failed. So a
connection of all probes goes first: it asks the gate, names what fails, reads the certificate, and is
dropped. Then grpcio connects to that very address, once.
"""

import ssl
from collections.abc import Mapping
from functools import partial
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from exporter.kinds.grpc import GrpcProbe
from exporter.observation import Measure, Outcome, Reading, Reason
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.dial import Opened, dial, preferred_version, secured
from exporter.probes.own_files import OwnFileError, from_files

CODE = Measure(name="grpc_status_code", help="Status code of the last call.")
SERVING = Measure(
    name="grpc_healthcheck_response",
    help="Whether the last answer was this serving status.",
    labels=("serving_status",),
)

_ANSWER_LIMIT = 65536  # bytes
_OPTIONS: Mapping[str, int] = {
    "grpc.enable_http_proxy": 0,  # no variable of the environment sends us elsewhere
    "grpc.enable_retries": 0,
    "grpc.use_local_subchannel_pool": 1,  # or the connection of an earlier probe would be taken
    "grpc.service_config_disable_resolution": 1,
    "grpc.max_receive_message_length": _ANSWER_LIMIT,
    "grpc.max_metadata_size": _ANSWER_LIMIT,
    "grpc.absolute_max_metadata_size": _ANSWER_LIMIT,
}


async def probe(config: GrpcProbe, context: Context) -> Outcome:
    """Call Check once. Never raises: a failure is the outcome."""
    progress = context.progress()
    return await guarded(_ask(config, context, progress), progress, context.timeout)


async def _ask(config: GrpcProbe, context: Context, progress: Progress) -> Outcome:
    await _look(config, context, progress)
    try:
        credentials = await from_files(partial(_credentials, config), context) if config.tls else None
    except OwnFileError as error:
        return progress.outcome(Reason.INTERNAL, str(error))
    except OSError as error:
        return progress.outcome(Reason.INTERNAL, f"a file of tls cannot be read: {error.strerror}")
    channel = _channel(config, progress.address, credentials)
    try:
        if not await _speaks(channel):
            return progress.outcome(Reason.PROTOCOL, "the server does not speak gRPC")
        progress.note("the channel is ready")
        return await _check(channel, config, context, progress)
    finally:
        await channel.close(grace=None)


async def _look(config: GrpcProbe, context: Context, progress: Progress) -> None:
    """Connect, shake hands if TLS is spoken, and drop the connection. Raises OSError."""
    host, port = config.address()
    version = await preferred_version(
        host, config.ip_version, fallback=config.ip_fallback, context=context, progress=progress
    )
    secure = None
    if config.tls is not None:
        secure = await secured(config.tls, host, context)
    transport, _ = await dial(
        Opened, host, port, context=context, progress=progress, version=version, secure=secure
    )
    transport.abort()


def _credentials(config: GrpcProbe) -> grpc.ChannelCredentials | None:
    """Return how TLS is spoken, with the same roots as every probe; None without TLS. Raises OSError."""
    tls = config.tls
    if tls is None:
        return None
    roots = tls.ca_file or ssl.get_default_verify_paths().cafile
    chain = Path(tls.cert_file).read_bytes() if tls.cert_file else None
    key_file = tls.key_file or tls.cert_file
    return grpc.ssl_channel_credentials(
        root_certificates=Path(roots).read_bytes() if roots else None,
        private_key=Path(key_file).read_bytes() if key_file else None,
        certificate_chain=chain,
    )


def _channel(
    config: GrpcProbe, address: str, credentials: grpc.ChannelCredentials | None
) -> grpc.aio.Channel:
    host, port = config.address()
    literal = isinstance(ip_address(address.partition("%")[0]), IPv6Address)
    target = f"ipv6:[{address}]:{port}" if literal else f"ipv4:{address}:{port}"
    options: list[tuple[str, Any]] = [*_OPTIONS.items(), ("grpc.default_authority", config.grpc)]
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    name = (config.tls and config.tls.server_name) or host
    options.append(("grpc.ssl_target_name_override", name))
    return grpc.aio.secure_channel(target, credentials, options=options)


async def _speaks(channel: grpc.aio.Channel) -> bool:
    """Connect once; whether the peer has answered as HTTP/2 does."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            return False
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=False)
    return True


async def _check(
    channel: grpc.aio.Channel, config: GrpcProbe, context: Context, progress: Progress
) -> Outcome:
    metadata = tuple((key, value) for key, values in config.metadata.items() for value in values)
    check = health_pb2_grpc.HealthStub(channel).Check
    try:
        answer = await check(
            health_pb2.HealthCheckRequest(service=config.service), metadata=metadata, timeout=context.timeout
        )
    except grpc.aio.AioRpcError as error:
        progress.reach("processing")
        return progress.outcome(*_failure(error), readings=(Reading(CODE, error.code().value[0]),))
    except grpc.RpcError as error:
        return progress.outcome(Reason.PROTOCOL, f"the call failed: {type(error).__name__}")
    progress.reach("processing")
    names = health_pb2.HealthCheckResponse.ServingStatus
    said = names.Name(answer.status) if answer.status in names.values() else str(answer.status)
    progress.note("answered %s", said)
    readings = (
        Reading(CODE, grpc.StatusCode.OK.value[0]),
        *(Reading(SERVING, int(name == said), (name,)) for name in names.keys()),  # noqa: SIM118 - no mapping
    )
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        return progress.outcome(Reason.UNHEALTHY, f"says {said}", readings=readings)
    return progress.outcome(detail=said, readings=readings)


def _failure(error: grpc.aio.AioRpcError) -> tuple[Reason, str]:
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Reason.TIMEOUT, "no answer in time"
    if code is grpc.StatusCode.NOT_FOUND:
        return Reason.STATUS, "NOT_FOUND: the server knows no such service"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Reason.STATUS, "UNIMPLEMENTED: the server has no health checking"
    return Reason.STATUS, f"{code.name}: {error.details()}"
