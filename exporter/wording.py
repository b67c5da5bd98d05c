"""What pydantic finds, in words for people who write configurations and not Python."""

from collections.abc import Callable, Mapping
from typing import Any

_WORDS = {
    "extra_forbidden": "unknown key",
    "missing": "is missing",
    "tuple_type": "must be a list, for example [ls, -l]",
    "list_type": "must be a list, for example [ls, -l]",
    "string_type": "must be text; write numbers, true and false in quotes",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "dict_type": "must be a mapping, as in KEY: VALUE",
    "mapping_type": "must be a mapping, as in KEY: VALUE",
    "model_type": "must be a mapping, as in KEY: VALUE",
}


def message_of(item: Mapping[str, Any]) -> str:
    """Say what is wrong with one value; *item* is one of ``ValidationError.errors()``."""
    kind, told = item["type"], item.get("ctx", {})
    if kind == "value_error":
        return str(told["error"])
    if kind in _WORDS:
        return _WORDS[kind]
    return _LIMITS[kind](told) if kind in _LIMITS else str(item["msg"])


def _least(limit: int, what: str) -> str:
    return "must not be empty" if limit == 1 else f"must have at least {limit} {what}"


_LIMITS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than_equal": lambda told: f"must be at least {told['ge']:.15g}",
    "greater_than": lambda told: f"must be more than {told['gt']:.15g}",
    "less_than_equal": lambda told: f"must be at most {told['le']:.15g}",
    "literal_error": lambda told: f"must be {told['expected']}",
    "string_too_short": lambda told: _least(told["min_length"], "characters"),
    "too_short": lambda told: _least(told["min_length"], "entries"),
    "string_too_long": lambda told: f"must have at most {told['max_length']} characters",
    "too_long": lambda told: (
        f"must have at most {told['max_length']} {'entry' if told['max_length'] == 1 else 'entries'}"
    ),
}
