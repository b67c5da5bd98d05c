"""Silent errors and their clean twins, each a whole program: what is told, and that nothing else changes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks.table import HOOKS

Program = Callable[..., Any]
Plain = Callable[[str], str]

ALL = tuple(name for name in HOOKS if name != "swallowed")

FAIL = """
def fail(word="planted"):
    raise ValueError(word)
"""
POOL = f"""
from concurrent.futures import ThreadPoolExecutor
{FAIL}
pool = ThreadPoolExecutor(2)
"""
LOOP = """
import asyncio
async def fail(word="planted"):
    raise ValueError(word)
async def nap(seconds=0):
    await asyncio.sleep(seconds)
"""
CHILD = """
import subprocess
END = [sys.executable, "-c", "import sys; sys.exit(3)"]
KILLED = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silent:
    """A program with one silent error."""

    source: str
    kind: Kind
    message: str = "planted"
    handled: bool = True


SILENT = {
    "uncaught": Silent(source=FAIL + "fail()", kind=Kind.UNCAUGHT, handled=False),
    "thread": Silent(
        source=FAIL + "import threading\nt = threading.Thread(target=fail)\nt.start()\nt.join()",
        kind=Kind.THREAD,
        handled=False,
    ),
    "uncaught, with a hook that calls no other": Silent(
        source=FAIL + "sys.excepthook = lambda *_: print('own')\nfail()", kind=Kind.UNCAUGHT, handled=False
    ),
    "thread, with a hook that calls no other": Silent(
        source=FAIL
        + "import threading\nthreading.excepthook = lambda _: print('own')\n"
        + "t = threading.Thread(target=fail)\nt.start()\nt.join()",
        kind=Kind.THREAD,
        handled=False,
    ),
    "exit of a thread": Silent(
        source="import threading\nt = threading.Thread(target=sys.exit, args=(3,))\nt.start()\nt.join()",
        kind=Kind.THREAD,
        message="3",
        handled=False,
    ),
    "thread without threading": Silent(
        source=FAIL + "import _thread\n_thread.start_new_thread(fail, ())\ntime.sleep(0.2)", kind=Kind.THREAD
    ),
    "future kept": Silent(source=POOL + "kept = pool.submit(fail)\nsettle()", kind=Kind.FUTURE),
    "future dropped": Silent(source=POOL + "pool.submit(fail)\nsettle()", kind=Kind.FUTURE),
    "future at the end": Silent(source=POOL + "kept = pool.submit(fail)", kind=Kind.FUTURE),
    "future waited for and not asked": Silent(
        source=POOL + "from concurrent.futures import wait\nwait([pool.submit(fail)])\nsettle()",
        kind=Kind.FUTURE,
    ),
    "callback of a future": Silent(
        source=POOL + "pool.submit(int).add_done_callback(lambda f: fail())\npool.shutdown()",
        kind=Kind.CALLBACK,
    ),
    "result of a multiprocessing pool": Silent(
        source=FAIL
        + "from multiprocessing.pool import ThreadPool\nwith ThreadPool(1) as pool:\n"
        + "    kept = pool.apply_async(fail)\n    kept.wait()\n    settle()",
        kind=Kind.FUTURE,
    ),
    "pool that broke": Silent(
        source="import os\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "with ProcessPoolExecutor(1, mp_context=get_context('fork')) as pool:\n"
        "    pool.submit(os._exit, 3).exception()\nsettle()",
        kind=Kind.CHILD,
        message="terminated abruptly",
    ),
    "task kept": Silent(
        source=LOOP
        + """
async def main():
    kept = asyncio.create_task(fail())
    await nap(0.01)
    settled = asyncio.get_running_loop().run_in_executor(None, settle)
    await settled
asyncio.run(main())""",
        kind=Kind.TASK,
    ),
    "task that fails after it was looked at": Silent(
        source=LOOP
        + """
async def later():
    await nap(0.6)
    await fail()
async def main():
    kept = asyncio.create_task(later())
    await nap(0.8)
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())""",
        kind=Kind.TASK,
    ),
    "task dropped": Silent(
        source=LOOP
        + """
async def main():
    asyncio.create_task(fail())
    await nap(0.01)
asyncio.run(main())""",
        kind=Kind.TASK,
    ),
    "task under uvloop": Silent(
        source=LOOP
        + """
import uvloop
async def main():
    kept = asyncio.create_task(fail())
    await nap(0.01)
    await asyncio.get_running_loop().run_in_executor(None, settle)
uvloop.run(main())""",
        kind=Kind.TASK,
    ),
    "call in an executor of a loop": Silent(
        source=LOOP
        + FAIL
        + """
async def main():
    kept = asyncio.get_running_loop().run_in_executor(None, fail)
    await nap(0.05)
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())""",
        kind=Kind.TASK,
    ),
    "results of gather thrown away": Silent(
        source=LOOP
        + "async def main():\n    await asyncio.gather(fail(), nap(), return_exceptions=True)\n"
        + "asyncio.run(main())",
        kind=Kind.TASK,
    ),
    "results of gather never read": Silent(
        source=LOOP
        + "async def main():\n    kept = await asyncio.gather(fail(), nap(), return_exceptions=True)\n"
        + "    await nap(0)\nasyncio.run(main())",
        kind=Kind.TASK,
    ),
    "callback of a loop": Silent(
        source=LOOP
        + FAIL
        + "async def main():\n    asyncio.get_running_loop().call_soon(fail)\n    await nap(0.01)\n"
        + "asyncio.run(main())",
        kind=Kind.CALLBACK,
    ),
    "callback of uvloop": Silent(
        source=LOOP
        + FAIL
        + "import uvloop\nasync def main():\n    asyncio.get_running_loop().call_soon(fail)\n"
        + "    await nap(0.01)\nuvloop.run(main())",
        kind=Kind.CALLBACK,
    ),
    "async generator that cannot end": Silent(
        source=LOOP
        + """
import gc
async def numbers():
    try:
        yield 1
    finally:
        raise ValueError("planted")
async def main():
    async for _ in numbers():
        break
    gc.collect()
    await nap(0.01)
asyncio.run(main())""",
        kind=Kind.TASK,
    ),
    "coroutine never awaited": Silent(
        source=LOOP + "async def main():\n    nap()\nasyncio.run(main())",
        kind=Kind.NEVER_AWAITED,
        message="coroutine 'nap' was never awaited",
    ),
    "__del__": Silent(
        source=FAIL + "class Thing:\n    def __del__(self):\n        fail()\nThing()", kind=Kind.UNRAISABLE
    ),
    "atexit": Silent(source=FAIL + "import atexit\natexit.register(fail)", kind=Kind.ATEXIT),
    "files not closed": Silent(
        source="def leak():\n    open(os.__file__).read(1)\nfor _ in range(20):\n    leak()",
        kind=Kind.RESOURCE,
        message="unclosed file",
    ),
    "socket not closed": Silent(
        source="import socket\ndef leak():\n    socket.socket()\nleak()",
        kind=Kind.RESOURCE,
        message="unclosed <socket.socket",
    ),
    "logged with its traceback": Silent(
        source=FAIL + "import logging\ntry:\n    fail()\nexcept ValueError:\n    logging.exception('hm')",
        kind=Kind.LOGGED,
    ),
    "logged as a warning": Silent(
        source=FAIL + "import logging\ntry:\n    fail()\nexcept ValueError:\n    logging.warning('hm')",
        kind=Kind.LOGGED,
    ),
    "error logged without an exception": Silent(
        source="import logging\nlogging.getLogger('shop').error('lost %s', 'planted')", kind=Kind.LOGGED
    ),
    "printed": Silent(
        source=FAIL + "import traceback\ntry:\n    fail()\nexcept ValueError:\n    traceback.print_exc()",
        kind=Kind.LOGGED,
    ),
    "exit code of run": Silent(
        source=CHILD + "subprocess.run(END)\nsettle()", kind=Kind.CHILD, message="ended with exit code 3"
    ),
    "exit code of run, kept": Silent(
        source=CHILD + "kept = subprocess.run(END)\nsettle()", kind=Kind.CHILD, message="exit code 3"
    ),
    "exit code of call": Silent(
        source=CHILD + "subprocess.call(END)\nsettle()", kind=Kind.CHILD, message="exit code 3"
    ),
    "exit code of wait": Silent(
        source=CHILD + "child = subprocess.Popen(END)\nchild.wait()\nsettle()",
        kind=Kind.CHILD,
        message="exit code 3",
    ),
    "exit code of poll": Silent(
        source=CHILD
        + "child = subprocess.Popen(END)\nwhile child.poll() is None:\n    time.sleep(0.01)\nsettle()",
        kind=Kind.CHILD,
        message="exit code 3",
    ),
    "exit code of communicate": Silent(
        source=CHILD + "child = subprocess.Popen(END)\nchild.communicate()\nsettle()",
        kind=Kind.CHILD,
        message="exit code 3",
    ),
    "child killed": Silent(
        source=CHILD + "subprocess.run(KILLED)\nsettle()", kind=Kind.CHILD, message="was killed by SIGKILL"
    ),
    "child of asyncio": Silent(
        source=LOOP
        + CHILD
        + """
async def main():
    child = await asyncio.create_subprocess_exec(*END)
    await child.wait()
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())""",
        kind=Kind.CHILD,
        message="exit code 3",
    ),
    "child of uvloop": Silent(
        source=LOOP
        + CHILD
        + """
import uvloop
async def main():
    child = await asyncio.create_subprocess_exec(*END)
    await child.communicate()
    await asyncio.get_running_loop().run_in_executor(None, settle)
uvloop.run(main())""",
        kind=Kind.CHILD,
        message="exit code 3",
    ),
    "process that exits": Silent(
        source="from multiprocessing import get_context\n"
        "child = get_context('fork').Process(target=os._exit, args=(3,), name='worker')\n"
        "child.start()\nchild.join()\nsettle()",
        kind=Kind.CHILD,
        message="worker ended with exit code 3",
    ),
    "process that nobody joins": Silent(
        source="from multiprocessing import get_context\n"
        "child = get_context('fork').Process(target=os.abort, name='worker')\nchild.start()\nsettle()",
        kind=Kind.CHILD,
        message="worker was killed by SIGABRT",
    ),
    "file that must not be read": Silent(
        source="""
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    open("/etc/shadow")
except OSError:
    print("none")
""",
        kind=Kind.FILE,
        message="Permission denied",
    ),
    "no handles left": Silent(
        source="""
import resource, socket
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
try:
    socket.socket()
except OSError:
    pass
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    open("/etc/hosts")
except OSError:
    pass
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
""",
        kind=Kind.FILE,
        message="Too many open files",
    ),
    "database out of reach": Silent(
        source="import sqlite3\ntry:\n    sqlite3.connect('/nowhere/at/all.db')\n"
        "except sqlite3.Error:\n    print('later')",
        kind=Kind.DATABASE,
        message="unable to open database file",
    ),
}

