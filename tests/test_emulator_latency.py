"""The emulator's latency: how long callers wait, and that nobody waits for one who has left."""

import socket
import time

import pytest

from chat_api.emulator import Emulator, Latency, Limit, Outage
from chat_api.emulator.latency import Pace, parse
from tests.emulators import CHAT, emulated
from tests.servers import eventually

BODY = {"messages": [{"role": "user", "content": "hi"}]}
LONG = 60.0  # nobody waits so long here


def test_waits_are_what_was_asked_for() -> None:
    """Without jitter each wait is the number itself."""
    pace = Pace(Latency(0.2, 0.01))

    assert [pace.first(), pace.first(), pace.between()] == [0.2, 0.2, 0.01]


def test_jitter_is_repeatable_and_bounded() -> None:
    """Equal seeds give equal waits, others other ones, all within their part of the wait."""
    waits = [[pace.first() for _ in range(200)] for pace in (Pace(Latency(1.0, jitter=0.1, seed=n)) for n in (1, 1, 2))]

    assert waits[0] == waits[1] != waits[2]
    assert 0.9 <= min(waits[0]) < 0.93 < 1.07 < max(waits[0]) <= 1.1


@pytest.mark.parametrize(
    ("text", "latency"),
    [("0.2", Latency(0.2)), ("0", Latency()), ("1,0.05", Latency(1.0, 0.05)), ("0,2", Latency(0, 2))],
)
def test_latency_in_words(text: str, latency: Latency) -> None:
    """The command line's way to write a latency."""
    assert parse(text) == latency


@pytest.mark.parametrize("text", ["", "x", "-1", "1,", "1,-1", "nan", "inf", "1,2,3"])
def test_what_is_no_latency_is_told_what_is_one(text: str) -> None:
    """A text that cannot be read is refused with what can be written there."""
    with pytest.raises(ValueError, match=r"is not SECONDS such as 0\.2"):
        parse(text)


def test_answers_and_events_take_their_time() -> None:
    """The head comes after the first wait, and every event but the first after another; then it is as fast again."""
    emulator = Emulator(latency=Latency(0.05, 0.01))
    with emulated(emulator) as client:
        began = time.monotonic()
        with client.stream("POST", CHAT, json={**BODY, "stream": True}) as response:
            headed = time.monotonic()
            events = response.read().count(b"\n\n")
        ended = time.monotonic()
        emulator.latency = 0.04
        client.get("/openai/v1/models").raise_for_status()
        listed = time.monotonic()

    assert headed - began >= 0.05
    assert ended - began >= 0.05 + (events - 1) * 0.01
    assert listed - ended >= 0.04


@pytest.mark.parametrize(
    ("latency", "is_stream"),
    [
        pytest.param(LONG, False, id="before-the-answer"),
        pytest.param(LONG, True, id="before-the-stream"),
        pytest.param(Latency(between=LONG), True, id="between-events"),
    ],
)
def test_caller_who_leaves_is_not_waited_for(latency: float | Latency, is_stream: bool) -> None:
    """The call is over as soon as its caller has left."""
    emulator = Emulator(latency=latency)
    with emulated(emulator) as client:
        request = client.build_request("POST", CHAT, json={**BODY, "stream": is_stream})
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as sock:
            sock.sendall(f"POST {CHAT} HTTP/1.1\r\n{head}\r\n".encode() + request.content)
            assert eventually(lambda: emulator.open_calls == 1)
        assert eventually(lambda: emulator.open_calls == 0)


def test_refusals_come_at_once() -> None:
    """Neither an outage nor a limit takes the time of an answer."""
    emulator = Emulator(latency=LONG, limits={"gpt-4.1": Limit(tpm=1)})
    with emulated(emulator) as client:
        statuses = [client.post(CHAT.replace("gpt-4o", "gpt-4.1"), json=BODY).status_code]
        emulator.outage = Outage("503")
        statuses.append(client.post(CHAT, json=BODY).status_code)

    assert statuses == [429, 503]
