"""A watched program does what the plain one does: the same output, errors, exit status."""

import py_compile
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Run
else:
    Run = Any

NAMES = """
    import sys, os, __main__
    shown = {k: v for k, v in sorted(vars().items()) if k not in ("__builtins__", "__loader__", "shown")}
    print([k for k in shown], __name__, __doc__, __package__, __spec__ and __spec__.name)
    print(getattr(__main__, "__file__", None), type(__loader__).__name__, vars(__main__) is globals())
    print(sys.argv, sys.path[:2], sys.orig_argv, os.getcwd())
"""


def seen(run: "CompletedProcess[str]") -> tuple[str, str, int]:
    """Return what a user sees, without addresses of objects."""
    out, err = (re.sub(r"0x[0-9a-f]{6,}|refcount : \d+", "...", text) for text in (run.stdout, run.stderr))
    return out, err, run.returncode


PROGRAMS = {
    "its names": NAMES,
    "an uncaught error": "def f():\n    1 / 0\nf()\n",
    "an error with a cause": """
        try:
            {}["k"]
        except KeyError as error:
            raise RuntimeError("r") from error
    """,
    "an error in a module": "import json\njson.loads('{')\n",
    "a syntax error": "x = = 1\n",
    "a group": "raise ExceptionGroup('g', [ValueError(1), TypeError(2)])\n",
    "exit 0": "import sys\nsys.exit(0)\n",
    "exit 3": "import sys\nsys.exit(3)\n",
    "exit by a message": "raise SystemExit('bye')\n",
    "exit by None": "raise SystemExit\n",
    "exit at once": "import os\nprint('x', flush=True)\nos._exit(7)\n",
    "abort": "import os\nos.abort()\n",
    "a signal of its own": "import os, signal\nos.kill(os.getpid(), signal.SIGUSR1)\n",
    "Ctrl-C": "raise KeyboardInterrupt\n",
    "Ctrl-C caught": """
        import signal
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            print("caught")
    """,
    "a hook of its own": """
        import sys, traceback
        def hook(kind, error, tb):
            print(kind.__name__, error, [f.name for f in traceback.extract_tb(tb)])
        sys.excepthook = hook
        def f():
            raise ValueError("v")
        f()
    """,
    "a hook that fails": """
        import sys
        def hook(*_):
            raise OSError("hook")
        sys.excepthook = hook
        raise ValueError("v")
    """,
    "atexit and threads": """
        import atexit, threading, sys
        atexit.register(print, "last")
        lock = threading.Event()
        def work():
            lock.wait()
            print("thread", threading.current_thread().name, threading.main_thread().name)
        threading.Thread(target=work).start()
        lock.set()
        raise RuntimeError("main")
    """,
    "a thread that fails": """
        import threading
        def f():
            raise ValueError("in a thread")
        t = threading.Thread(target=f, name="worker")
        t.start()
        t.join()
    """,
    "pickling its classes": """
        import pickle
        class Point:
            def __init__(self, x): self.x = x
        class Color:
            RED = 1
        print(pickle.loads(pickle.dumps(Point(3))).x, pickle.dumps(Color), Point.__module__)
    """,
    "spawned and forked children": """
        import multiprocessing, os
        def double(x):
            return x * 2
        if __name__ == "__main__":
            for way in ("fork", "spawn", "forkserver"):
                with multiprocessing.get_context(way).Pool(1) as pool:
                    print(way, pool.map(double, [1, 2]))
    """,
    "a child that fails": """
        import multiprocessing
        def f():
            raise SystemExit(4)
        if __name__ == "__main__":
            p = multiprocessing.get_context("fork").Process(target=f)
            p.start()
            p.join()
            print(p.exitcode)
    """,
    "swallowed errors": """
        def f():
            try:
                open("/no/such/file")
            except Exception:
                pass
            for i in range(3):
                try:
                    [][1]
                except Exception:
                    continue
                finally:
                    print(i)
        f()
    """,
    "its source": """
        import inspect, linecache
        def f():
            try:
                return 1
            except Exception:
                pass
        print(inspect.getsource(f), f.__code__.co_firstlineno)
    """,
    "doctests": """
        '''
        >>> 1 + 1
        2
        >>> [][0]
        Traceback (most recent call last):
        IndexError: list index out of range
        '''
        import doctest
        print(doctest.testmod())
    """,
    "input": "print([line for line in __import__('sys').stdin], input.__name__)\n",
    "warnings": """
        import warnings
        def f():
            warnings.warn("w")
            warnings.warn("d", DeprecationWarning)
        f()
    """,
    "warnings of the compiler": """
        def f(x):
            try:
                return x is 1
            except Exception:
                pass
    """,
    "asyncio": """
        import asyncio
        async def main():
            await asyncio.sleep(0)
            print("ran")
            raise ValueError("in main")
        asyncio.run(main())
    """,
    "signals": """
        import signal
        print([signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP, signal.SIGUSR1)])
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    """,
    "subprocesses": """
        import subprocess, sys, os
        code = "import os, signal; print(sorted(k for k in os.environ if 'SOUL' in k), signal.getsignal(15))"
        print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        print(subprocess.run("kill -PIPE $$", shell=True).returncode)
        print(os.getpgrp() == os.getpgid(os.getppid()), os.getsid(0) == os.getsid(os.getppid()))
    """,
    "files it opens": "f = open('/dev/null')\nprint(f.fileno() < 10)\n",
    "a broken pipe of stderr": "import sys\nsys.stderr.close()\nraise ValueError\n",
    "unraisable": """
        class A:
            def __del__(self):
                raise ValueError("d")
        a = A()
        del a
        print("on")
    """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_behaves_as_under_plain_python(name: str, program: Callable[..., Path], run: Run) -> None:
    path = program(PROGRAMS[name])

    plain = run(str(path), "a", "--b", "-c", text="one\ntwo\n", watched=False)
    watched = run(str(path), "a", "--b", "-c", text="one\ntwo\n")

    assert seen(watched) == seen(plain)


FORMS: dict[str, list[str]] = {
    "a relative path": ["app.py", "x"],
    "a path with a dot": ["./app.py", "x"],
    "a module": ["-m", "app", "x"],
    "a module of a package": ["-m", "package.tool", "x"],
    "a package": ["-m", "package", "x"],
    "no such module": ["-m", "no_such_module", "x"],
    "no such file": ["no_such_file.py", "x"],
    "code": ["-c", "import sys; print(sys.argv, sys.path[0], __name__); 1/0", "x"],
    "wrong code": ["-c", "x = = 1"],
    "a folder": ["folder", "x"],
    "an archive": ["archive.zip", "x"],
    "a link": ["links/app.py", "x"],
    "compiled code": ["compiled.pyc", "x"],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_name_a_program_works(
    form: str, program: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    source = program(NAMES + "    raise ValueError('at the end')\n")
    for name in ("package/__init__.py", "package/tool.py", "package/__main__.py", "folder/__main__.py"):
        program(NAMES + "    def f(): raise ValueError('at the end')\n    f()\n", name)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.write(source, "__main__.py")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "app.py").symlink_to(source)
    py_compile.compile(str(source), cfile=str(tmp_path / "compiled.pyc"))

    plain = run(*FORMS[form], watched=False)
    watched = run(*FORMS[form])

    assert seen(watched) == seen(plain)


def test_a_program_may_come_from_standard_input(run: Run) -> None:
    text = "import sys\nprint(sys.argv, sys.path[0], __name__, __file__)\nraise ValueError(1)\n"

    plain, watched = run("-", "x", text=text, watched=False), run("-", "x", text=text)

    assert seen(watched) == seen(plain)


@pytest.mark.parametrize(
    "flags", [("-O",), ("-X", "dev"), ("-W", "error"), ("-P",), ("-u", "-B"), ("-X", "utf8=0")]
)
def test_options_of_python_hold_for_the_program(
    flags: tuple[str, ...], program: Callable[..., Path], run: Run
) -> None:
    path = program("""
        import sys, warnings
        print(sys.flags, sys._xoptions, sys.warnoptions, sys.path[0])
        assert not __debug__
    """)

    plain, watched = run(str(path), watched=False, flags=flags), run(str(path), flags=flags)

    assert seen(watched) == seen(plain)


def test_the_parent_imports_next_to_nothing(run: Run, program: Callable[..., Path]) -> None:
    path = program("""
        import os
        def parent(name):
            with open(f"/proc/{os.getppid()}/{name}") as file:
                return file.read()
        pss = next(line for line in parent("smaps_rollup").splitlines() if line.startswith("Pss:"))
        print(pss.split()[1])
    """)

    watched = run(str(path))

    assert int(watched.stdout) < 8000, "kB of proportional set size"


def test_the_environment_of_the_program_is_its_own(run: Run, program: Callable[..., Path]) -> None:
    path = program("import os\nprint(sorted(os.environ.items()))\n")

    plain = run(str(path), watched=False)
    watched = run(str(path))

    assert watched.stdout == plain.stdout
