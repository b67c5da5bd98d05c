"""Which errors are alike: the same code failing in the same way (docs/decisions/0013).

A fingerprint survives deploys, restarts and other inputs: no line numbers, no addresses, no values.
"""

import re
from collections.abc import Iterator
from hashlib import blake2b
from types import TracebackType

from soulfra_monitor.events import Event, Frame, Raised, Relation
from soulfra_monitor.problems import Problem

VERSION = "v1"
FRAMES = 8
"""In-app frames that count, the innermost."""

WALK_LIMIT = 64
"""Frames that ``quick`` walks through: a runaway recursion has a million."""

MESSAGE_LENGTH = 1000
OWN_PACKAGE = "soulfra_monitor"
SUBJECT_LENGTH = 512

CODE_FAULTS = frozenset(
    {Problem.UNCAUGHT_EXCEPTION, Problem.UNHANDLED_REJECTION, Problem.SWALLOWED_ERROR, Problem.OTHER}
)
FILE_FAULTS = frozenset({Problem.PERMISSION_DENIED, Problem.MISSING_FILE, Problem.STALE_LOCK})

_FACTS = ("method", "peer", "status", "errno", "exit_code", "signal")
"""What tells errors without frames apart beside their message."""

_INLINED = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})
"""Frames that Python 3.12 and later mostly do not have."""

_NAMELESS = frozenset(
    {"", "?", "<lambda>", "<anonymous>", "anonymous", "Object.<anonymous>", "Module.<anonymous>"}
)

# Every alternative is bounded or consumes what it scanned, so the time grows with the length and no faster.
_PARAMETERS = re.compile(
    r"""
      (?P<kept>\b(?:coroutine|module\ named|attribute|function|method|argument|name|variable|class|task)
                \ '[\w.<>]{1,100}'
              |'[\w.]{1,100}'\ object)
    | (?P<url>\b[a-z][a-z0-9+.-]{0,15}://[^\s"'<>]{1,2000})
    | (?P<email>(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8})
    | (?P<uuid>\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b)
    | (?P<date>\b\d\d:\d\d:\d\d(?:[.,]\d{1,9})?
               |\b\d{4}-\d\d-\d\d(?:[T\ ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?)
    | (?P<ip>\b\d{1,3}(?:\.\d{1,3}){3}\b(?::\d{1,5})?
             |(?<![\w:])(?:[0-9a-fA-F]{1,4}:){2,7}[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{1,4}){0,6}(?![\w:]))
    | (?P<hex>\b0x[0-9a-fA-F]{1,64}|\b(?=[a-fA-F]{0,63}[0-9])[0-9a-fA-F]{8,64}\b)
    | (?P<quoted>"[^"\n]{0,500}"|(?<!\w)'[^'\n]{0,500}'(?!\w)|`[^`\n]{0,500}`)
    | (?P<n>[-+]?\d+(?:[.,:]\d+)*)
    """,
    re.VERBOSE,
)
_REPEATED = re.compile(r"(<(?:url|email|uuid|date|ip|hex|quoted|n)>)(?:[\s,;]{1,3}\1)+")
_ADDRESS = re.compile(r"\s?(?:at )?0x[0-9a-fA-F]{1,64}")
_GENERATED = re.compile(r"(?i)\$\$lambda\$?\d{0,9}|\blambda\$\d{1,9}|(?<=\$)\d{1,9}$")
_ALIAS = re.compile(r" \[as [^\]]{1,200}\]$")


def fingerprint(event: Event) -> str:
    """Return ``v1.`` and 16 hexadecimal digits, the same for errors that are alike."""
    if event.fingerprint:
        return _hashed(("given", event.fingerprint))
    types = tuple(_types(event.raised))
    frames = _frames(event.raised)
    if frames:
        if "RecursionError" in types:  # where the stack ends is chance
            frames = tuple(sorted(frames))
        return _hashed((event.kind, *types, "", *frames))
    facts = tuple(f"{key}={event.facts[key]}" for key in _FACTS if key in event.facts)
    message = event.raised[0].message if event.raised and event.raised[0].message else event.message
    return _hashed((event.kind, *types, "", parameterised(message), *facts))


def subject(event: Event, problem: Problem) -> str:
    """Return what sets errors of one problem of a service apart; ``""`` where they are one to repair."""
    if problem in FILE_FAULTS and event.facts.get("path"):
        return str(event.facts["path"])[:SUBJECT_LENGTH]
    return fingerprint(event) if problem in CODE_FAULTS | FILE_FAULTS else ""


def parameterised(message: str) -> str:
    """Return *message* with numbers, ids, dates, addresses and quotes replaced by what they are."""
    text = _PARAMETERS.sub(_parameter, message[:MESSAGE_LENGTH])
    return " ".join(_REPEATED.sub(r"\1", text).split())


def quick(kind: str, error: BaseException, traceback: TracebackType | None) -> int:
    """Return a number that is the same for alike errors of this process, at the price of a few attributes.

    It is for deciding inline whether an error is worth a full look. It follows the same order of ideas as
    ``fingerprint`` and is not the same: it knows nothing of what is in-app, and reads no message.
    """
    names: list[object] = [kind, type(error), type(error.__cause__ or error.__context__)]
    innermost = traceback
    steps = 0
    while traceback is not None and steps < WALK_LIMIT:
        steps += 1
        traceback = traceback.tb_next
        if steps > FRAMES and innermost is not None:
            innermost = innermost.tb_next
    while innermost is not traceback and innermost is not None:
        code = innermost.tb_frame.f_code
        names.append(code.co_filename)
        names.append(code.co_name)
        innermost = innermost.tb_next
    return hash(tuple(names))


def _parameter(found: re.Match[str]) -> str:
    return found[0] if found.lastgroup == "kept" else f"<{found.lastgroup}>"


def _types(chain: tuple[Raised, ...]) -> Iterator[str]:
    """Give the types in their order, each run once; the members of groups in the order of their names."""
    last = ""
    for raised in chain:
        if raised.relation is not Relation.MEMBER and raised.type != last:
            last = raised.type
            yield last
    yield from sorted({raised.type for raised in chain if raised.relation is Relation.MEMBER})


def _frames(chain: tuple[Raised, ...]) -> tuple[str, ...]:
    """Return the innermost frames of the first exception that has in-app ones, or else any."""
    stacks = [[frame for frame in raised.frames if not _is_noise(frame)] for raised in chain]
    in_app = ([frame for frame in stack if frame.in_app] for stack in stacks)
    chosen = next(filter(None, in_app), None) or next(filter(None, stacks), [])
    names = [_name(frame) for frame in chosen]
    return tuple(reversed(dict.fromkeys(reversed(names))))[-FRAMES:]  # recursion: a name counts once


def _is_noise(frame: Frame) -> bool:
    own = frame.module == OWN_PACKAGE or frame.module.startswith(f"{OWN_PACKAGE}.")
    return own or frame.function.rpartition(".")[2] in _INLINED


def _name(frame: Frame) -> str:
    module = frame.module or frame.file
    if "/" in module or "\\" in module:
        module = parameterised(module.replace("\\", "/"))
    function = _ALIAS.sub("", frame.function.removeprefix("async "))
    function = _GENERATED.sub("", _ADDRESS.sub("", function))
    return f"{module}:{'<lambda>' if function in _NAMELESS else function}"


def _hashed(parts: tuple[str, ...]) -> str:
    text = "\0".join(parts).encode(errors="replace")
    return f"{VERSION}.{blake2b(text, digest_size=8).hexdigest()}"
