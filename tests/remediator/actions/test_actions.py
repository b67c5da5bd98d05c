"""The other actions, on a real server and real programs, and the table that names them."""

import socket
import sys
import threading
import time
from typing import Any

import psutil
import pytest

from exporter.config import Service
from remediator.actions import ACTIONS, ActionError, find_action
from remediator.config import Channel
from remediator.notify import Notifier
from remediator.playbook import STEP_ARGS, CommandArgs, HookArgs, HttpArgs, NotifyArgs, WaitArgs


def act(name: str, args: Any, context: Any, timeout: float = 5.0) -> str:
    return find_action(name)(args, context, timeout)


def test_every_action_that_a_playbook_can_name_is_there() -> None:
    assert set(ACTIONS) == set(STEP_ARGS)
    assert all(callable(find_action(name)) for name in ACTIONS)


class TestHttp:
    def test_it_sends_what_the_step_says(self, bench: Any, http_server: Any) -> None:
        args = HttpArgs(url=f"{http_server.url}/repair?x=1", json_={"a": 1}, headers={"X-Who": "me"})

        line = act("http", args, bench.context())

        (request,) = http_server.requests
        assert (request.method, request.path, request.json) == ("POST", "/repair?x=1", {"a": 1})
        assert request.headers["x-who"] == "me"
        assert line == "status 200"

    @pytest.mark.parametrize(
        ("status", "permanent"), [(302, True), (404, True), (429, False), (500, False), (503, False)]
    )
    def test_only_a_refusal_is_permanent(
        self, bench: Any, http_server: Any, make_reply: Any, status: int, permanent: bool
    ) -> None:
        http_server.answer = lambda _: make_reply(status=status, headers={"Location": "/elsewhere"})

        with pytest.raises(ActionError, match=f"status {status}") as caught:
            act("http", HttpArgs(url=http_server.url), bench.context())

        assert caught.value.permanent is permanent
        assert len(http_server.requests) == 1

    def test_an_expected_status_is_success(self, bench: Any, http_server: Any, make_reply: Any) -> None:
        http_server.answer = lambda _: make_reply(status=409)

        assert act("http", HttpArgs(url=http_server.url, expect=(409,)), bench.context()) == "status 409"

    def test_the_answer_is_told_short_and_redacted(
        self, bench: Any, http_server: Any, make_reply: Any
    ) -> None:
        http_server.answer = lambda _: make_reply(status=500, body="token=hunter2 " + "x" * 100_000)

        with pytest.raises(ActionError) as caught:
            act("http", HttpArgs(url=http_server.url), bench.context())

        assert "hunter2" not in str(caught.value)
        assert len(str(caught.value)) < 400

    def test_no_answer_ends_with_the_timeout(self, bench: Any, http_server: Any, make_reply: Any) -> None:
        http_server.answer = lambda _: make_reply(delay=20)
        began = time.monotonic()

        with pytest.raises(ActionError, match="no answer in time") as caught:
            act("http", HttpArgs(url=http_server.url), bench.context(), timeout=0.3)

        assert not caught.value.permanent
        assert time.monotonic() - began < 2

    def test_an_answer_that_drips_ends_with_the_timeout(
        self, bench: Any, http_server: Any, make_reply: Any
    ) -> None:
        http_server.answer = lambda _: make_reply(body="x" * 1000, drip=0.05)
        began = time.monotonic()

        with pytest.raises(ActionError, match="no answer in time"):
            act("http", HttpArgs(url=http_server.url), bench.context(), timeout=0.4)

        assert time.monotonic() - began < 2

    def test_a_refused_connection_does_not_tell_the_address(self, bench: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]

        with pytest.raises(ActionError, match="refused") as caught:
            act("http", HttpArgs(url=f"http://127.0.0.1:{port}/secret-path"), bench.context())

        assert "secret-path" not in str(caught.value)


class TestHook:
    def test_it_posts_to_the_address_of_the_inventory(self, bench: Any, http_server: Any) -> None:
        bench.services["shop"] = Service(hooks={"reconnect_redis": f"{http_server.url}/hooks/redis"})

        line = act("hook", HookArgs(service="shop", hook="reconnect_redis"), bench.context())

        (request,) = http_server.requests
        assert (request.method, request.path) == ("POST", "/hooks/redis")
        assert request.json == {"hook": "reconnect_redis", "run": "R_000000000001", "target": "shop"}
        assert line == "status 200"

    def test_a_hook_that_is_not_offered_is_refused(self, bench: Any) -> None:
        bench.services["shop"] = Service()

        with pytest.raises(ActionError, match="has no hook") as caught:
            act("hook", HookArgs(service="shop", hook="explode"), bench.context())

        assert caught.value.permanent


