"""``{http: URL}``: ask an HTTP address and check the answer."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, SecretStr, model_validator

from exporter.fields import ByteSize, Scalar, Strict, Url, as_list, header_text
from exporter.kinds import IpChoice, ProbeBase, Tls
from exporter.kinds.patterns import check_re2
from exporter.kinds.unix import SocketPath

MOST_REDIRECTS = 20
MOST_BODY = 64 * 1024 * 1024
MOST_JSON = 2 * 1024 * 1024
"""Bytes of a body that is read as JSON: the event loop stands still meanwhile, some 20 ms for each MiB."""
_TOKEN = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
_CLASS = re.compile(r"^[1-5]xx$")
_FRAMING = {"content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect"}


def _header_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} is not the name of a header, for example X-Api-Version")
    return value


def _scheme(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("must be one word, for example Bearer or Token")
    return value


def _own_header(value: str) -> str:
    if value.lower() in _FRAMING:
        raise ValueError(f"the header {value} belongs to the connection, which the exporter makes itself")
    return value


def _status(value: object) -> object:
    if isinstance(value, str) and _CLASS.fullmatch(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 999:  # noqa: PLR2004 - of HTTP
        return value
    raise ValueError("must be a status such as 200, or a class of them such as 2xx")


def _version(value: object) -> object:
    # YAML makes a number of 1.1.
    return str(value).removeprefix("HTTP/")


def _plain_http(value: str) -> str:
    if not value.startswith("http://"):
        raise ValueError(
            "must be http://HOST:PORT: a proxy is spoken to without TLS, what goes through may use it"
        )
    return value


def _as_checks(value: object) -> object:
    return [{"matches": item} if isinstance(item, str) else item for item in _listed(value)]


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


HeaderName = Annotated[str, AfterValidator(_header_name)]
OwnHeader = Annotated[HeaderName, AfterValidator(_own_header)]
HeaderText = Annotated[str, AfterValidator(header_text)]
Re2 = Annotated[str, AfterValidator(check_re2)]
Patterns = Annotated[tuple[Re2, ...], BeforeValidator(as_list)]
Status = Annotated[int | str, BeforeValidator(_status)]
HttpVersion = Annotated[Literal["1.0", "1.1"], BeforeValidator(_version)]


class HeaderCheck(Strict):
    """What a header is searched for; one that is missing fails ``headers`` and passes ``headers_not``."""

    matches: Re2
    optional: bool | None = None  # whether the header may be missing, where that is not so by itself


HeaderChecks = Annotated[tuple[HeaderCheck, ...], BeforeValidator(_as_checks), Field(min_length=1)]


class JsonCheck(Strict):
    """What a value in a JSON answer must be; everything that is given must hold."""

    equals: Scalar = None
    not_: Scalar = Field(default=None, alias="not")
    matches: Re2 | None = None
    less_than: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    exists: bool | None = None
    length: Annotated[int, Field(ge=0)] | None = None  # of a list, mapping or text
    longer_than: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _checks_something(self) -> Self:
        given = self.model_fields_set
        if not given:
            raise ValueError(
                "a check needs one of equals, not, matches, less_than, at_least, at_most, exists, length"
                " and longer_than"
            )
        if self.exists is False and len(given) > 1:
            raise ValueError("exists: false goes with nothing else: what is not there has no value")
        return self


def _json_check(value: object) -> object:
    return value if isinstance(value, dict | JsonCheck) else {"equals": value}


class HttpExpect(Strict):
    """What an HTTP answer must be to count as healthy."""

    status: Annotated[tuple[Status, ...], BeforeValidator(as_list), Field(min_length=1)] = ("2xx",)
    headers: Mapping[HeaderName, HeaderChecks] = {}  # one of its values must match
    headers_not: Mapping[HeaderName, HeaderChecks] = {}
    body: Patterns = ()  # each must be found
    body_not: Patterns = ()
    json_: Mapping[str, Annotated[JsonCheck, BeforeValidator(_json_check)]] = Field(default={}, alias="json")
    http_version: Annotated[tuple[HttpVersion, ...], BeforeValidator(as_list)] = ()
    secure: bool | None = None  # whether the last answer must, or must not, come over TLS

    @property
    def of_body(self) -> bool:
        """Whether anything is expected of the body."""
        return bool(self.body or self.body_not or self.json_)


class BasicAuth(Strict):
    """A user and a password."""

    username: HeaderText
    password: SecretStr | None = None
    password_file: str | None = None

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("needs either password or password_file")
        if ":" in self.username:
            raise ValueError("username must not contain ':', which begins the password")
        return self


class Bearer(Strict):
    """A token that is shown in the header Authorization."""

    token: SecretStr | None = None
    token_file: str | None = None
    scheme: Annotated[str, AfterValidator(_scheme)] = "Bearer"

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if (self.token is None) == (self.token_file is None):
            raise ValueError("needs either token or token_file")
        if self.token is not None:
            header_text(self.token.get_secret_value())
        return self


class HttpAsk(IpChoice):
    """How an address is asked, and what is expected of its answer."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    headers: Mapping[OwnHeader, HeaderText] = Field(default={}, repr=False)
    body: str | None = Field(default=None, repr=False)
    body_file: str | None = None
    redirects: Annotated[int, Field(ge=0, le=MOST_REDIRECTS)] = 0  # followed at most
    basic_auth: BasicAuth | None = None
    bearer: Bearer | None = None
    proxy: Annotated[Url, AfterValidator(_plain_http)] | None = Field(default=None, repr=False)
    socket: SocketPath | None = None
    compression: Literal["gzip", "deflate"] | None = None
    body_limit: Annotated[ByteSize, Field(ge=1, le=MOST_BODY)] = 1024 * 1024
    expect: HttpExpect = HttpExpect()
    tls: Tls = Tls()
    _counts_body: bool = PrivateAttr(default=False)

    @property
    def counts_body(self) -> bool:
        """Whether the whole body is read of any answer, also where its status alone is a failure."""
        return self._counts_body

    @model_validator(mode="after")
    def _one_way_each(self) -> Self:
        if self.body is not None and self.body_file is not None:
            raise ValueError("write body or body_file, not both")
        if self.basic_auth is not None and self.bearer is not None:
            raise ValueError("write basic_auth or bearer, not both")
        if (self.basic_auth or self.bearer) and "authorization" in map(str.lower, self.headers):
            raise ValueError("write basic_auth, bearer or the header Authorization, one of them")
        if self.socket is not None and self.proxy is not None:
            raise ValueError("write socket or proxy, not both: a socket file needs no proxy")
        if self.method == "HEAD" and self.expect.of_body:
            raise ValueError("an answer to HEAD has no body to expect something of; use GET")
        if self.expect.json_:
            check_json_limit("expect.json", self.body_limit)
        return self


def check_json_limit(key: str, body_limit: int) -> None:
    """Raise ValueError when bodies up to *body_limit* are too large for what *key* does."""
    if body_limit > MOST_JSON:
        raise ValueError(
            f"{key} is read from bodies of {MOST_JSON // 2**20} MiB at most: lower body_limit, or search the"
            " text with a regular expression"
        )


class HttpProbe(HttpAsk, ProbeBase):
    """Ask an HTTP address and check status, headers, body and JSON values."""

    kind: ClassVar[str] = "http"
    http: Url

    def counting_body(self) -> Self:
        """Read the whole body of any answer, so that its length can be told."""
        self._counts_body = True
        return self

    def address(self) -> tuple[str, int] | None:
        """Return host and port of the address; None for a socket file."""
        if self.socket is not None:
            return None
        parts = urlsplit(self.http)
        return (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
