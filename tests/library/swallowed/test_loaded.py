"""Modules that were imported before the hook: their handlers tell, and nothing else of them changes."""

import builtins
import gc
import inspect
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import pytest

from soulfra_monitor.hooks import swallowed, swallowed_ast, swallowed_loaded

if TYPE_CHECKING:
    from .conftest import Kept, Load  # mypy only: test folders are no packages
else:
    Kept = Load = Any

PROGRAM = '''
import asyncio
import contextlib
import functools
from dataclasses import dataclass


def work(error):
    raise error


def passes(error, other=3, *, more=4) -> str:
    """Pass."""
    try:
        work(error)
    except Exception:
        pass
    return f"went on {other} {more}"


def decorated(function):
    @functools.wraps(function)
    def inner(*args):
        try:
            return function(*args)
        except OSError:
            pass
    return inner


@decorated
def kept(error):
    raise error


def counter():
    count = 0
    def step(error):
        nonlocal count
        count += 1
        try:
            work(error)
        except Exception:
            return count
    return step


step = counter()
as_lambda = [lambda error: passes(error)][0]


class Holder:
    __slots__ = ("x",)

    def method(self, error):
        try:
            work(error)
        except Exception:
            return __class__

    @classmethod
    def of(cls, error):
        try:
            work(error)
        except Exception:
            return None

    @staticmethod
    def plain(error):
        try:
            work(error)
        except Exception:
            return None

    @property
    def value(self):
        try:
            work(OSError("property"))
        except Exception:
            return None


@dataclass
class Made:
    x: int = 1


async def coroutine(error):
    try:
        work(error)
    except Exception:
        return None


def generator(error):
    try:
        yield 1
        work(error)
    except Exception:
        pass


def finishes(error):
    try:
        work(error)
    finally:
        return "left"


def raises(error):
    try:
        try:
            work(error)
        except KeyError:
            pass
    except ValueError:
        pass
'''


