"""Both means on real modules: what is reported, and what nobody may notice."""

import asyncio
import errno
import inspect
import io
import linecache
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib.util import cache_from_source
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from soulfra_monitor.hooks import swallowed, swallowed_ast

if TYPE_CHECKING:
    from .conftest import Kept, Load  # mypy only: test folders are no packages
else:
    Kept = Load = Any

PROGRAM = """
import contextlib, json, os

class Refused(Exception):
    pass

def work(error):
    raise error

def passes(error):
    try:
        work(error)
    except Exception:
        pass
    return "went on"

def bare(error):
    try: work(error)
    except: return None

def chooses(error):
    try:
        work(error)
    except KeyError:
        return "default"
    except (ZeroDivisionError,
            Refused) as refused:
        pass
    except OSError:
        return None
    return "went on"

def logs(error):
    try:
        work(error)
    except Exception as caught:
        return str(caught)

def leaves(error):
    try:
        work(error)
    finally:
        return "left"

def cleans(error):
    try:
        work(error)
    except ValueError:
        return str("caught")
    finally:
        work
        return "left"

def probes():
    try:
        import no_such_module_anywhere
    except ImportError:
        pass

def inner(error):
    try:
        try:
            work(error)
        finally:
            len("cleaned")
    except OSError:
        pass

def group(error):
    try:
        raise ExceptionGroup("several", [error, KeyError("k")])
    except* OSError:
        pass
    except* KeyError:
        pass

async def coroutine(error):
    try:
        work(error)
    except Exception:
        pass

def generator(error):
    try:
        yield 1
        work(error)
    except Exception:
        pass

class Holder:
    def __enter__(self): return self
    def __exit__(self, *error): return False
    def method(self, error):
        try:
            with self:
                work(error)
        except Exception:
            return False

def reads(thing):
    return getattr(thing, "nothing", None), hasattr(thing, "x")

def success():
    try:
        value = 1
    except Exception:
        pass
    return value
"""

SWALLOWERS = ["passes", "bare", "inner", "leaves", "cleans"]


@pytest.mark.parametrize("name", SWALLOWERS)
def test_a_swallowed_error_is_told_with_its_traceback(name: str, means: str, kept: Kept, load: Load) -> None:
    program, error = load(PROGRAM), OSError("disk")

    getattr(program, name)(error)

    assert kept.errors == [error]
    places = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert places == [name, "work"]


def test_the_first_handler_that_fits_decides(means: str, kept: Kept, load: Load) -> None:
    program = load(PROGRAM)

    for error in (KeyError("k"), program.Refused("no"), ZeroDivisionError("z"), PermissionError("p")):
        program.chooses(error)
    with pytest.raises(RuntimeError):
        program.chooses(RuntimeError("not caught there"))

    assert kept.types == ["Refused", "PermissionError"]  # a division by zero is an everyday exception


@pytest.mark.parametrize("name", ["logs", "chooses", "cleans"])
def test_an_error_that_is_answered_is_not_told(name: str, means: str, kept: Kept, load: Load) -> None:
    error: Exception = KeyError("k") if name == "chooses" else ValueError("v")

    getattr(load(PROGRAM), name)(error)

    assert kept.errors == []


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), StopIteration(), SystemExit(2)]
)
@pytest.mark.parametrize("name", ["bare", "leaves"])
def test_what_says_stop_is_not_told(
    name: str, error: BaseException, means: str, kept: Kept, load: Load
) -> None:
    getattr(load(PROGRAM), name)(error)

    assert kept.errors == []


def test_probes_and_successes_are_not_told(means: str, kept: Kept, load: Load) -> None:
    program = load(PROGRAM)

    program.probes()
    program.success()
    program.reads(object())
    json_like: Callable[[str], Any] = program.json.loads
    with pytest.raises(ValueError, match="Expecting"):
        json_like("{")

    assert kept.errors == []


async def test_it_works_in_coroutines_generators_methods_and_groups(
    means: str, kept: Kept, load: Load
) -> None:
    program = load(PROGRAM)

    await program.coroutine(OSError("a"))
    list(program.generator(OSError("b")))
    program.Holder().method(OSError("c"))
    program.group(OSError("d"))

    assert [str(error) for error in kept.errors][:3] == ["a", "b", "c"]
    assert len(kept.errors) == 4
    assert isinstance(kept.errors[3], ExceptionGroup)


def test_the_line_told_is_that_of_the_except(means: str, kept: Kept, load: Load) -> None:
    load(PROGRAM).passes(OSError())

    line = PROGRAM.splitlines().index("    except Exception:") + 1
    assert kept.handlers == [f"program.py:{line}"]


