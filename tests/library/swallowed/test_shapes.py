"""Which handlers swallow: one case for each cell of the table in ``shapes``, and the usual idioms."""

import ast
import configparser
import decimal
import io
import json
import sqlite3
import ssl
from textwrap import dedent

import pytest

from soulfra_monitor.hooks import shapes

BROAD = "catches everything and says nothing"
FAILURE = "a failure is dropped"
NET = "an everyday exception is dropped around more than it is meant for"


def whys(text: str) -> list[str]:
    return [finding.why for finding in shapes.findings(ast.parse(dedent(text)))]


def handler(catches: str, body: str, guarded: str = "work()") -> str:
    return (
        f"def f(self, default=None):\n  for i in x:\n    try:\n      {guarded}\n    {catches}\n      {body}\n"
    )


@pytest.mark.parametrize("catches", ["except:", "except Exception:", "except BaseException as e:"])
@pytest.mark.parametrize(
    "body",
    [
        "pass",
        "...",
        "'why not'",
        "continue",
        "break",
        "return",
        "return None",
        "return False",
        "return []",
        "return {'ok': False}",
        "return dict(ok=False, rows=[])",
        "return f'failed {self.name}'",
        "return default",
        "result = None",
        "result = self.last",
        "ok: bool = False",
        "time.sleep(1)",
        "log.debug('no')",
        "await asyncio.sleep(1)",
    ],
)
def test_a_broad_handler_that_drops_or_gives_a_ready_answer_swallows(catches: str, body: str) -> None:
    assert whys(handler(catches, body).replace("def f", "async def f")) == [BROAD]


@pytest.mark.parametrize("catches", ["except Exception:", "except OSError:", "except KeyError:"])
@pytest.mark.parametrize(
    "body",
    [
        "raise",
        "raise RuntimeError from None",
        "log.warning('no')",
        "logger.exception('no')",
        "print('no')",
        "traceback.print_exc()",
        "self.failures += 1",
        "failures.inc()",
        "sys.exit(1)",
        "sentry_sdk.capture_exception()",
        "handle(sys.exc_info())",
        "result = ask_another()",
        "return load_default()",
        "return [fallback(x) for x in y]",
        "if fatal: raise",
    ],
)
def test_a_handler_that_tells_counts_or_tries_something_else_is_normal(catches: str, body: str) -> None:
    assert whys(handler(catches, body)) == []


@pytest.mark.parametrize("use", ["last = e", "return str(e)", "errors.append(e)", "log.debug('%s', e)"])
def test_a_handler_that_reads_the_exception_is_normal(use: str) -> None:
    assert whys(handler("except Exception as e:", use)) == []


@pytest.mark.parametrize(
    "catches",
    [
        "except OSError:",
        "except requests.Timeout:",
        "except (ValueError, ConnectionError):",
        "except MyError:",
    ],
)
@pytest.mark.parametrize(
    ("body", "expected"),
    [("pass", [FAILURE]), ("return None", [FAILURE]), ("continue", [FAILURE]), ("return False", [])],
)
def test_a_failure_may_be_answered_and_not_dropped(catches: str, body: str, expected: list[str]) -> None:
    assert whys(handler(catches, body)) == expected


@pytest.mark.parametrize(
    "guarded", ["sock.close()", "os.unlink(path)", "await writer.wait_closed()", "p.kill(); p.wait()"]
)
def test_a_failure_while_cleaning_up_is_normal_unless_everything_is_caught(guarded: str) -> None:
    text = handler("except OSError:", "pass", guarded).replace("def f", "async def f")

    assert whys(text) == []
    assert whys(text.replace("except OSError", "except Exception")) == [BROAD]


@pytest.mark.parametrize(
    "catches", ["except KeyError:", "except (ValueError, TypeError):", "except queue.Empty:"]
)
@pytest.mark.parametrize("body", ["pass", "return None", "continue", "value = default"])
def test_flow_control_around_a_statement_or_two_is_normal(catches: str, body: str) -> None:
    assert whys(handler(catches, body, "value = d[k]; use(value)")) == []


def test_flow_control_that_drops_around_more_is_a_net() -> None:
    assert whys(handler("except KeyError:", "pass", "a(); b(); c()")) == [NET]
    assert whys(handler("except KeyError:", "return 0", "a(); b(); c()")) == []