CLEAN = {
    "work": "print(sum(range(10)))",
    "thread that leaves": "import threading\nt = threading.Thread(target=sys.exit)\nt.start()\nt.join()",
    "exit": "sys.exit(3)",
    "errors of others, as consoles and test runners keep them": FAIL
    + "sys.excepthook = lambda *_: None\ntry:\n    fail()\nexcept ValueError as error:\n    found = error\n"
    + "def cut(error):\n    return error.with_traceback(error.__traceback__.tb_next)\n"
    + "sys.last_value = sys.last_exc = cut(found)",
    "future read": POOL
    + "try:\n    pool.submit(fail).result()\nexcept ValueError:\n    print('read')\nsettle()",
    "future asked for its exception": POOL + "print(pool.submit(fail).exception())\nsettle()",
    "future read within the grace": POOL
    + "kept = pool.submit(fail)\ntime.sleep(0.2)\nprint(repr(kept.exception()))\nsettle()",
    "futures read in turn": POOL
    + """
def turns(futures):
    for future in futures:
        try:
            print(future.result())
        except ValueError:
            print("read")
turns([pool.submit(time.sleep, 1.5), pool.submit(fail)])
settle()""",
    "future read after other work": POOL
    + "kept = pool.submit(fail)\ntime.sleep(1.2)\ntry:\n    kept.result()\nexcept ValueError:\n"
    + "    print('read')\nsettle()",
    "futures read with other work in between": POOL
    + """
def turns():
    futures = {pool.submit(int): 1, pool.submit(fail): 2}
    for future in futures:
        time.sleep(1.2)
        print(repr(future.exception()))
turns()
settle()""",
    "futures read after the pool has ended": """
from concurrent.futures import ThreadPoolExecutor
def fail():
    raise ValueError
def all_of_them():
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(fail), pool.submit(time.sleep, 1.2)]
    for future in futures:
        print(repr(future.exception()))
all_of_them()
settle()""",
    "future read by its callback": POOL
    + "pool.submit(fail).add_done_callback(lambda f: print(f.exception()))\npool.shutdown()\nsettle()",
    "future cancelled": POOL
    + "f = [pool.submit(time.sleep, 0.05) for _ in range(3)][2]\nf.cancel()\nsettle()",
    "map": POOL + "try:\n    list(pool.map(fail, 'ab'))\nexcept ValueError:\n    print('read')\nsettle()",
    "multiprocessing pool read": FAIL
    + "from multiprocessing.pool import ThreadPool\nwith ThreadPool(1) as pool:\n    try:\n"
    + "        pool.apply(fail)\n    except ValueError:\n        print('read')\nsettle()",
    "call in an executor awaited": LOOP
    + FAIL
    + """
async def main():
    try:
        await asyncio.to_thread(fail)
    except ValueError:
        print("read")
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())""",
    "task awaited within the grace": LOOP
    + """
async def main():
    task = asyncio.create_task(fail())
    await nap(0.2)
    try:
        await task
    except ValueError:
        print("read")
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())""",
    "task awaited after other work": LOOP
    + """
async def main():
    task = asyncio.create_task(fail())
    await nap(1.2)
    try:
        await task
    except ValueError:
        print("read")
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())""",
    "tasks awaited with other work in between": LOOP
    + """
async def main():
    tasks = [asyncio.create_task(nap()), asyncio.create_task(fail())]
    for task in tasks:
        await nap(1.2)
        print(repr((await asyncio.wait([task]))[0].pop().exception()))
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())""",
    "task read after the loop has stopped": LOOP
    + """
loop = asyncio.new_event_loop()
task = loop.create_task(fail())
loop.run_until_complete(nap(1.2))
print(repr(task.exception()))
loop.close()
settle()""",
    "tasks awaited in turn": LOOP
    + """
async def main():
    tasks = [asyncio.create_task(nap(1.5)), asyncio.create_task(fail())]
    for task in tasks:
        try:
            await task
        except ValueError:
            print("read")
    tasks = [asyncio.create_task(nap(1.5)), asyncio.create_task(fail())]
    await asyncio.wait(tasks)
    print([repr(task.exception()) for task in tasks])
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())""",
    "tasks read while the loop hangs": LOOP
    + """
async def reads(task):
    try:
        await task
    except ValueError:
        print("read")
async def main():
    reader = asyncio.create_task(reads(asyncio.create_task(fail())))
    asyncio.get_running_loop().call_later(0, time.sleep, 1.2)
    await reader
    await nap(0.1)
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())""",
    "task group": LOOP
    + """
async def main():
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
    except* ValueError:
        print("read")
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())""",
    "task group under uvloop": LOOP
    + """
import uvloop
async def main():
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
    except* ValueError:
        print("read")
    await asyncio.get_running_loop().run_in_executor(None, settle)
uvloop.run(main())""",
    "task cancelled": LOOP
    + """
async def main():
    task = asyncio.create_task(nap(10))
    await nap()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())""",
    "results of gather read": LOOP
    + """
async def main():
    results = await asyncio.gather(fail(), nap(), return_exceptions=True)
    print(results)
    print(await asyncio.gather(fail(), return_exceptions=True))
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())""",
    "coroutine closed": LOOP + "nap().close()",
    "file read in passing": "print(len(open(os.__file__).read(1)))",
    "file left open to the end": "kept = open(os.__file__)",
    "socket left open to the end": "import socket\nkept = socket.socket()",
    "file closed": "with open(os.__file__) as file:\n    file.read(1)",
    "log of what went well": "import logging\nlogging.warning('careful')\n"
    "logging.getLogger('x').info('fine')",
    "traceback made into a text": FAIL
    + "import traceback\ntry:\n    fail()\nexcept ValueError:\n    print(len(traceback.format_exc()) > 0)",
    "exit code read": CHILD + "done = subprocess.run(END)\nprint(done.returncode)\nsettle()",
    "exit code checked": CHILD
    + "try:\n    subprocess.run(END, check=True)\nexcept subprocess.CalledProcessError as e:\n"
    + "    print(e)\nsettle()",
    "check_output": CHILD
    + "try:\n    subprocess.check_output(END)\nexcept subprocess.CalledProcessError as e:\n"
    + "    print(e)\nsettle()",
    "check_returncode": CHILD
    + "d = subprocess.run(END)\ntry:\n    d.check_returncode()\nexcept subprocess.CalledProcessError:\n"
    + "    print('read')\nsettle()",
    "exit code of wait used": CHILD + "child = subprocess.Popen(END)\nprint(child.wait())\nsettle()",
    "exit code of call used": CHILD + "if subprocess.call(END):\n    print('failed')\nsettle()",
    "exit code of poll used": CHILD
    + "child = subprocess.Popen(END)\nwhile not (code := child.poll()):\n    time.sleep(0.01)\n"
    + "print(code)\nsettle()",
    "stderr of a child read": CHILD
    + "child = subprocess.Popen(END, stderr=subprocess.PIPE)\nout, err = child.communicate()\n"
    + "print(err)\nsettle()",
    "shell that finds nothing": "import subprocess\nsubprocess.run('grep x /dev/null', shell=True)\nsettle()",
    "grep finds nothing": "import subprocess\nsubprocess.run(['grep', 'x', '/dev/null'])\nsettle()",
    "child ended by us": "import subprocess\nc = subprocess.Popen(['sleep', '60'])\nc.kill()\n"
    "c.wait()\nsettle()",
    "child told to end": "import subprocess, signal\nc = subprocess.Popen(['sleep', '60'])\n"
    "os.kill(c.pid, signal.SIGTERM)\nc.wait()\nsettle()",
    "group of children ended by us": "import subprocess, signal\n"
    "c = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
    "os.killpg(c.pid, signal.SIGKILL)\nc.wait()\nsettle()",
    "child out of time": "import subprocess\ntry:\n    subprocess.run(['sleep', '60'], timeout=0.1)\n"
    "except subprocess.TimeoutExpired:\n    print('late')\nsettle()",
    "child of asyncio looked at": LOOP
    + CHILD
    + """
async def main():
    child = await asyncio.create_subprocess_exec(*END)
    print(await child.wait())
    child = await asyncio.create_subprocess_exec(*END)
    await child.communicate()
    print(child.returncode)
    child = await asyncio.create_subprocess_exec("sleep", "60")
    child.kill()
    await child.wait()
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())""",
    "process that ends well": "from multiprocessing import get_context\n"
    "child = get_context('fork').Process(target=int)\nchild.start()\nchild.join()\n"
    "print(child.exitcode)\nsettle()",
    "process ended by us": "from multiprocessing import get_context\n"
    "child = get_context('fork').Process(target=time.sleep, args=(60,))\nchild.start()\nchild.kill()\n"
    "child.join()\nprint(child.exitcode)\nsettle()",
    "file that is not there": "try:\n    open('/nowhere')\nexcept FileNotFoundError:\n    print('none')",
    "table that is not there": "import sqlite3\nc = sqlite3.connect(':memory:')\ntry:\n"
    "    c.execute('select * from nothing')\nexcept sqlite3.OperationalError as e:\n    print(e)\nc.close()",
}


