"""The router sends prompts to the best provider, falls over to the other one and keeps the books."""

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.platform.conftest import Running, Start

PROMPT = {"prompt": "Summarise the day. The export failed. The export works again."}


def provider(start: "Start", name: str, *, quota: int = 600, price: float = 0.5, port: int = 0) -> "Running":
    options = ["--name", name, "--latency", "0.01", "--quota", str(quota), "--price", str(price)]
    return start("provider.py", *options, port=port)


def router(start: "Start", **providers: "Running") -> "Running":
    options = [f"--provider={name}={running.url}" for name, running in providers.items()]
    return start("ai_router.py", *options)


def provider_of(router: "Running") -> str:
    answer = router.post("/route", PROMPT)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["provider"])


def test_it_prefers_the_cheaper_of_two_that_are_equally_fast(start: "Start") -> None:
    ours = router(start, dear=provider(start, "dear", price=5), cheap=provider(start, "cheap", price=0.1))

    used = [provider_of(ours) for _ in range(6)]

    assert used[2:] == ["cheap"] * 4  # after both were tried once


def test_it_reports_the_cost_of_each_request_and_the_total(start: "Start") -> None:
    ours = router(start, one=provider(start, "one", price=2.0))

    answers = [ours.post("/route", PROMPT).json() for _ in range(2)]
    usage = ours.get("/usage").json()

    assert answers[0]["cost"] == pytest.approx(answers[0]["tokens"] * 2.0 / 1000)
    assert answers[0]["text"].startswith("Summarise the day.")
    assert usage["total"] == {
        "requests": 2,
        "tokens": sum(answer["tokens"] for answer in answers),
        "cost": pytest.approx(sum(answer["cost"] for answer in answers)),
    }
    assert usage["cost_per_request"] == pytest.approx(answers[0]["cost"])


def test_when_a_quota_is_used_up_the_other_provider_answers(start: "Start") -> None:
    ours = router(
        start, small=provider(start, "small", quota=2, price=0), large=provider(start, "large", price=9)
    )

    used = [provider_of(ours) for _ in range(6)]
    health = ours.get("/health")

    assert used.count("small") <= 2
    assert health.status_code == 200
    assert health.json()["status"] == "degraded"
    assert ours.get("/usage").json()["total"]["requests"] == 6


def test_a_provider_says_when_its_quota_is_used_up(start: "Start") -> None:
    one = provider(start, "one", quota=1)
    one.post("/complete", PROMPT)

    refused = one.post("/complete", PROMPT)

    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert one.get("/health").json()["quota"] == {"limit": 1, "remaining": 0}


def test_it_falls_over_to_the_other_provider_and_is_only_degraded(start: "Start") -> None:
    first, second = provider(start, "first"), provider(start, "second")
    ours = router(start, first=first, second=second)
    first.end(signal.SIGKILL)

    answer = ours.post("/route", PROMPT).json()
    health = ours.get("/health")

    assert answer["provider"] == "second"
    assert answer["failed"] == [{"provider": "first", "reason": "first cannot be reached"}]
    assert health.status_code == 200
    assert health.json()["status"] == "degraded"
    assert health.json()["providers"] == {"first": "first cannot be reached", "second": "healthy"}
    link = ours.get("/links/first")
    assert (link.status_code, link.json()["reason"]) == (502, "first cannot be reached")


def test_a_provider_that_hangs_costs_one_request_some_time_and_the_next_none(start: "Start") -> None:
    first, second = provider(start, "first"), provider(start, "second")
    ours = router(start, first=first, second=second)
    first.post("/switch", {"mode": "hang"})

    slow = ours.post("/route", PROMPT)
    quick = ours.post("/route", PROMPT, timeout=1)
    health = ours.get("/health", timeout=1)

    assert slow.json()["failed"][0]["reason"] == "first did not answer within 1.5 s"
    assert quick.json()["failed"] == []
    assert health.json()["status"] == "degraded"


def test_without_any_provider_it_is_unhealthy_until_one_is_back(start: "Start") -> None:
    only = provider(start, "only")
    ours = router(start, only=only)
    only.end(signal.SIGKILL)

    refused, sick = ours.post("/route", PROMPT), ours.get("/health")
    provider(start, "only", port=int(only.url.rsplit(":", 1)[1]))
    well = ours.get("/health")

    assert refused.status_code == 503
    assert refused.json()["error"] == "no provider answered: only cannot be reached"
    assert (sick.status_code, sick.json()["status"]) == (503, "unhealthy")
    assert (well.status_code, well.json()["status"]) == (200, "healthy")
    assert provider_of(ours) == "only"
