"""Regular expressions that are compiled when they are first used, and replacing what one leads to."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

Edit = tuple[int, int, str]
"""From where, up to where, and what stands there instead."""


class Pattern:
    """A regular expression that is compiled when it is first used: most texts hold few kinds of secrets.

    Two threads may compile it at once, and both get the same.
    """

    if TYPE_CHECKING:
        search: Callable[..., re.Match[str] | None]
        match: Callable[..., re.Match[str] | None]
        fullmatch: Callable[..., re.Match[str] | None]
        finditer: Callable[..., Iterator[re.Match[str]]]
        findall: Callable[..., list[str]]
        sub: Callable[..., str]

    def __init__(self, source: str, flags: int = 0) -> None:
        self.source = source
        self.flags = flags

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        compiled = re.compile(self.source, self.flags)
        for one in ("search", "match", "fullmatch", "finditer", "findall", "sub"):
            setattr(self, one, getattr(compiled, one))
        return getattr(compiled, name)


def edited(text: str, lead: Pattern, look: Callable[[re.Match[str]], Edit | None]) -> str:
    """Return *text* with the edits done that *look* makes of what *lead* finds; behind each it goes on."""
    edits: list[Edit] = []
    at = 0
    while found := lead.search(text, at):
        edit = look(found)
        if edit is not None:
            edits.append(edit)
        at = found.end() if edit is None else edit[1]
    return replaced(text, edits) if edits else text


_DENSE = 16


class Places:
    """Where hints, in lower case, stand in a text, whatever its case; each is looked for once."""

    def __init__(self, text: str) -> None:
        self.text = text
        small = text.lower()
        if len(small) != len(text):  # some letters have two in lower case
            small = "".join([letter.lower() if len(letter.lower()) == 1 else letter for letter in text])
        self._small = small
        self._found: dict[str, list[int]] = {}

    def of(self, hints: Iterable[str]) -> list[int]:
        """Return where one of *hints* stands, in their order."""
        found: list[int] = []
        for hint in hints:
            if hint not in self._found:
                self._found[hint] = list(self._each(hint))
            found += self._found[hint]
        found.sort()
        return found

    def are_dense(self, places: list[int]) -> bool:
        """Whether so many that going through all of the text costs less than a look at each."""
        return len(places) * _DENSE > len(self.text)

    def _each(self, hint: str) -> Iterator[int]:
        at = self._small.find(hint)
        while at != -1:
            yield at
            at = self._small.find(hint, at + len(hint))


def replaced(text: str, edits: list[Edit]) -> str:
    """Return *text* with (from, to, instead) done, in their order; one inside another is left out."""
    kept: list[str] = []
    done = 0
    for start, end, instead in sorted(edits):
        if start >= done:
            kept += (text[done:start], instead)
            done = end
    return "".join((*kept, text[done:]))