def test_a_flood_is_counted_and_the_count_told_later(
    means: str, kept: Kept, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, program, count = 100.0, load(PROGRAM), 1000
    monkeypatch.setattr(swallowed, "monotonic", lambda: now)

    for number in range(count):
        program.passes(OSError(number))
    now += 2.0
    program.passes(OSError("later"))

    assert len(kept.errors) == swallowed.BURST + 1
    assert kept.facts[-1] == {"repeats": count - swallowed.BURST}


def test_after_undo_nothing_is_told(kept: Kept, load: Load) -> None:
    undo = swallowed.install(kept)
    program = load(PROGRAM)
    undo()

    program.passes(OSError())

    assert kept.errors == []


def test_the_switch_turns_it_off(kept: Kept, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOULFRA_SWALLOWED", "off")
    undo = swallowed.install(kept)

    load(PROGRAM).passes(OSError())
    undo()

    assert kept.errors == []


def test_suppress_is_told_by_its_place(kept: Kept, load: Load) -> None:
    undo = swallowed.install(kept)
    program = load("""
        from contextlib import suppress
        def drops(error):
            with suppress(OSError):
                raise error
        def expects(error):
            with suppress(FileNotFoundError):
                raise error
    """)

    program.drops(PermissionError("told"))
    program.expects(FileNotFoundError("normal"))
    with pytest.raises(KeyError):
        program.drops(KeyError("passes"))
    undo()

    assert kept.types == ["PermissionError"]


def test_installed_packages_are_left_alone(means: str, kept: Kept, load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()

    program = load(PROGRAM, "site-packages/installed")
    program.passes(OSError())

    assert kept.errors == []


def test_source_lines_and_tracebacks_stay_as_they_are(means: str, load: Load, tmp_path: Path) -> None:
    program = load(PROGRAM)
    with pytest.raises(RuntimeError) as caught:
        program.chooses(RuntimeError("r"))

    plain = compile(PROGRAM, str(tmp_path / "program.py"), "exec", dont_inherit=True)
    consts = {code.co_name: code for code in plain.co_consts if hasattr(code, "co_firstlineno")}
    last = traceback.extract_tb(caught.value.__traceback__)[-2:]
    assert [(frame.name, frame.line) for frame in last] == [
        ("chooses", "work(error)"),
        ("work", "raise error"),
    ]
    for name in SWALLOWERS:
        code = getattr(program, name).__code__
        assert {line for *_, line in code.co_lines()} == {line for *_, line in consts[name].co_lines()}
        assert inspect.getsource(getattr(program, name)).startswith(f"def {name}(error):")
        assert code.co_varnames == consts[name].co_varnames


def test_a_tracer_sees_the_same_lines(load: Load, tmp_path: Path, kept: Kept) -> None:
    def lines(program: Any) -> list[tuple[str, int]]:
        seen: list[tuple[str, int]] = []

        def trace(frame: Any, event: str, _: Any) -> Any:
            if frame.f_code.co_filename == program.__file__ and event == "line":
                seen.append((frame.f_code.co_name, frame.f_lineno))
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for name in SWALLOWERS:
                getattr(program, name)(OSError())
        finally:
            sys.settrace(before)
        return seen

    plain = lines(load(PROGRAM))
    undo = swallowed_ast.install(swallowed.teller(kept), kept.broke)
    rewritten = lines(load(PROGRAM))
    undo()

    assert rewritten == plain
    assert len(kept.errors) == len(SWALLOWERS)


def test_the_code_kept_on_disk_is_pythons_own(
    means: str, kept: Kept, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    load(PROGRAM)
    kept_code = Path(cache_from_source(str(tmp_path / "program.py"))).read_bytes()

    assert b"soulfra" not in kept_code
    assert kept_code


def test_a_syntax_error_of_the_program_looks_as_always(
    means: str, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text("try:\n  x =\nexcept:\n  pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(SyntaxError) as caught:
        import broken_module  # type: ignore[import-not-found] # noqa: F401, PLC0415

    names = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert not any("importlib" in name or "swallowed_" in name for name in names)


def test_warnings_of_the_compiler_come_once(kept: Kept, load: Load) -> None:
    text = "def f(x):\n    try:\n        return x is 1\n    except Exception:\n        pass\n"
    undo = swallowed_ast.install(swallowed.teller(kept), kept.broke)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        load(text)
    undo()

    assert len(seen) == 1


def test_an_error_of_the_reporter_stays_inside(load: Load) -> None:
    class Breaks:
        broken = 0

        def raised(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("ours")

        def broke(self, place: str, error: BaseException) -> None:
            self.broken += 1

    reporter: Any = Breaks()
    undo = swallowed.install(reporter)

    assert load(PROGRAM).passes(OSError()) == "went on"

    undo()
    assert reporter.broken == 1


def test_doctests_and_printed_tracebacks_are_the_same(means: str, load: Load) -> None:
    program = load("""
        def f(x):
            '''Divide.

            >>> f(0)
            Traceback (most recent call last):
            ZeroDivisionError: division by zero
            '''
            try:
                return 1 / x
            except OSError:
                pass
    """)
    linecache.checkcache()
    printed = io.StringIO()
    try:
        program.f(0)
    except ZeroDivisionError:
        traceback.print_exc(file=printed)

    assert program.f.__doc__.startswith("Divide.")
    assert "return 1 / x" in printed.getvalue()
    assert "swallowed" not in printed.getvalue().split("program.py")[-1]


def test_an_own_class_of_an_everyday_kind_is_normal_around_a_statement(
    means: str, kept: Kept, load: Load
) -> None:
    program = load("""
        import json
        class Wrong(ValueError): pass
        class Refused(Exception): pass
        def drops(error):
            try:
                raise error
            except (Wrong, json.JSONDecodeError, Refused):
                pass
        def net(error):
            try:
                a = 1
                b = 2
                raise error
            except Wrong:
                pass
    """)

    for error in (program.Wrong("normal"), program.json.JSONDecodeError("normal", "", 0)):
        program.drops(error)
    program.drops(program.Refused("told"))
    program.net(program.Wrong("told, as the net is wide"))

    assert kept.types == ["Refused", "Wrong"]


def test_a_system_out_of_something_is_told_though_it_gets_an_answer(
    means: str, kept: Kept, load: Load
) -> None:
    program = load("""
        def saves(error):
            try:
                raise error
            except OSError:
                return False
            return True
    """)

    for code in (errno.ENOENT, errno.EACCES, errno.ECONNREFUSED, errno.ENOSPC, errno.EMFILE):
        assert program.saves(OSError(code, os.strerror(code))) is False

    assert [getattr(error, "errno", None) for error in kept.errors] == [errno.ENOSPC, errno.EMFILE]
