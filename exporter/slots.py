"""Who may run when not all may run at once."""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Slots(Generic[T]):
    """A number of places, of which those that are doubtful may hold at most half.

    Doubtful is whose last run failed, or who never ran. Whoever hangs holds its place until its timeout:
    were all places alike, some hundred that hang would keep those waiting that are well; so these find
    places that no doubtful one may take. Of those in line the ones that hold fewer places come first.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._taken = {False: 0, True: 0}  # by whether the holder is doubtful
        self._waiting: dict[bool, deque[T]] = {False: deque(), True: deque()}

    @property
    def taken(self) -> int:
        """How many places are held."""
        return self._taken[False] + self._taken[True]

    def take(self, *, doubtful: bool) -> bool:
        """Take a place, if there is one for such a holder."""
        if self.taken >= self.size or (doubtful and self._taken[True] >= max(1, self.size // 2)):
            return False
        self._taken[doubtful] += 1
        return True

    def give_back(self, *, doubtful: bool) -> None:
        """Return the place that was taken with the same word."""
        self._taken[doubtful] -= 1

    def wait(self, who: T, *, doubtful: bool) -> None:
        """Stand in line for a place."""
        self._waiting[doubtful].append(who)

    def admit(self) -> tuple[T, bool] | None:
        """Take a place for the first in line who may have one; None when there is no such."""
        for doubtful in (False, True) if self._taken[False] <= self._taken[True] else (True, False):
            line = self._waiting[doubtful]
            if line and self.take(doubtful=doubtful):
                return line.popleft(), doubtful
        return None
