"""``{queue: URL, key: jobs}``: watch a queue that is kept in Redis."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from exporter.fields import Duration, RedisUrl, Strict
from exporter.kinds.redis import RedisAccess

_PATTERN_CHARACTERS = frozenset("*?[")


def _key(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError("a key has one printable character at least and no others")
    if _PATTERN_CHARACTERS & set(value):
        raise ValueError("must be one key: patterns are not looked up, write one probe for each queue")
    return value


def _as_key(value: object) -> object:
    return {"key": value} if isinstance(value, str) else value


Key = Annotated[str, Field(max_length=200), AfterValidator(_key)]


class Count(Strict):
    """Where the workers count what they have done: a key, or a field of a hash."""

    key: Key
    field: Key | None = None


class QueueProbe(RedisAccess):
    """Look at length, oldest item and progress of a queue in Redis."""

    kind: ClassVar[str] = "queue"
    queue: RedisUrl
    key: Key
    type: Literal["list", "stream", "zset"] = "list"
    group: Key | None = None  # of a stream: what waits is what this consumer group has not acknowledged
    taken_from: Literal["left", "right"] | None = None  # of a list; right by default
    time: Annotated[str, Field(min_length=1, max_length=200)] | None = None  # path in a JSON item, or score
    processed: Annotated[Count, BeforeValidator(_as_key)] | None = None
    max_length: Annotated[int, Field(ge=0)] | None = None
    max_age: Duration | None = None
    stuck_after: Duration | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.group is not None and self.type != "stream":
            raise ValueError("group is for a queue of type: stream")
        if self.taken_from is not None and self.type != "list":
            raise ValueError("taken_from is for a queue of type: list")
        if self.time is not None and self.type == "stream":
            raise ValueError("the entries of a stream have their time in their id: leave time out")
        if self.time == "score" and self.type == "list":
            raise ValueError("the items of a list have no score: write the path of the time in the item")
        if self.max_age is not None and self.time is None and self.type != "stream":
            raise ValueError("max_age needs time: where an item says when it was made")
        if self.group is None and self.type == "stream" and (self.stuck_after or self.max_age):
            raise ValueError("a stream keeps what was read: stuck_after and max_age need a group")
        return self