class TestCommand:
    def test_its_output_is_told(self, bench: Any) -> None:
        line = act("command", CommandArgs(argv=("echo", "done", "well")), bench.context())

        assert line == "exited with code 0: done well"

    def test_a_code_is_a_failure_with_redacted_output(self, bench: Any) -> None:
        code = "import sys; print('secret' + '=hunter2'); sys.exit(4)"

        with pytest.raises(ActionError, match=r"code 4: secret=\*\*\*"):
            act("command", CommandArgs(argv=(sys.executable, "-c", code)), bench.context())

    def test_no_shell_is_involved(self, bench: Any) -> None:
        line = act("command", CommandArgs(argv=("echo", "$(id)", "; ls", "`id`")), bench.context())

        assert line == "exited with code 0: $(id) ; ls `id`"

    def test_a_missing_program_is_permanent(self, bench: Any) -> None:
        with pytest.raises(ActionError, match="was not found") as caught:
            act("command", CommandArgs(argv=("no-such-program-here",)), bench.context())

        assert caught.value.permanent

    def test_too_long_kills_all_that_it_started(self, bench: Any) -> None:
        code = (
            "import subprocess, sys, time; "
            "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
            "print(p.pid, flush=True); time.sleep(60)"
        )
        with pytest.raises(ActionError, match=r"longer than 1 s and was killed: \d+") as caught:
            act("command", CommandArgs(argv=(sys.executable, "-c", code)), bench.context(), timeout=1.0)

        child = int(str(caught.value).rpartition(" ")[2])
        bench.until(
            lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
        )

    def test_a_lot_of_output_is_cut_to_its_end(self, bench: Any) -> None:
        code = "for i in range(200000): print('line', i)"

        line = act("command", CommandArgs(argv=(sys.executable, "-c", code)), bench.context(), timeout=20)

        assert line.endswith("line 199999")
        assert len(line) < 5000

    def test_it_ends_though_a_process_in_the_background_keeps_the_output_open(self, bench: Any) -> None:
        began = time.monotonic()

        line = act("command", CommandArgs(argv=("sh", "-c", "sleep 3 & echo done")), bench.context())

        assert line == "exited with code 0: done"
        assert time.monotonic() - began < 2

    def test_it_does_not_inherit_our_secrets(self, bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOULFRA_TOKEN", "x" * 20)

        line = act("command", CommandArgs(argv=("env",), env={"MINE": "1"}), bench.context())

        assert "MINE=1" in line
        assert "SOULFRA_TOKEN" not in line


class TestWait:
    def test_it_waits(self, bench: Any) -> None:
        began = time.monotonic()

        assert act("wait", WaitArgs(seconds=0.2), bench.context()) == "waited 0.2 s"
        assert time.monotonic() - began >= 0.2

    def test_it_ends_when_the_remediator_does(self, bench: Any) -> None:
        stop = threading.Event()
        threading.Timer(0.1, stop.set).start()

        with pytest.raises(ActionError, match="stopping"):
            act("wait", WaitArgs(seconds=60), bench.context(stop=stop), timeout=60)

    def test_more_than_the_timeout_is_refused_in_time(self, bench: Any) -> None:
        with pytest.raises(ActionError, match="do not fit") as caught:
            act("wait", WaitArgs(seconds=60), bench.context(), timeout=0.1)

        assert caught.value.permanent


class TestNotify:
    def test_one_channel_that_takes_it_is_enough(self, bench: Any, http_server: Any) -> None:
        notifier = Notifier({"chat": Channel(webhook=http_server.url)}, [], {})

        line = act(
            "notify",
            NotifyArgs(channels=("chat", "nobody"), message="look here"),
            bench.context(notifier=notifier),
        )

        assert line == "told chat; not told: nobody: there is no such channel"
        assert "look here" in http_server.requests[0].json["text"]
        assert http_server.requests[0].json["error_id"] == "SE_00000001"

    def test_nobody_told_is_a_failure(self, bench: Any) -> None:
        with pytest.raises(ActionError, match="nobody was told"):
            act("notify", NotifyArgs(channels=("nobody",), message="x"), bench.context())