@pytest.mark.parametrize("name", SILENT)
def test_a_silent_error_is_told_and_nothing_else_changes(name: str, both: Program, plain: Plain) -> None:
    silent = SILENT[name]

    outcome, bare = both(silent.source, *ALL)

    found = [one for one in outcome.told if one.kind is silent.kind and silent.message in one.message]
    assert found, outcome
    assert found[0].handled is silent.handled
    assert (outcome.code, outcome.out) == (bare.code, bare.out)
    assert plain(outcome.err) == plain(bare.err)


@pytest.mark.parametrize(
    ("name", "is_held"),
    [
        ("future kept", True),
        ("task kept", True),
        ("future dropped", False),
        ("task dropped", False),
        ("future at the end", False),
    ],
)
def test_an_error_that_may_yet_be_asked_for_says_so(name: str, is_held: bool, program: Program) -> None:
    (told,) = program(SILENT[name].source, *ALL).told

    assert ("held" in told.facts) is is_held


@pytest.mark.parametrize("name", CLEAN)
def test_of_its_clean_twin_nothing_is_told(name: str, both: Program, plain: Plain) -> None:
    outcome, bare = both(CLEAN[name], *ALL)

    # A loop that hangs on purpose, or on a busy machine, is the watchdog's to tell.
    assert [one for one in outcome.told if one.kind is not Kind.LOOP_BLOCKED] == []
    assert (outcome.code, outcome.out) == (bare.code, bare.out)
    assert plain(outcome.err) == plain(bare.err)


