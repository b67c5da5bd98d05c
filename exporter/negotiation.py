"""Which text format and coding a scraper gets: what its headers prefer among those that are written here."""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A text format: its Content-Type, and whether it is OpenMetrics."""

    media_type: str
    version: str
    openmetrics: bool

    @property
    def content_type(self) -> str:
        """The Content-Type of an answer; Prometheus 3 fails a scrape that has none it knows."""
        return f"{self.media_type}; version={self.version}; charset=utf-8"


TEXT = Format(media_type="text/plain", version="0.0.4", openmetrics=False)
OPENMETRICS = Format(media_type="application/openmetrics-text", version="1.0.0", openmetrics=True)
OLD_OPENMETRICS = Format(media_type="application/openmetrics-text", version="0.0.1", openmetrics=True)

_OFFERS = (TEXT, OPENMETRICS, OLD_OPENMETRICS)
_RANGES_LIMIT = 50
_NAMED = 3  # precision of a range that names the format itself


@dataclass(frozen=True, slots=True)
class _Range:
    """One media range of an Accept header; ``position`` is that of its place in the header."""

    media_type: str
    version: str | None
    quality: float
    position: int

    def precision(self, offer: Format) -> int:
        """How exactly the range names *offer*; 0 when it does not."""
        if self.media_type == offer.media_type:
            return 0 if self.version not in (None, offer.version) else _NAMED + (self.version is not None)
        if self.media_type == f"{offer.media_type.partition('/')[0]}/*":
            return 2
        return 1 if self.media_type == "*/*" else 0


def negotiate(accept: str) -> Format:
    """Return the format that *accept* likes best; the text format when it takes none or says nothing.

    Of the ranges that name a format the most exact one counts, so ``q=0`` excludes a format that
    ``*/*`` would let in. Formats liked equally are taken in the order of the header. Other
    parameters, such as ``escaping``, do not matter: no name here needs escaping.
    """
    ranges = list(_ranges(accept))
    liked = []
    for offer in _OFFERS:
        naming = [(found.precision(offer), found) for found in ranges if found.precision(offer)]
        precision, best = max(naming, key=itemgetter(0), default=(0, None))
        if best is not None and best.quality > 0:
            liked.append((best.quality, precision >= _NAMED, -best.position, offer))
    return max(liked, key=lambda found: found[:3])[3] if liked else TEXT


def takes(accept_encoding: str, coding: str) -> bool:
    """Whether a header Accept-Encoding names *coding* and does not exclude it by ``q=0``."""
    return any(found.media_type == coding and found.quality > 0 for found in _ranges(accept_encoding))


def _ranges(accept: str) -> Iterator[_Range]:
    for position, part in enumerate(accept.split(",", _RANGES_LIMIT)[:_RANGES_LIMIT]):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        values = {key.strip(): value.strip().strip('"') for key, _, value in _pairs(parameters)}
        quality = _quality(values.get("q", "1"))
        if media_type and quality is not None:
            yield _Range(media_type, values.get("version"), quality, position)


def _pairs(parameters: list[str]) -> Iterator[tuple[str, str, str]]:
    return (parameter.partition("=") for parameter in parameters)


def _quality(text: str) -> float | None:
    try:
        quality = float(text)
    except ValueError:
        return None
    return quality if 0 <= quality <= 1 else None
