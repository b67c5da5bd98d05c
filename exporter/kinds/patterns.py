"""Regular expressions over what strangers send: RE2, whose time grows with the length of the text alone."""

from typing import Annotated

from pydantic import AfterValidator, Field


def check_re2(pattern: str) -> str:
    """Return *pattern* when it is a regular expression of RE2. Raises ValueError otherwise."""
    import re2  # noqa: PLC0415 - 3 MB, needed by configurations with such patterns only

    quiet = re2.Options()
    quiet.log_errors = False
    try:
        re2.compile(pattern, quiet)
    except re2.error as error:
        told = error.args[0] if error.args else ""
        reason = told.decode(errors="replace") if isinstance(told, bytes) else told
        raise ValueError(f"{pattern!r} is not a regular expression of RE2: {reason}") from error
    return pattern


Re2 = Annotated[str, Field(min_length=1), AfterValidator(check_re2)]
