"""When the events of a paced stream go out, and which of them take a turn."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api.counting import Rate
from chat_api.pace import ANY_ROUTE, MAX_BEHIND_SECONDS, Pace, interval_of, is_empty, takes_turn, turns

DATA = b"data: x\n\n"
TEXT = 'data: {"choices":[{"index":0,"delta":{"content":"Hé€😀"}}]}\n\n'.encode()
FILTER = b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n'
USAGE = b'data: { "choices" : [ ] , "usage": {"total_tokens":3}}\n\n'
QUOTED = b'data: {"choices":[{"delta":{"content":"\\"choices\\":[] data: [DONE]"}}]}\n\n'
NAMED = b'event: response.output_text.delta\ndata: {"delta":"H"}\n\n'
LINES = b'data: {"choices":\ndata: [{"index":0}]}\n\n'
DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"


def crlf(raw: bytes) -> bytes:
    """The same with CRLF for its line ends."""
    return raw.replace(b"\n", b"\r\n")


def lone_cr(raw: bytes) -> bytes:
    """The same with CR for its line ends."""
    return raw.replace(b"\n", b"\r")


def times(interval: float, came: list[float], late: dict[int, float] | None = None, grain: float = 0) -> list[float]:
    """When the events that come at these times go out.

    Args:
        late: by how much those of these numbers go out too late.
        grain: what a clock goes on by, at least, where somebody sleeps.
    """
    pace = Pace(interval)
    now = 0.0
    out = []
    for number, at in enumerate(came):
        now = max(now, at)
        wait = pace.wait(now)
        if wait:
            now += max(wait, grain)
        now += (late or {}).get(number, 0)
        pace.went(now)
        out.append(now)
    return out


@pytest.mark.parametrize(
    ("came", "out"),
    [
        pytest.param([0, 0, 0, 0], [0, 1, 2, 3], id="burst"),
        pytest.param([5, 5, 5], [5, 6, 7], id="burst-after-silence"),
        pytest.param([0, 2, 4, 7], [0, 2, 4, 7], id="slow"),
        pytest.param([0, 1, 2, 3], [0, 1, 2, 3], id="just-so"),
        pytest.param([0, 0, 0, 10, 10, 10.5], [0, 1, 2, 10, 11, 12], id="two-bursts"),
        pytest.param([0, 0.5, 1, 1.5, 9, 9.5], [0, 1, 2, 3, 9, 10], id="a-little-fast"),
        pytest.param([0, 0.2, 1.9, 2.1], [0, 1, 2, 3], id="uneven"),
    ],
)
def test_times(came: list[float], out: list[float]) -> None:
    """Each event goes out when it comes, or an interval after the one before it, whichever is later."""
    assert times(1, came) == pytest.approx(out)


@pytest.mark.parametrize(
    ("interval", "late", "out"),
    [
        pytest.param(1, {1: 0.3, 2: 0.3, 3: 0.3}, [0, 1.3, 2.3, 3.3, 4], id="each-a-little"),
        pytest.param(1, {1: 1.5}, [0, 2.5, 2.5, 3, 4], id="by-more-than-an-interval"),
        pytest.param(1, {1: 7.5}, [0, 8.5, 8.5, 8.5, 9.5], id="by-very-much"),
        pytest.param(0.02, {1: 0.05}, [0, 0.07, 0.07, 0.07, 0.08], id="short-interval"),
        pytest.param(0.05, {1: 0.5}, [0, 0.55, 0.55, 0.55, 0.55], id="short-interval-by-very-much"),
    ],
)
def test_lateness_is_made_up(interval: float, late: dict[int, float], out: list[float]) -> None:
    """What goes out too late does not move what follows; but no more than a little is ever made up at once."""
    assert times(interval, [0] * 5, late) == pytest.approx(out)


def test_burst_after_a_standstill_is_bounded() -> None:
    """A client that took nothing for a minute gets what was due in the last moment, and the rest at its pace."""
    interval = 0.01
    out = times(interval, [0] * 100, {1: 60})

    assert len([at for at in out if at == out[1]]) == round(MAX_BEHIND_SECONDS / interval) + 2
    assert out[-1] - out[-2] == pytest.approx(interval)


def test_late_event_gives_nothing_to_one_that_comes_later() -> None:
    """What comes after a pause begins anew: it may not go out sooner for what was late before."""
    assert times(1, [0, 0, 5, 5, 5], {1: 0.9}) == pytest.approx([0, 1.9, 5, 6, 7])


@pytest.mark.parametrize("grain", [0.001, 0.004, 0.02])
def test_interval_shorter_than_a_timer_can_wait(grain: float) -> None:
    """A clock of coarse steps does not slow a fast pace down: what is due by then goes out together."""
    out = times(0.0003, [0] * 1000, grain=grain)

    assert out[-1] == pytest.approx(0.3, abs=grain + 0.0003)


def test_nothing_drifts() -> None:
    """After ten thousand events, all of them sent a little late, the last is as late as the first."""
    late = dict.fromkeys(range(10000), 0.007)
    out = times(0.02, [0] * 10_000, late)

    assert out[-1] == pytest.approx(9_999 * 0.02 + 0.007)


GAPS = st.lists(st.integers(0, 40).map(lambda ticks: ticks / 10), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(GAPS, st.sampled_from([0.1, 0.5, 1, 3]))
def test_every_event_is_as_early_as_it_may(gaps: list[float], interval: float) -> None:
    """Whenever events come, each goes out at its time exactly, and waits for no more than those before it."""
    came = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    out = times(interval, came)
    expected = came[:1]
    for at in came[1:]:
        expected.append(max(at, expected[-1] + interval))

    assert out == pytest.approx(expected)
    for index, at in enumerate(came):
        waiting = sum(1 for before in out[:index] if before > at - interval)
        assert out[index] - at <= waiting * interval + 1e-6


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9).map(lambda ticks: ticks / 10), min_size=1, max_size=30))
def test_lateness_within_an_interval_never_adds_up(lateness: list[float]) -> None:
    """However late each of a burst goes out, by less than an interval, it is late by its own lateness alone."""
    out = times(1, [0] * len(lateness), dict(enumerate(lateness)))

    assert out == pytest.approx([number + late for number, late in enumerate(lateness)])
    assert all(after >= before for before, after in pairwise(out))


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(TEXT, [(TEXT, True)], id="one"),
        pytest.param(TEXT + DATA + NAMED, [(TEXT, True), (DATA, True), (NAMED, True)], id="some"),
        pytest.param(TEXT + DONE, [(TEXT + DONE, True)], id="done-goes-with-the-last"),
        pytest.param(DONE, [(DONE, False)], id="only-done"),
        pytest.param(b"data:[DONE]\n\n", [(b"data:[DONE]\n\n", False)], id="tight-done"),
        pytest.param(b"event: done\ndata: [DONE]\n\n", [(b"event: done\ndata: [DONE]\n\n", False)], id="named-done"),
        pytest.param(PING + TEXT + PING + TEXT, [(PING, False), (TEXT + PING, True), (TEXT, True)], id="comments"),
        pytest.param(FILTER + TEXT + USAGE + DONE, [(FILTER, False), (TEXT + USAGE + DONE, True)], id="empty-chunks"),
        pytest.param(QUOTED + QUOTED, [(QUOTED, True)] * 2, id="words-in-a-text"),
        pytest.param(LINES + LINES, [(LINES, True)] * 2, id="data-in-two-lines"),
        pytest.param(b"retry: 10\n\n" + DATA, [(b"retry: 10\n\n", False), (DATA, True)], id="no-data"),
        pytest.param(b"data\n\n" + DATA, [(b"data\n\n", True), (DATA, True)], id="data-without-a-value"),
        pytest.param(DATA + b"\n" + DATA + b"\n", [(DATA, True), (b"\n" + DATA + b"\n", True)], id="blank-lines"),
        pytest.param(
            crlf(PING + TEXT + DATA), [(crlf(PING), False), (crlf(TEXT), True), (crlf(DATA), True)], id="crlf"
        ),
        pytest.param(crlf(TEXT) + DATA + crlf(DONE), [(crlf(TEXT), True), (DATA + crlf(DONE), True)], id="mixed"),
        pytest.param(lone_cr(NAMED + DATA), [(lone_cr(NAMED), True), (lone_cr(DATA), True)], id="lone-cr"),
        pytest.param(crlf(DATA) + b"\r\n", [(crlf(DATA) + b"\r\n", True)], id="blank-line-crlf"),
    ],
)
def test_turns(whole: bytes, expected: list[tuple[bytes, bool]]) -> None:
    """Each event with data is a turn; comments, chunks without choices and `[DONE]` go with the one before them."""
    assert list(turns(whole)) == expected


PIECES = st.sampled_from(
    [DATA, TEXT, FILTER, QUOTED, NAMED, LINES, DONE, PING, crlf(TEXT), lone_cr(DATA), b"\n", b"\r"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=6)).map(b"".join))
def test_turns_are_all_the_bytes(whole: bytes) -> None:
    """Whatever it is that comes, nothing of it is lost, doubled or put elsewhere."""
    assert b"".join(part for part, _ in turns(whole)) == whole


@pytest.mark.parametrize(
    ("event", "takes"), [(TEXT, True), (NAMED, True), (FILTER, False), (PING, False), (DONE, False)]
)
def test_takes_turn(event: bytes, takes: bool) -> None:
    """An event takes a turn if a reader sees something of it."""
    assert takes_turn(event) is takes


@pytest.mark.parametrize(("data", "empty"), [(b'{"choices":[]}', True), (TEXT[6:-2], False), (b'{"delta":"H"}', False)])
def test_is_empty(data: bytes, empty: bool) -> None:
    """A chunk is empty if it has choices and there are none."""
    assert is_empty(data) is empty


RATES = {"/v1/chat/completions": Rate(20, 1), "/v1/gpt/chat": Rate(90, 60), "/eu/v1/responses": Rate(1, 2)}


@pytest.mark.parametrize(
    ("rates", "route", "seconds"),
    [
        pytest.param({}, "/v1/chat/completions", 0, id="none-at-all"),
        pytest.param(RATES, "/v1/chat/completions", 0.05, id="of-the-route"),
        pytest.param(RATES, "/v1/gpt/chat", 60 / 90, id="by-the-minute"),
        pytest.param(RATES, "/eu/v1/responses", 2, id="less-than-one-a-second"),
        pytest.param(RATES, "/v1/responses", 0, id="of-another-route"),
        pytest.param({**RATES, ANY_ROUTE: Rate(10, 1)}, "/v1/responses", 0.1, id="of-any-route"),
        pytest.param({**RATES, ANY_ROUTE: Rate(10, 1)}, "/v1/chat/completions", 0.05, id="the-route-wins"),
    ],
)
def test_interval_of_a_route(rates: dict[str, Rate], route: str, seconds: float) -> None:
    """A rate is so many events in so many seconds, of a route or of whatever has none of its own."""
    assert interval_of(rates, route) == pytest.approx(seconds)
    assert interval_of(rates, *route.partition("/v1/")) == pytest.approx(seconds)
