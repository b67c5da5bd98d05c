"""``{http: URL}``: ask an HTTP address and check the answer."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from exporter.fields import Scalar, Strict, Url, as_list, check_pattern, header_text
from exporter.kinds import ProbeBase, Tls


class HttpExpect(Strict):
    """What an HTTP answer must be to count as healthy."""

    status: Annotated[tuple[int, ...], BeforeValidator(as_list), Field(min_length=1)] = (200,)
    headers: Mapping[str, str] = {}  # header -> regular expression found in its value
    body: str | None = None  # regular expression found in the body
    json_: Mapping[str, Scalar] = Field(default={}, alias="json")  # dotted path -> exact value

    @model_validator(mode="after")
    def _patterns_compile(self) -> Self:
        for pattern in (*self.headers.values(), *([self.body] if self.body else [])):
            check_pattern(pattern)
        return self


class HttpProbe(ProbeBase):
    """Ask an HTTP address and check status, headers, body and JSON values."""

    kind: ClassVar[str] = "http"
    http: Url
    method: Literal["GET", "HEAD", "POST", "PUT", "OPTIONS"] = "GET"
    headers: Mapping[
        Annotated[str, AfterValidator(header_text)], Annotated[str, AfterValidator(header_text)]
    ] = {}
    body: str | None = None
    expect: HttpExpect = HttpExpect()
    tls: Tls = Tls()

    def address(self) -> tuple[str, int]:
        """Return host and port of the address."""
        parts = urlsplit(self.http)
        return (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
