import pytest

from chat_api.trail import in_words, told_of
from chat_api.types import MAX_LABEL_CHARS, Attempt, Deployment

A = Deployment("a", "https://a.openai.azure.com", "2024-10-21")
B = Deployment("b", "https://b.openai.azure.com", "2024-10-21")
START = 5000.0


def attempt(
    deployment: Deployment,
    started: float,
    ended: float,
    status: int = 200,
    *,
    queue: float = 0.0,
    connect: float = 0.0,
    fallback: str | None = None,
) -> Attempt:
    """An attempt; times from START, `ended` 0 for one that has not ended."""
    end = START + ended if ended else 0.0
    return Attempt(deployment, START + started, end, status, None, queue, connect, fallback)


def told(*trail: Attempt, total: float = 2.0) -> dict[str, str]:
    """What is told of a trail."""
    return {name.decode(): value.decode() for name, value in told_of(trail, total)}


def test_one_attempt() -> None:
    """Of one attempt the deployment is told, and where the time went; nothing of other attempts."""
    assert told(attempt(A, 0, 1.5, queue=0.1, connect=0.2)) == {
        "x-chat-api-deployment": "a@a.openai.azure.com",
        "x-chat-api-attempts": "1",
        "server-timing": "queue;dur=100.0, connect;dur=200.0, upstream;dur=1200.0, gateway;dur=500.0",
    }


def test_second_attempt() -> None:
    """Of two the one that answered is told, and what went before it; all the parts are the total."""
    headers = told(attempt(A, 0, 0.25, 500), attempt(B, 0.3, 1.5))
    assert headers["x-chat-api-deployment"] == "b@b.openai.azure.com"
    assert headers["x-chat-api-attempts"] == "2"
    assert headers["server-timing"] == (
        "queue;dur=0.0, connect;dur=0.0, upstream;dur=1200.0, gateway;dur=500.0, attempts;dur=300.0"
    )


def test_fallback() -> None:
    """The model that stood in is told, where it answered."""
    assert told(attempt(A, 0, 1, 500), attempt(B, 1, 2, fallback="mini"))["x-chat-api-fallback"] == "mini"
    assert "x-chat-api-fallback" not in told(attempt(A, 0, 1, fallback=None))


@pytest.mark.parametrize(
    ("trail", "expected"),
    [
        pytest.param((attempt(A, 0, 1, 500), attempt(B, 1, 2)), "b", id="the-last"),
        pytest.param((attempt(B, 0.5, 0, 0), attempt(A, 0, 1)), "a", id="hedged-first-wins"),
        pytest.param((attempt(A, 0, 0, 0), attempt(B, 0.5, 1)), "b", id="hedged-second-wins"),
        pytest.param((attempt(B, 0.5, 0, 0), attempt(A, 0, 1, 400)), "a", id="hedged-first-refuses"),
        pytest.param((attempt(B, 0.5, 1), attempt(A, 0, 1, 400)), "a", id="both-at-once"),
        pytest.param((attempt(A, 0, 1, 429), attempt(B, 1, 2, 500)), "b", id="none"),
        pytest.param((attempt(A, 0, 1, 0), attempt(B, 1, 2, 400)), "b", id="refused"),
    ],
)
def test_who_answered(trail: tuple[Attempt, ...], expected: str) -> None:
    """The last is named: the one that answered, or was asked last if none did."""
    assert told(*trail)["x-chat-api-deployment"] == f"{expected}@{expected}.openai.azure.com"
    assert in_words(trail) == f" {expected}@{expected}.openai.azure.com (2 attempts)"


def test_hedge_that_is_still_out() -> None:
    """Where the first of a hedge answers, the time before it is none, though it stands last."""
    timing = told(attempt(B, 0.5, 0, 0), attempt(A, 0, 1.5))["server-timing"]
    assert timing == "queue;dur=0.0, connect;dur=0.0, upstream;dur=1500.0, gateway;dur=500.0, attempts;dur=0.0"


def test_hedge_that_wins() -> None:
    """Where the second of a hedge answers, the time until it was asked is told as that of attempts."""
    timing = told(attempt(A, 0, 0, 0), attempt(B, 0.5, 1.5))["server-timing"]
    assert timing == "queue;dur=0.0, connect;dur=0.0, upstream;dur=1000.0, gateway;dur=500.0, attempts;dur=500.0"


@pytest.mark.parametrize(
    "trail",
    [
        pytest.param((attempt(A, 0, 0, 0),), id="first"),
        pytest.param((attempt(A, 0, 1, 500), attempt(B, 1, 0, 0)), id="second"),
    ],
)
def test_head_that_goes_out_before_there_is_an_answer(trail: tuple[Attempt, ...]) -> None:
    """A head that a comment keeps open tells nothing: neither who will answer is known, nor when."""
    assert told(*trail) == {}
    assert in_words(trail).startswith(f" {trail[-1].deployment.label}")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        pytest.param("", b"-@a.openai.azure.com", id="none"),
        pytest.param("my gpt", b"my+gpt@a.openai.azure.com", id="space"),
        pytest.param("größe", b"gr\\xf6\\xdfe@a.openai.azure.com", id="umlaut"),
        pytest.param("a\r\nb", b"a\\r\\nb@a.openai.azure.com", id="line-end"),
        pytest.param("x" * 2_000_000, b"x" * MAX_LABEL_CHARS + b"@a.openai.azure.com", id="long"),
    ],
)
def test_label(name: str, label: bytes) -> None:
    """A deployment's label is short, of ASCII, on one line, and has no space, whatever a caller has named."""
    trail = [attempt(Deployment(name, A.base_url, A.api_version), 0, 1)]
    assert dict(told_of(trail, 1.0))[b"x-chat-api-deployment"] == label
    assert in_words(trail) == f" {label.decode()}"
