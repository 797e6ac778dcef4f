"""What keeps answers, in memory, in LMDB on disk and in a real Redis: the same facts of all of them."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_api.caching import CacheStore, Kept
from chat_api.stores.cache_record import FORM, HEAD_BYTES, read, written
from chat_api.types import Secret
from tests.caches import MAX_BYTES, NOW, TTL, Place, answer, got, key_of
from tests.redis_servers import RedisServer
from tests.servers import eventually

BACKENDS = ("memory", "lmdb", "redis")
ON_THEIR_OWN = ("memory", "lmdb")  # which are bounded here, not by a server


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where answers are kept, with nothing in it."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        return Place("redis", Secret(server.url))
    return Place(request.param, tmp_path / "cache" if request.param == "lmdb" else None)


own = pytest.mark.parametrize("place", ON_THEIR_OWN, indirect=True)


def test_an_answer_is_given_as_it_was_kept(place: Place) -> None:
    """Body, form, headers, deployment and times are what they were; of another key nothing is known."""

    async def main() -> None:
        async with place.opened() as cache:
            assert await got(cache, key_of(1)) is None
            for number, size in ((1, 0), (2, 1), (3, 2000), (4, 30_000)):
                cache.put(key_of(number), answer(number, size))
                assert await got(cache, key_of(number)) == answer(number, size)
            assert await got(cache, key_of(5)) is None

    asyncio.run(main())


def test_an_answer_expires(place: Place) -> None:
    """It is given until its end, and not at it; one that is kept after its end is never given."""

    async def main() -> None:
        async with place.opened() as cache:
            cache.put(key_of(1), answer(1))
            place.clock.now = NOW + TTL - 0.001
            assert await got(cache, key_of(1)) == answer(1)
            place.clock.now = NOW + TTL
            assert await got(cache, key_of(1)) is None
            cache.put(key_of(2), answer(2))
            assert await got(cache, key_of(2)) is None
        place.clock.now = NOW
        async with place.opened() as cache:
            cache.put(key_of(1), answer(1))
        async with place.opened() as cache:
            place.clock.now = NOW + TTL
            assert await got(cache, key_of(1)) is None
            assert cache.state().get("unreadable", 0) == 0

    asyncio.run(main())


def test_the_last_answer_counts(place: Place) -> None:
    """Who keeps another answer under the same key has that given, with its own end."""

    async def main() -> None:
        async with place.opened() as cache:
            cache.put(key_of(1), answer(1, expires=NOW + 10))
            cache.put(key_of(1), answer(2, expires=NOW + 30))
            cache.put(key_of(1), answer(3, expires=NOW + 20))
            place.clock.now = NOW + 15
            assert await got(cache, key_of(1)) == answer(3, expires=NOW + 20)
            place.clock.now = NOW + 20
            assert await got(cache, key_of(1)) is None

    asyncio.run(main())


def test_many_at_a_time(place: Place) -> None:
    """Answers that are kept and asked for at the same moment are each found."""

    async def main() -> None:
        async with place.opened() as cache:
            for number in range(500):
                cache.put(key_of(number), answer(number))
            found = await asyncio.gather(*(got(cache, key_of(number)) for number in range(500)))
            assert found == [answer(number) for number in range(500)]

    asyncio.run(main())


def test_one_that_is_too_large_is_not_kept(place: Place) -> None:
    """An answer that would drive too many others out is counted, and drives none out."""

    async def main() -> None:
        async with place.opened() as cache:
            cache.put(key_of(1), answer(1))
            cache.put(key_of(2), answer(2, MAX_BYTES // 8 + 1))
            assert await got(cache, key_of(2)) is None
            assert await got(cache, key_of(1)) == answer(1)
            assert cache.state()["too_large"] == 1

    asyncio.run(main())


def test_closed(place: Place) -> None:
    """Once it is closed it has nothing and keeps nothing; to close it again does no harm."""

    async def main() -> None:
        async with place.opened() as cache:
            cache.put(key_of(1), answer(1))
            await cache.aclose()
            assert await got(cache, key_of(1)) is None
            if place.backend != "memory":
                cache.put(key_of(2), answer(2))
                assert await got(cache, key_of(2)) is None
            msgspec.json.encode(cache.state())

    asyncio.run(main())


def test_opened_again(place: Place) -> None:
    """On disk and in Redis answers outlive the process; all that was to be kept is there once it is closed."""

    async def main() -> None:
        async with place.opened() as cache:
            for number in range(50):
                cache.put(key_of(number), answer(number))
        async with place.opened() as cache:
            found = [await got(cache, key_of(number)) for number in range(50)]
            expected = answer if place.backend != "memory" else lambda _: None
            assert found == [expected(number) for number in range(50)]

    asyncio.run(main())


def test_what_operators_are_told(place: Place) -> None:
    """The state can be sent as JSON, and says what it is, whether it is up, and what was not kept."""

    async def main() -> None:
        async with place.opened() as cache:
            cache.put(key_of(1), answer(1))
            state = msgspec.json.decode(msgspec.json.encode(cache.state()))
            assert (state["kind"], state["up"], state["failures"], state["not_kept"]) == (place.backend, True, 0, 0)

    asyncio.run(main())


async def fill(cache: CacheStore, numbers: range, size: int, expires: float = NOW + TTL) -> None:
    """Keep answers, no faster than they can be written."""
    for number in numbers:
        cache.put(key_of(number), answer(number, size, expires))
        if number % 50 == 0:
            await asyncio.sleep(0.01)  # a thread writes


@own
def test_bounded(place: Place) -> None:
    """However much is kept, the bytes stay within the bound, the newest are there, and most of the room is used."""

    async def main() -> None:
        async with place.opened() as cache:
            await fill(cache, range(250), 8000)
            assert await got(cache, key_of(249)) == answer(249, 8000)
            await cache_is_written(cache)
            state = cache.state()
            assert isinstance(state["bytes"], int)
            assert MAX_BYTES / 2 < state["bytes"] <= MAX_BYTES
            assert await got(cache, key_of(0)) is None
            assert await got(cache, key_of(249)) == answer(249, 8000)
            assert (state["not_kept"], state["failures"]) == (0, 0)
            if isinstance(place.url, Path):
                assert (place.url / "data.mdb").stat().st_size <= MAX_BYTES

    asyncio.run(main())


async def cache_is_written(cache: CacheStore) -> None:
    """Wait until nothing is on its way to the disk."""
    assert await asyncio.to_thread(eventually, lambda: not cache.state().get("waiting"), 20)


@own
def test_expired_ones_go_first(place: Place) -> None:
    """Where there is no room those go that have expired, before any that could still be given."""

    async def main() -> None:
        async with place.opened() as cache:
            await fill(cache, range(40), 8000)
            await fill(cache, range(100, 140), 8000, expires=NOW + 10)
            await cache_is_written(cache)
            place.clock.now = NOW + 11
            await fill(cache, range(200, 245), 8000)
            await cache_is_written(cache)
            found = [await got(cache, key_of(number)) for number in (*range(40), *range(200, 245))]
            assert found == [answer(number, 8000) for number in (*range(40), *range(200, 245))]
            assert cache.state()["evicted"] == 0
            assert cache.state()["expired"] == 40

    asyncio.run(main())


def test_those_asked_for_stay_in_memory() -> None:
    """In memory that answer goes for which nobody has asked in the longest time."""

    async def main() -> None:
        async with Place("memory", None).opened(max_bytes=20_000) as cache:
            for number in range(8):
                cache.put(key_of(number), answer(number, 1500))
            assert await got(cache, key_of(0)) is not None
            cache.put(key_of(8), answer(8, 1500))
            there = [number for number in range(9) if await got(cache, key_of(number))]
            assert 0 in there
            assert 1 not in there
            assert 8 in there

    asyncio.run(main())


def test_memory_of_what_is_gone_is_bounded() -> None:
    """An answer that is kept again and again leaves nothing behind."""

    async def main() -> None:
        async with Place("memory", None).opened() as cache:
            for turn in range(10_000):
                cache.put(key_of(1), answer(1, expires=NOW + turn + 1))
            assert cache.state()["answers"] == 1
            assert len(cache._ends) < 100  # type: ignore[attr-defined]

    asyncio.run(main())


texts = st.text(max_size=20)
pairs = st.tuples(st.binary(max_size=20), st.binary(max_size=20))
times = st.floats(NOW + 1, 1e11)
kept_answers = st.builds(
    Kept, st.binary(max_size=200), st.booleans(), st.lists(pairs, max_size=4).map(tuple), texts, times, times
)


@given(kept=kept_answers, at=st.integers(0, 10_000), bit=st.integers(0, 7), end=st.integers(0, 10_000))
def test_records(kept: Kept, at: int, bit: int, end: int) -> None:
    """A record is read as what was written; with any bit or any part of it lost it is nothing."""
    record = written(kept)
    assert read(record) == read(memoryview(record)) == kept
    spoilt = bytearray(record)
    spoilt[at % len(record)] ^= 1 << bit
    assert read(bytes(spoilt)) is None
    assert read(record[: end % len(record)]) is None


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(None, id="nothing"),
        pytest.param(b"", id="empty"),
        pytest.param(b"hello", id="text"),
        pytest.param(b"ca2\n" + written(answer(1))[len(FORM) :], id="another-form"),
        pytest.param(written(answer(1))[HEAD_BYTES:], id="without-head"),
        pytest.param(FORM + bytes(4), id="head-only"),
        pytest.param(FORM + b"\xa5\x05\xdf\x1b\xc1", id="no-msgpack"),
        pytest.param(OSError("gone"), id="exception"),
        pytest.param(7, id="number"),
    ],
)
def test_foreign_records(record: object) -> None:
    """Whatever else stands there is nothing."""
    assert read(record) is None
