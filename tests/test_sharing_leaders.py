"""Who began a call that others share: whether he is there until its end, which decides who is counted for it."""

import asyncio

import pytest

from chat_api.sharing import Sharing
from chat_api.sharing.flight import Flight
from chat_api.types import Reply
from tests.scripted import settled
from tests.sharers import KEY, Arriving, Caller, Upstream, assert_over, callers, in_loop


async def read(reply: Reply) -> bytes:
    """All of a reply's body, which is closed then."""
    if isinstance(reply.body, bytes):
        return reply.body
    try:
        return b"".join([chunk async for chunk in reply.body])
    finally:
        await reply.body.aclose()


async def joined(sharing: Sharing, upstream: Upstream) -> tuple[asyncio.Task[tuple[Reply, Flight | None]], Flight]:
    """A task that waits for the reply of a call in flight, and that flight."""
    task = asyncio.create_task(sharing.reply(KEY, upstream.ask))
    await settled()
    (flight,) = sharing._flights
    return task, flight


@pytest.mark.parametrize("leaves", ["nobody", "leader", "another"])
@in_loop
async def test_before_the_reply(leaves: str) -> None:
    """A flight is led until its leader leaves; who else leaves makes no difference."""
    sharing, upstream = Sharing(), Upstream()
    leader, other = await callers(sharing, upstream, 2)
    task, flight = await joined(sharing, upstream)
    if leaves != "nobody":
        await (leader if leaves == "leader" else other).leave()
    upstream.answer(b"{}")
    reply, same = await task
    await settled()
    assert same is flight
    assert reply.body == b"{}"
    assert flight.is_led is (leaves != "leader")
    assert_over(sharing)


@pytest.mark.parametrize("leaves", ["leader", "another", "both"])
@in_loop
async def test_mid_stream(leaves: str) -> None:
    """The same while the body arrives."""
    sharing, upstream = Sharing(), Upstream()
    leader, other = await callers(sharing, upstream, 2)
    task, flight = await joined(sharing, upstream)
    body = await upstream.stream()
    body.say(b"one ")
    await settled()
    if leaves != "another":
        await leader.leave()
    if leaves != "leader":
        await other.leave()
    reply, _ = await task
    body.say(b"two", end=True)
    assert not isinstance(reply.body, bytes)
    assert b"".join([chunk async for chunk in reply.body]) == b"one two"
    await reply.body.aclose()
    await settled()
    assert flight.is_led is (leaves == "another")
    assert body.closed == 1
    assert_over(sharing)


@in_loop
async def test_leader_who_has_it_whole() -> None:
    """Who leaves with the whole answer, only its end being to come, has led it; so has he who leaves after it."""
    for is_complete in (True, False):
        sharing, upstream = Sharing(), Upstream()
        task = asyncio.create_task(sharing.reply(KEY, upstream.ask))
        await settled()
        other, flight = await joined(sharing, upstream)
        body = await upstream.stream()
        body.say(b"all", end=not is_complete)
        await settled()
        (own, none), (reply, _) = await task, await other
        assert none is None
        assert not isinstance(own.body, bytes)
        assert not isinstance(reply.body, bytes)
        if is_complete:
            own.body.expect_end()
        await own.body.aclose()
        assert flight.is_led
        body.say(end=is_complete)
        assert [chunk async for chunk in reply.body] == [b"all"]
        await reply.body.aclose()
        await settled()
        assert flight.is_led
        assert_over(sharing)


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("is_stream", [False, True])
@in_loop
async def test_reply_that_comes_as_its_leader_leaves(turns: int, is_stream: bool) -> None:
    """Whoever is cancelled before he has the reply has left, however near it was; what he gets he has led."""
    sharing, upstream = Sharing(), Upstream()
    leader = asyncio.create_task(sharing.reply(KEY, upstream.ask))
    await settled()
    task, flight = await joined(sharing, upstream)
    body = Arriving()
    body.say(b"{}", end=True)
    upstream.answer(body if is_stream else b"{}")
    for _ in range(turns):
        await asyncio.sleep(0)
    leader.cancel()
    await settled()

    assert flight.is_led is not leader.cancelled()
    if not leader.cancelled():
        assert turns
        await read((await leader)[0])
    assert await read((await task)[0]) == b"{}"
    await settled()
    assert_over(sharing)


@pytest.mark.parametrize("turns", range(4))
@in_loop
async def test_reply_that_comes_as_another_leaves(turns: int) -> None:
    """Whoever else is cancelled then, the leader is still there."""
    sharing, upstream = Sharing(), Upstream()
    leader = asyncio.create_task(sharing.reply(KEY, upstream.ask))
    await settled()
    task, flight = await joined(sharing, upstream)
    upstream.answer(b"{}")
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await settled()
    assert await read((await leader)[0]) == b"{}"
    assert flight.is_led
    assert_over(sharing)


@in_loop
async def test_next_flight_has_a_leader_of_its_own() -> None:
    """Nothing is remembered of one that is over."""
    sharing, upstream = Sharing(), Upstream()
    (leader,) = await callers(sharing, upstream, 1)
    await leader.leave()
    next_leader = Caller(sharing, upstream.ask)
    await settled()
    task, flight = await joined(sharing, upstream)
    upstream.answer(b"{}")
    await asyncio.wait([next_leader.task, task])
    assert flight.is_led
    assert sharing.state() == {"flights": 0, "joined": 1}