@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all be read: the process that runs the tests has more modules of its own than any program."""
    monkeypatch.setattr(swallowed_loaded, "SECONDS", 60.0)


@pytest.fixture
def program(load: Load) -> Iterator[Any]:
    module = load(PROGRAM, "loaded_before")
    sys.modules["loaded_before"] = module
    yield module
    del sys.modules["loaded_before"]


@pytest.fixture
def hooked(program: Any, kept: Kept) -> Iterator[Any]:
    undo = swallowed_ast.install(swallowed.teller(kept), kept.broke)
    yield program
    undo()


def functions(program: Any) -> dict[str, FunctionType]:
    file = program.__file__
    found = (one for one in gc.get_objects() if type(one) is FunctionType)
    own = (one for one in found if one.__code__.co_filename == file)
    return {f"{one.__qualname__} {one.__code__.co_qualname}": one for one in own}


def looks(code: CodeType) -> tuple[object, ...]:
    return (
        *(code.co_name, code.co_qualname, code.co_filename, code.co_firstlineno, code.co_flags),
        *(
            code.co_argcount,
            code.co_kwonlyargcount,
            code.co_varnames,
            code.co_freevars,
            code.co_cellvars,
        ),
        {line for *_, line in code.co_lines()},
        code.co_consts[0],
    )


def test_handlers_of_a_loaded_module_tell_wherever_the_function_is_kept(hooked: Any, kept: Kept) -> None:
    hooked.passes(OSError("function"))
    hooked.kept(OSError("decorated"))
    assert [hooked.step(OSError("closure")), hooked.step(OSError("closure"))] == [1, 2]
    hooked.as_lambda(OSError("by a lambda"))
    assert hooked.Holder().method(OSError("method")) is hooked.Holder
    hooked.Holder.of(OSError("class"))
    hooked.Holder.plain(OSError("static"))
    _ = hooked.Holder().value
    list(hooked.generator(OSError("generator")))
    assert hooked.finishes(OSError("finally")) == "left"

    told = [str(error) for error in kept.errors]
    assert told == [
        *("function", "decorated", "closure", "closure", "by a lambda", "method", "class", "static"),
        *("property", "generator", "finally"),
    ]


async def test_coroutines_of_a_loaded_module_tell(hooked: Any, kept: Kept) -> None:
    await hooked.coroutine(OSError("coroutine"))

    assert kept.types == ["OSError"]


def test_functions_look_as_they_looked(program: Any, kept: Kept) -> None:
    before = {name: looks(one.__code__) for name, one in functions(program).items()}
    seen = {
        name: (id(one), one.__defaults__, one.__kwdefaults__, one.__closure__, one.__doc__, one.__dict__)
        for name, one in functions(program).items()
    }
    undo = swallowed_ast.install(swallowed.teller(kept), kept.broke)
    try:
        assert {name: looks(one.__code__) for name, one in functions(program).items()} == before
        assert {
            name: (id(one), one.__defaults__, one.__kwdefaults__, one.__closure__, one.__doc__, one.__dict__)
            for name, one in functions(program).items()
        } == seen
        assert program.passes(OSError()) == "went on 3 4"
        assert str(inspect.signature(program.passes)) == "(error, other=3, *, more=4) -> str"
        assert inspect.getsource(program.passes).startswith("def passes(error, other=3")
        assert pickle.loads(pickle.dumps(program.passes)) is program.passes
        assert pickle.loads(pickle.dumps(program.Made())) == program.Made()
    finally:
        undo()


def test_tracebacks_are_the_same(program: Any, kept: Kept) -> None:
    def shown() -> list[tuple[str, int | None, str | None, int | None, int | None]]:
        try:
            program.raises(RuntimeError("nobody takes it"))
        except RuntimeError as error:
            return [
                (frame.name, frame.lineno, frame.line, frame.colno, frame.end_colno)
                for frame in traceback.extract_tb(error.__traceback__)[1:]
            ]
        raise AssertionError

    plain = shown()
    undo = swallowed_ast.install(swallowed.teller(kept), kept.broke)
    rewritten = shown()
    undo()

    assert rewritten == plain
    assert [name for name, *_ in plain] == ["raises", "work"]


def test_undo_gives_every_function_its_own_code_back(program: Any, kept: Kept) -> None:
    before = {name: one.__code__ for name, one in functions(program).items()}
    undo = swallowed_ast.install(swallowed.teller(kept), kept.broke)
    changed = {name for name, one in functions(program).items() if one.__code__ is not before[name]}
    undo()

    assert {name.split()[1] for name in changed} >= {
        *("passes", "Holder.method", "counter", "counter.<locals>.step", "decorated.<locals>.inner"),
    }
    assert {name: one.__code__ for name, one in functions(program).items()} == before
    assert all(one.__code__ is before[name] for name, one in functions(program).items())


def test_a_second_start_tells_once(program: Any, kept: Kept) -> None:
    for _ in range(2):
        swallowed_ast.install(swallowed.teller(kept), kept.broke)()
    undo = swallowed_ast.install(swallowed.teller(kept), kept.broke)
    program.passes(OSError())
    undo()

    assert len(kept.errors) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("def work", "\n\ndef work"),
        lambda text: text.replace("        work(", "        len("),
        lambda text: "this is (no Python",
        lambda text: "",
    ],
    ids=["lines moved", "another call", "broken", "empty"],
)
def test_nothing_is_swapped_when_the_source_has_changed_since(program: Any, kept: Kept, change: Any) -> None:
    before = {name: one.__code__ for name, one in functions(program).items()}
    Path(program.__file__).write_text(change(PROGRAM))
    undo = swallowed_ast.install(swallowed.teller(kept), kept.broke)

    swapped = [name for name, one in functions(program).items() if one.__code__ is not before[name]]
    undo()

    assert not {name for name in swapped if "work" in before[name].co_names}


def test_a_missing_source_is_no_trouble(program: Any, kept: Kept) -> None:
    Path(program.__file__).unlink()
    undo = swallowed_ast.install(swallowed.teller(kept), kept.broke)

    assert program.passes(OSError()) == "went on 3 4"
    undo()


def test_code_that_somebody_else_has_changed_is_left_alone(program: Any, kept: Kept) -> None:
    theirs = program.passes.__code__.replace(co_consts=("theirs", *program.passes.__code__.co_consts[1:]))
    program.passes.__code__ = theirs
    undo = swallowed_ast.install(swallowed.teller(kept), kept.broke)

    assert program.passes.__code__ is theirs
    undo()


def test_a_process_too_large_to_look_through_is_left_alone_with_a_note(
    program: Any, kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(swallowed_loaded, "OBJECTS_LIMIT", 10)
    undo = swallowed_ast.install(swallowed.teller(kept), kept.broke)
    program.passes(OSError())
    undo()

    assert kept.errors == []
    assert "python -m soulfra_monitor" in caplog.text


def test_what_takes_too_long_to_read_is_left_alone_with_a_note(
    program: Any, kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(swallowed_loaded, "SECONDS", -1.0)
    undo = swallowed_ast.install(swallowed.teller(kept), kept.broke)
    program.passes(OSError())
    undo()

    assert kept.errors == []
    assert "modules are not seen" in caplog.text


SCRIPT = """
import sys
from soulfra_monitor.hooks import swallowed, swallowed_ast

told = []
swallowed_ast.install(lambda site, error: told.append(str(error)), lambda place, error: told.append(error))


def below():
    try:
        raise OSError("below")
    except Exception:
        pass


class Service:
    def step(self):
        try:
            raise OSError("method")
        except Exception:
            return None


def main():
    import time
    until = time.monotonic() + 20
    while len(set(told)) < 2 and time.monotonic() < until:
        below()
        Service().step()
        time.sleep(0.001)
    print(sorted(set(told)))


main()
"""


def test_what_a_script_defines_below_the_hook_is_seen_a_moment_later(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=60)

    assert ran.stdout.strip() == "['below', 'method']", ran.stderr


def test_code_that_is_sent_elsewhere_works_there_without_us(program: Any, kept: Kept) -> None:
    undo = swallowed_ast.install(swallowed.teller(kept), kept.broke)
    marked = program.passes.__code__
    undo()
    sent = pickle.loads(pickle.dumps([one for one in marked.co_consts if not isinstance(one, CodeType)]))
    there = FunctionType(marked.replace(co_consts=tuple(sent)), {"work": program.work}, "passes", (3,))
    there.__kwdefaults__ = {"more": 4}

    assert there(OSError()) == "went on 3 4"
    assert kept.errors == []
    assert "soulfra" not in repr(vars(builtins).keys())
