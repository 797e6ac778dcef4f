"""Many callers of one call, who come, read, stall and leave in any order: whoever stays has all of it, or an error."""

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_api.errors import CutShort, UpstreamError
from chat_api.sharing import Sharing
from chat_api.sharing.flight import Flight
from tests.scripted import settled
from tests.sharers import KEY, Arriving, Caller, Upstream, assert_over, callers, in_loop
from tests.wires import run_skipping

CHUNKS = [b"data: %d\n\n" % number * 20 for number in range(40)]
BOUND = 1000


class Crowd:
    """A thousand callers of one stream, every second of whom takes a few turns of the loop for each piece."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.sharing, self.upstream = Sharing(), Upstream()
        self.callers: list[Caller] = []
        self.left: list[Caller] = []

    async def come(self, count: int) -> None:
        """So many more make the call."""
        found = await callers(self.sharing, self.upstream, count // 2)
        found += await callers(self.sharing, self.upstream, count // 2, flows=False)
        for one in found[::2]:
            one.gate.clear()
        self.callers += found

    def leave(self, count: int) -> None:
        """So many of them are cancelled."""
        for _ in range(count):
            one = self.callers.pop(self.rng.randrange(len(self.callers)))
            one.task.cancel()
            self.left.append(one)

    async def step(self) -> None:
        """Whoever is slow may go on by a piece."""
        for one in self.callers:
            if not one.gate.is_set() and self.rng.random() < 0.3:
                one.gate.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for one in self.callers[::2]:
            one.gate.clear()


@pytest.mark.parametrize("is_whole", [False, True])
@in_loop
async def test_a_thousand_callers_share_one_call(is_whole: bool) -> None:
    """There is one upstream call; 300 leave before, while and after the answer comes; the other 700 have all of it."""
    crowd = Crowd(Random(7))
    await crowd.come(1000)
    crowd.leave(100)
    await settled()
    if is_whole:
        crowd.leave(200)
        crowd.upstream.answer(b"whole")
        await settled()
    else:
        body = await crowd.upstream.stream()
        for number, chunk in enumerate(CHUNKS):
            body.say(chunk, end=number == len(CHUNKS) - 1)
            await crowd.step()
            crowd.leave(5)
        for one in crowd.callers:
            one.gate.set()
        await settled()
        assert body.closed == 1

    assert crowd.upstream.asked == 1
    assert crowd.upstream.cancelled == 0
    assert len(crowd.callers) == 700
    assert all(one.is_whole for one in crowd.callers)
    assert {one.body for one in crowd.callers} == {b"whole" if is_whole else b"".join(CHUNKS)}
    assert all(one.task.done() for one in crowd.left)
    assert sum(one.joined is False for one in crowd.callers + crowd.left) <= 1
    assert_over(crowd.sharing)


@pytest.mark.parametrize("is_answered", [False, True])
@in_loop
async def test_a_thousand_callers_leave(is_answered: bool) -> None:
    """When the last one of all has left the upstream call is cancelled, or its body closed, once."""
    crowd = Crowd(Random(8))
    await crowd.come(1000)
    body = await crowd.upstream.stream() if is_answered else Arriving()
    body.say(CHUNKS[0])
    await crowd.step()
    crowd.leave(999)
    await settled()
    assert (crowd.upstream.cancelled, body.closed, crowd.sharing.state()["flights"]) == (0, 0, 1)
    crowd.leave(1)
    await settled()

    assert (crowd.upstream.cancelled, body.closed) == ((0, 1) if is_answered else (1, 0))
    assert all(one.task.cancelled() for one in crowd.left)
    assert_over(crowd.sharing)


class Played:
    """A flight of a game: what it has said, and who is on it."""

    def __init__(self) -> None:
        self.body = Arriving()
        self.is_answered = False
        self.said = b""
        self.is_over = False
        self.broke = False
        self.passengers: list[Caller] = []


class Game:
    """Callers and an upstream who act in some order, and what must be true after each act."""

    def __init__(self) -> None:
        self.sharing, self.upstream = Sharing(BOUND, BOUND // 8), Upstream()
        self.flights: dict[Flight, Played] = {}
        self.gone: list[Caller] = []
        self.last: Played | None = None  # the one that began last

    async def act(self, act: str, number: int) -> None:
        """Do one thing."""
        await getattr(self, "_" + act)(number)
        for flight in self.flights.values():
            for one in flight.passengers:
                assert flight.said.startswith(one.body)
                if one.is_whole:
                    assert flight.is_over
                    assert not flight.broke
                    assert one.body == flight.said

    async def _join(self, number: int) -> None:
        one = Caller(self.sharing, self.upstream.ask, flows=number % 2 == 0)
        if number % 3 == 0:
            one.gate.clear()
        await asyncio.sleep(0)
        flight = self.sharing._open[KEY]
        if flight not in self.flights:
            await settled()  # the upstream is asked
            self.last = self.flights[flight] = Played()
        self.flights[flight].passengers.append(one)

    async def _leave(self, number: int) -> None:
        here = [(flight, one) for flight in self.flights.values() for one in flight.passengers]
        if here:
            flight, one = here[number % len(here)]
            flight.passengers.remove(one)
            self.gone.append(one)
            one.task.cancel()

    async def _answer(self, number: int) -> None:
        flight = self.last
        if flight is not None and not flight.is_answered and flight.passengers:
            if self.upstream.answers[-1].done():  # they have all just left
                return
            flight.is_answered = True
            self.upstream.answer(flight.body)

    def _arriving(self, number: int) -> Played | None:
        """A flight whose body has not ended."""
        found = [flight for flight in self.flights.values() if flight.is_answered and not flight.is_over]
        return found[-1 - number % len(found)] if found else None

    async def _chunk(self, number: int) -> None:
        if flight := self._arriving(number):
            chunk = bytes([number % 256]) * (1 + number * 7 % 300)
            flight.said += chunk
            flight.body.say(chunk)

    async def _end(self, number: int) -> None:
        if flight := self._arriving(number):
            flight.is_over = True
            flight.broke = number % 2 == 0
            flight.body.say(end=True, error=CutShort("broke") if flight.broke else None)

    async def _gate(self, number: int) -> None:
        for flight in self.flights.values():
            for one in flight.passengers[number % 3 :: 3]:
                (one.gate.clear if one.gate.is_set() else one.gate.set)()

    async def _turn(self, number: int) -> None:
        for _ in range(number % 8):
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """All read to the end, which comes now."""
        await settled()
        await self._answer(0)
        await settled()
        for flight in self.flights.values():
            for one in flight.passengers:
                one.gate.set()
        while self._arriving(0):
            await self._end(1)
        for _ in range(10):
            await settled()
        for flight in self.flights.values():
            assert flight.body.closed == flight.is_answered or not flight.passengers
            assert flight.body.closed <= 1
            for one in flight.passengers:
                self._check(flight, one)
        assert all(one.task.done() for one in self.gone)
        assert self.upstream.asked == len(self.flights)
        assert_over(self.sharing)

    def _check(self, flight: Played, one: Caller) -> None:
        """He has all of it, or an error says why he has not."""
        if isinstance(one.error, UpstreamError) and one.error.code == "read_too_slowly":
            assert len(flight.said) > BOUND // 3  # chunks count for more than their bytes
            assert flight.said.startswith(one.body)
        else:
            assert one.body == flight.said
            assert isinstance(one.error, CutShort) if flight.broke else one.is_whole


ACTS = ["join", "leave", "answer", "chunk", "chunk", "chunk", "end", "gate", "turn", "turn"]


@given(st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 1000)), max_size=60))
def test_whatever_happens_who_stays_has_all_or_an_error(acts: list[tuple[str, int]]) -> None:
    """Each reader always has a beginning of the answer; in the end all of it, or an error, and nothing is left."""

    async def play() -> None:
        game = Game()
        for act, number in acts:
            await game.act(act, number)
        await game.finish()

    run_skipping(play())


@pytest.mark.parametrize("seed", range(40))
def test_long_games(seed: int) -> None:
    """The same, with many callers and long streams."""
    rng = Random(seed)

    async def play() -> None:
        game = Game()
        for _ in range(6):
            await game.act("join", rng.randrange(1000))
        await game.act("answer", 0)
        for _ in range(250):
            act = rng.choices(("join", "leave", "chunk", "gate", "turn", "answer", "end"), (3, 2, 12, 4, 8, 1, 0.2))[0]
            await game.act(act, rng.randrange(1000))
        await game.finish()

    run_skipping(play())