@pytest.mark.parametrize(
    "name", ["task dropped", "coroutine never awaited", "callback of a loop", "socket not closed"]
)
def test_in_developer_mode_the_same_is_printed_too(name: str, both: Program, plain: Plain) -> None:
    outcome, bare = both(SILENT[name].source, *ALL, options=("-X", "dev"))

    assert SILENT[name].kind in [one.kind for one in outcome.told]
    assert plain(outcome.err) == plain(bare.err)


REFUSED = """
from http.client import HTTPConnection
def ask():
    HTTPConnection("127.0.0.1", 9).request("GET", "/")
"""
TRACEBACKS = {
    "of a refused request": REFUSED + "ask()",
    "of its cause": REFUSED + "try:\n    ask()\nexcept OSError as e:\n    raise ValueError from e",
    "of its context": REFUSED + "try:\n    ask()\nexcept OSError:\n    raise ValueError",
    "of its group": REFUSED + "try:\n    ask()\nexcept OSError as e:\n    raise ExceptionGroup('x', [e])",
    "in a thread": REFUSED + "import threading\nt = threading.Thread(target=ask)\nt.start()\nt.join()",
    "in a log": REFUSED + "import logging\ntry:\n    ask()\nexcept OSError:\n    logging.exception('x')",
    "of what a hook calls in between": REFUSED + "HTTPConnection('127.0.0.1', 9).putrequest('GET', '/a b')",
    "of a folder that is opened": "open('/')",
    "of a future": POOL + "pool.submit(fail).result()",
    "of a task": LOOP + "asyncio.run(fail())",
    "of a database": "import sqlite3\nsqlite3.connect('/nowhere/at/all.db')",
    "of a wrong call of open": "open()",
    "of another wrong call of open": "open('x', colour=1)",
    "of a wrong call of kill": "os.kill('x', 1)",
}


@pytest.mark.parametrize("name", TRACEBACKS)
def test_the_traceback_is_as_without_hooks(name: str, both: Program) -> None:
    outcome, bare = both(TRACEBACKS[name], *ALL)

    assert "Traceback" in bare.err
    assert outcome.err == bare.err


def test_a_process_that_was_forked_has_no_frame_of_ours(both: Program) -> None:
    source = """
import traceback
from multiprocessing import get_context
child = get_context("fork").Process(target=traceback.print_stack)
child.start()
child.join()
"""

    outcome, bare = both(source, *ALL)

    assert "_bootstrap" in bare.err
    assert outcome.err == bare.err


def test_nothing_is_imported_only_to_be_watched(program: Program) -> None:
    outcome = program("", *ALL)

    heavy = {
        "asyncio",
        "concurrent.futures",
        "http.client",
        "multiprocessing",
        "logging",
        "subprocess",
        "socket",
    }
    assert heavy.isdisjoint(outcome.imported)