@pytest.mark.parametrize(
    ("guarded", "catches", "expected"),
    [
        ("import yaml", "except ImportError:", []),
        ("import yaml", "except Exception:", []),
        ("from yaml import load", "except ModuleNotFoundError:", []),
        ("importlib.import_module(name)", "except ImportError:", []),
        ("plugin.start()", "except ImportError:", [FAILURE]),
        ("import yaml; yaml.load(x)", "except Exception:", [BROAD]),
    ],
)
def test_looking_whether_something_is_installed_is_normal(
    guarded: str, catches: str, expected: list[str]
) -> None:
    assert whys(handler(catches, "pass", guarded)) == expected


@pytest.mark.parametrize(
    "catches",
    [
        "except StopIteration:",
        "except KeyboardInterrupt:",
        "except asyncio.CancelledError:",
        "except GeneratorExit:",
        "except (SystemExit, KeyboardInterrupt):",
    ],
)
def test_what_says_stop_is_no_error(catches: str) -> None:
    assert whys(handler(catches, "pass")) == []


@pytest.mark.parametrize("word", ["return 1", "break", "continue"])
def test_a_finally_that_always_leaves_swallows(word: str) -> None:
    text = f"def f():\n  while 1:\n    try:\n      work()\n    finally:\n      {word}\n"

    assert whys(text) == [f"{word.split(maxsplit=1)[0]} in finally drops whatever error passes"]


def test_a_finally_that_leaves_a_loop_of_its_own_swallows_nothing() -> None:
    assert whys("try:\n  work()\nfinally:\n  for i in x:\n    break\n") == []


@pytest.mark.parametrize(
    ("caught", "expected"),
    [
        ("Exception", ["suppress drops it"]),
        ("OSError", ["suppress drops it"]),
        ("KeyError, OSError", ["suppress drops it"]),
        ("KeyError", []),
        ("FileNotFoundError", []),
        ("asyncio.CancelledError", []),
    ],
)
def test_suppress_is_judged_as_except_pass(caught: str, expected: list[str]) -> None:
    assert whys(f"with contextlib.suppress({caught}):\n  work()\n") == expected


def test_a_finding_says_where_and_what() -> None:
    (finding,) = shapes.findings(ast.parse("try:\n  work()\nexcept (OSError, my.Error):\n  pass\n"))

    assert (finding.line, finding.catches) == (3, "(OSError, my.Error)")


@pytest.mark.parametrize("body", ["break", "continue"])
def test_a_loop_that_waits_in_slices_is_normal(body: str) -> None:
    assert whys(handler("except TimeoutError:", body, "sock.recv(1)")) == []
    assert whys(handler("except (socket.timeout, TimeoutError):", body, "sock.recv(1)")) == []
    assert whys(handler("except TimeoutError:", "return", "sock.recv(1)")) == [FAILURE]
    assert whys(handler("except TimeoutError:", body, "a(); b(); c()")) == [FAILURE]


class _OwnError(ValueError):
    pass


class _UnrelatedError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "caught"),
    [
        (json.JSONDecodeError("no", "", 0), "JSONDecodeError"),
        (decimal.InvalidOperation(), "InvalidOperation"),
        (configparser.NoSectionError("s"), "NoSectionError"),
        (sqlite3.IntegrityError(), "IntegrityError"),
        (_OwnError(), "_OwnError"),
        (io.UnsupportedOperation(), "UnsupportedOperation"),
        (FileNotFoundError(), "FileNotFoundError"),
    ],
)
def test_everyday_exceptions_are_known_by_their_class(error: BaseException, caught: str) -> None:
    assert shapes.is_everyday(error, (caught,))


@pytest.mark.parametrize(
    ("error", "caught"),
    [
        (FileNotFoundError(), "OSError"),
        (ssl.SSLCertVerificationError(), "SSLCertVerificationError"),
        (ConnectionRefusedError(), "ConnectionError"),
        (_UnrelatedError(), "_UnrelatedError"),
        (_OwnError(), "Alias"),
        (KeyError(), "OSError"),
    ],
)
def test_failures_are_no_everyday_exceptions(error: BaseException, caught: str) -> None:
    assert not shapes.is_everyday(error, (caught,))


def test_handlers_that_only_trouble_of_the_system_makes_swallow_are_not_listed() -> None:
    assert whys(handler("except OSError:", "return False")) == []
