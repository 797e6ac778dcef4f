"""Bodies that are to be kept, as they arrive: when who keeps them is told, and of which he never is."""

import asyncio
from collections.abc import Awaitable

import pytest

from chat_api.errors import UpstreamError
from chat_api.kept_bodies import KeptBody
from tests.scripted import settled
from tests.sharers import Arriving

END = "the end"


class Read:
    """What happens to a body that is to be kept, in its order: pieces that were read, its end, what was kept."""

    def __init__(self, max_bytes: int = 100) -> None:
        self.body = Arriving()
        self.kept = KeptBody(self.body, lambda whole: self.seen.append(("kept", whole)), max_bytes)
        self.seen: list[object] = []

    async def flow(self) -> None:
        """Read it as the relay does."""
        while (waiting := await self.kept.flow(self._take)) is not None:
            await waiting
        self.seen.append(END)

    async def iterate(self) -> None:
        """Read it as the simple endpoint does."""
        async for piece in self.kept:
            self.seen.append(piece)
        self.seen.append(END)

    def _take(self, piece: bytes) -> Awaitable[object] | None:
        self.seen.append(piece)
        return None


@pytest.mark.parametrize("way", ["flow", "iterate"])
def test_it_is_kept_before_its_end_is_told(way: str) -> None:
    """Who has read the end and asks again finds it; closing it keeps it no second time."""

    async def main() -> None:
        read = Read()
        read.body.say(b"one", end=False)
        read.body.say(b" two", end=True)
        await getattr(read, way)()
        read.kept.expect_end()
        await read.kept.aclose()
        assert read.seen[-2:] == [("kept", b"one two"), END]
        assert read.body.closed == 1

    asyncio.run(main())


def test_it_is_kept_when_only_its_end_is_to_come() -> None:
    """A reader who has seen `[DONE]` need not wait for the end of the body."""

    async def main() -> None:
        read = Read()
        read.body.say(b"all")
        reading = asyncio.create_task(read.flow())
        await settled()
        read.kept.expect_end()
        assert read.seen == [b"all", ("kept", b"all")]
        assert read.body.is_end_next
        reading.cancel()
        await asyncio.wait({reading})
        await read.kept.aclose()
        assert read.seen == [b"all", ("kept", b"all")]

    asyncio.run(main())


def test_what_is_never_kept() -> None:
    """One that broke off, one that was left before its end, and one that is too long."""

    async def main() -> None:
        broken = Read()
        broken.body.say(b"part", error=UpstreamError("broke off"))
        with pytest.raises(UpstreamError, match="broke off"):
            await broken.flow()
        left, long = Read(), Read(max_bytes=5)
        left.body.say(b"part")
        long.body.say(b"five+", b"more", end=True)
        await long.iterate()
        for one in (broken, left, long):
            await one.kept.aclose()
            assert not [what for what in one.seen if isinstance(what, tuple)]

    asyncio.run(main())
