"""Comments and a client that is slow: none waits behind what it has not taken."""

import asyncio

import pytest

from chat_api.passing import PING
from tests.test_passing import DONE, EVENT, HEAD, INTERVAL, KINDS, STOP, Client, carried, nothing_left
from tests.wires import run_skipping, turn


@pytest.mark.parametrize("kind", KINDS)
def test_no_comment_waits_behind_the_last_event(kind: str) -> None:
    """A client that does not take the end of a repaired stream gets no comment after it."""

    async def main() -> None:
        client = Client(kind, DONE)
        response, passage, reply = carried(client)
        task = asyncio.create_task(passage.carry(reply))
        await turn()
        response.feed(STOP)
        response.end()
        await asyncio.sleep(5 * INTERVAL)
        assert client.begun == [HEAD, STOP, DONE]
        client.hold()
        await task
        assert client.taken == [HEAD, STOP, DONE, b""]
        assert nothing_left()

    run_skipping(main())


@pytest.mark.parametrize("kind", KINDS)
def test_no_comment_waits_behind_the_head(kind: str) -> None:
    """A head that a client has not taken is not followed by comments."""

    async def main() -> None:
        client = Client(kind, HEAD)
        response, passage, reply = carried(client)
        passage.keep_open()
        task = asyncio.create_task(passage.carry(reply))
        await asyncio.sleep(5 * INTERVAL)
        assert client.begun == [HEAD]
        client.hold()
        response.feed(DONE)
        await task
        assert client.taken == [HEAD, DONE, b""]

    run_skipping(main())


@pytest.mark.parametrize("kind", KINDS)
def test_comment_comes_an_interval_after_an_event_was_taken(kind: str) -> None:
    """What counts is when a slow client took an event, not when it was given it."""

    async def main() -> None:
        client = Client(kind, EVENT)
        response, passage, reply = carried(client)
        task = asyncio.create_task(passage.carry(reply))
        await turn()
        response.feed(EVENT)
        await asyncio.sleep(1.5 * INTERVAL)
        client.hold()
        await asyncio.sleep(2 * INTERVAL)
        assert client.taken[:3] == [HEAD, EVENT, PING]
        assert client.times[2] - client.times[1] >= INTERVAL - 0.001
        response.feed(DONE)
        await task

    run_skipping(main())
