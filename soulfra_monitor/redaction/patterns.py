"""Regular expressions that are compiled when they are first used, and replacing what one leads to."""

import re
from collections.abc import Callable, Iterator
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


def replaced(text: str, edits: list[Edit]) -> str:
    """Return *text* with (from, to, instead) done, in their order; one inside another is left out."""
    kept: list[str] = []
    done = 0
    for start, end, instead in sorted(edits):
        if start >= done:
            kept += (text[done:start], instead)
            done = end
    return "".join((*kept, text[done:]))
