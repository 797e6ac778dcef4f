"""Shared calls over the relay: one attempt at one deployment, whose place is left whatever becomes of the callers."""

import asyncio

import pytest

from chat_api.errors import CutShort, UpstreamError
from chat_api.sharing import Sharing
from tests.scripted import Said, Scene, deployment, new, settled
from tests.sharers import Caller
from tests.wires import run_skipping

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
EVENTS = [*[EVENT % number for number in range(5)], LAST]


def scene_of(said: Said) -> Scene:
    """One deployment, and what it says."""
    return Scene(deployment("a"), a=said)


async def shared(scene: Scene, sharing: Sharing, count: int) -> list[Caller]:
    """So many callers of a streamed chat."""
    return [
        Caller(sharing, lambda: scene.relay.exchange(new(stream=True), scene.group), flows=number % 2 == 0)
        for number in range(count)
    ]


def test_one_attempt_answers_all() -> None:
    """A hundred callers take one place at one deployment, which is well after that."""
    said = Said(events=EVENTS)
    scene, sharing = scene_of(said), Sharing()

    async def main() -> None:
        callers = await shared(scene, sharing, 100)
        await asyncio.wait([one.task for one in callers])
        assert {one.body for one in callers} == {b"".join(EVENTS)}
        assert all(one.is_whole for one in callers)

    run_skipping(main())

    assert (scene.asked, said.closed) == ("a", 1)
    scene.assert_idle()


@pytest.mark.parametrize("turns", range(0, 20, 2))
def test_place_is_left_with_the_last_caller(turns: int) -> None:
    """Whenever all callers leave, the place of their call is free, and its response is closed."""
    said = Said(events=EVENTS)
    scene, sharing = scene_of(said), Sharing()

    async def main() -> None:
        callers = await shared(scene, sharing, 3)
        for _ in range(turns):
            await asyncio.sleep(0)
        for one in callers:
            one.task.cancel()
        await asyncio.wait([one.task for one in callers])
        scene.assert_idle()
        assert said.closed == len(scene.regions.said)

    run_skipping(main())


def test_stream_that_breaks_counts_once() -> None:
    """A break is noted once at the deployment, and each caller is told of it."""
    said = Said(events=[*EVENTS[:3], CutShort("broke")])
    scene, sharing = scene_of(said), Sharing()

    async def main() -> None:
        callers = await shared(scene, sharing, 10)
        await asyncio.wait([one.task for one in callers])
        assert all(isinstance(one.error, UpstreamError) and one.body == b"".join(EVENTS[:3]) for one in callers)
        await settled()

    run_skipping(main())

    assert (scene.asked, said.closed) == ("a", 1)
    scene.assert_idle()
    assert (scene.members["a"].calls, scene.members["a"].failures) == (1, 1)
