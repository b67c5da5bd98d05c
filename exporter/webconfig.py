"""The web-config.yml of Prometheus's exporter-toolkit: TLS, client certificates, users, headers.

What cannot be honoured is refused with a word of why: a protection that is asked for and not there
is worse than none.
"""

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from exporter.document import ConfigError, Document, Mistake, read_document
from exporter.fields import Strict
from exporter.loading import mistakes_of

_HASH = re.compile(r"^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$")
COSTS = range(4, 16)  # a look at a password of cost 15 takes seconds
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
_SUITES_OF_TLS13 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
_HEADERS = (
    *("Content-Security-Policy", "Strict-Transport-Security", "X-Content-Type-Options"),
    *("X-Frame-Options", "X-XSS-Protection"),
)


def _client_auth(value: str) -> str:
    known = ("NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
    if value in ("RequestClientCert", "RequireAnyClientCert"):
        raise ValueError(f"a certificate that nobody verifies protects nothing; write {known[2]}")
    if value not in ("", *known):
        raise ValueError(f"must be {', '.join(known[:-1])} or {known[-1]}")
    return value or known[0]


def _version(value: str) -> str:
    if value not in _VERSIONS:
        raise ValueError("must be TLS12 or TLS13; older versions are not safe any more")
    return value


def _suite(value: str) -> str:
    if value not in _SUITES and value not in _SUITES_OF_TLS13:
        raise ValueError(f"must be one of {', '.join(_SUITES)}")
    return value


def _curve(value: str) -> str:
    if value not in _CURVES:
        raise ValueError(f"must be one of {', '.join(_CURVES)}")
    return value


def _header_name(value: str) -> str:
    if value not in _HEADERS:
        raise ValueError(f"must be one of {', '.join(_HEADERS)}")
    return value


def _header_value(value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ValueError("a header has printable ASCII characters only")
    return value


def _user(value: str) -> str:
    if not value or ":" in value or not value.isprintable():
        raise ValueError("a user's name is not empty, is printable and has no colon")
    return value


def _hash(value: str) -> str:
    found = _HASH.match(value)
    if not found or int(found[1]) not in COSTS:
        raise ValueError(
            "must be a bcrypt hash with a cost from 4 to 15, for example from htpasswd -nBC 10 NAME"
        )
    return value


class TlsServer(Strict):
    """``tls_server_config``: what the exporter shows, and what it wants to see."""

    cert_file: Annotated[str, Field(min_length=1)]
    key_file: Annotated[str, Field(min_length=1)]
    client_auth_type: Annotated[str, AfterValidator(_client_auth)] = "NoClientCert"
    client_ca_file: str | None = None
    client_allowed_sans: tuple[str, ...] = ()
    min_version: Annotated[str, AfterValidator(_version)] = "TLS12"
    max_version: Annotated[str, AfterValidator(_version)] = "TLS13"
    cipher_suites: tuple[Annotated[str, AfterValidator(_suite)], ...] = ()  # of TLS 1.2
    prefer_server_cipher_suites: bool = True
    curve_preferences: Annotated[tuple[Annotated[str, AfterValidator(_curve)], ...], Field(max_length=1)] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.min_version > self.max_version:
            raise ValueError("min_version is above max_version")
        verifies = self.client_auth_type != "NoClientCert"
        if verifies != (self.client_ca_file is not None):
            raise ValueError("client_ca_file and a client_auth_type that verifies belong together")
        if self.client_allowed_sans and not self.demands_certificate:
            raise ValueError("client_allowed_sans needs client_auth_type RequireAndVerifyClientCert")
        if self.max_version == "TLS12" and self.cipher_suites and not self._suites():
            raise ValueError("cipher_suites has none of TLS 1.2")
        return self

    @property
    def demands_certificate(self) -> bool:
        """Whether nobody comes in without a certificate that verifies."""
        return self.client_auth_type == "RequireAndVerifyClientCert"

    def files(self, folder: Path) -> dict[str, Path]:
        """Return the files it names, by key."""
        named = {
            "cert_file": self.cert_file,
            "key_file": self.key_file,
            "client_ca_file": self.client_ca_file,
        }
        return {key: folder / name for key, name in named.items() if name is not None}

    def context(self, files: Mapping[str, Path]) -> ssl.SSLContext:
        """Make the context. Raises OSError (ssl.SSLError is one) when a file cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[self.min_version]
        context.maximum_version = _VERSIONS[self.max_version]
        context.set_alpn_protocols(["http/1.1"])
        if self._suites():
            context.set_ciphers(":".join(self._suites()))
        if not self.prefer_server_cipher_suites:
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        for curve in self.curve_preferences:
            context.set_ecdh_curve(_CURVES[curve])
        # Without a password OpenSSL would ask at the terminal for that of an encrypted key.
        context.load_cert_chain(files["cert_file"], files["key_file"], password="")
        if "client_ca_file" in files:
            context.load_verify_locations(files["client_ca_file"])
            context.verify_mode = ssl.CERT_REQUIRED if self.demands_certificate else ssl.CERT_OPTIONAL
        return context

    def _suites(self) -> list[str]:
        return [_SUITES[suite] for suite in self.cipher_suites if suite in _SUITES]


class HttpServer(Strict):
    """``http_server_config``: headers of every answer. HTTP/2 is not spoken, whatever is written here."""

    http2: bool = True
    headers: Mapping[
        Annotated[str, AfterValidator(_header_name)], Annotated[str, AfterValidator(_header_value)]
    ] = {}


class WebFile(Strict):
    """The whole file."""

    tls_server_config: TlsServer | None = None
    http_server_config: HttpServer = HttpServer()
    basic_auth_users: Mapping[
        Annotated[str, AfterValidator(_user)], Annotated[str, AfterValidator(_hash)]
    ] = {}


Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """How the exporter's own port is protected; compares by what was in the files."""

    settings: WebFile = field(default_factory=WebFile)
    file: Path | None = None
    context: ssl.SSLContext | None = field(default=None, compare=False)
    signature: Signature = ()  # of all files that were read

    @property
    def scheme(self) -> Literal["http", "https"]:
        """What addresses of the exporter begin with."""
        return "http" if self.context is None else "https"

    @property
    def authenticates(self) -> bool:
        """Whether everybody has to show who they are."""
        tls = self.settings.tls_server_config
        return bool(self.settings.basic_auth_users) or (tls is not None and tls.demands_certificate)

    @property
    def sends_passwords_in_clear(self) -> bool:
        """Whether people have to send their passwords over a connection that others may read."""
        return bool(self.settings.basic_auth_users) and self.context is None

    def signature_now(self) -> Signature:
        """Return the signature that the files have now; it is not ``signature`` when one has changed."""
        return signature_of(self._files())

    def _files(self) -> list[Path]:
        if self.file is None:
            return []
        tls = self.settings.tls_server_config
        return [self.file, *(tls.files(self.file.parent).values() if tls else ())]


OPEN = WebConfig()
"""No protection: for loopback."""


def load_web_config(file: Path | None) -> WebConfig:
    """Read *file* and the files it names. Raises ConfigError with every mistake."""
    if file is None:
        return OPEN
    document = read_document(file)
    if not isinstance(document.data, dict):
        raise ConfigError([document.mistake((), "must be a mapping with keys such as tls_server_config")])
    try:
        settings = WebFile.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError(mistakes_of(error, document)) from error
    tls = settings.tls_server_config
    files = tls.files(file.parent) if tls else {}
    signature = signature_of([file, *files.values()])
    context = None
    if tls is not None:
        unreadable = list(_unreadable(files, document))
        if unreadable:
            raise ConfigError(unreadable)
        try:
            context = tls.context(files)
        except OSError as error:
            text = getattr(error, "reason", None) or error.strerror or str(error)
            message = f"the certificates or the key cannot be used: {text}"
            raise ConfigError([document.mistake(("tls_server_config",), message)]) from error
    return WebConfig(settings=settings, file=file, context=context, signature=signature)


def _unreadable(files: Mapping[str, Path], document: Document) -> Iterator[Mistake]:
    for key, path in files.items():
        try:
            path.open("rb").close()
        except OSError as error:
            yield document.mistake(("tls_server_config", key), f"cannot be read: {error.strerror}")


def signature_of(files: list[Path]) -> Signature:
    """Tell a file's states apart without reading it; a missing one has a state too."""
    found = []
    for file in files:
        try:
            state = file.stat()
            found.append((str(file), state.st_mtime_ns, state.st_size, state.st_ino))
        except OSError:
            found.append((str(file), 0, 0, 0))
    return tuple(found)
