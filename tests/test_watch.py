"""The watch over a client that may leave: told by our own server, or asking another one."""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest

from chat_api.errors import ClientGone
from chat_api.streaming import ON_DISCONNECT, Watch
from tests.wires import turn

KINDS = ["told", "asked"]
LATE: MutableMapping[str, Any] = {"type": "http.request", "body": b"late", "more_body": False}
GONE: MutableMapping[str, Any] = {"type": "http.disconnect"}


class Client:
    """A client, under a server that tells when it leaves, or that has to be asked."""

    def __init__(self, kind: str) -> None:
        self._is_told = kind == "told"
        self._callback: Callable[[], None] | None = None
        self._messages: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._has_left = False
        self.listens = 0  # how many ask for a message at this moment

    @property
    def watch(self) -> Watch:
        """A watch over it."""
        return Watch({"extensions": {ON_DISCONNECT: self._notify}} if self._is_told else {}, self._receive)

    def _notify(self, callback: Callable[[], None] | None) -> asyncio.Task[Any] | None:
        """As our server does it: what is called may be called at any time, until it is None."""
        self._callback = callback
        if callback is None:
            return None
        if self._has_left:
            asyncio.get_running_loop().call_soon(callback)
        return asyncio.current_task()

    async def _receive(self) -> MutableMapping[str, Any]:
        self.listens += 1
        try:
            return await self._messages.get()
        finally:
            self.listens -= 1

    def send(self) -> None:
        """Send something more."""
        self._messages.put_nowait(LATE)

    def leave(self) -> None:
        """Close the connection."""
        self._has_left = True
        self._messages.put_nowait(GONE)
        if self._callback is not None:
            self._callback()

    @property
    def is_watched(self) -> bool:
        """Whether anything would come of its leaving."""
        return self._callback is not None or self.listens > 0


def nothing_left(client: Client) -> bool:
    """Whether nobody watches, no task is left but this one, and nobody has asked it to stop."""
    task = asyncio.current_task()
    assert task is not None
    return not client.is_watched and asyncio.all_tasks() == {task} and task.cancelling() == 0


async def waits_for_ever(client: Client) -> None:
    """What only a cancellation ends."""
    with client.watch:
        await asyncio.Event().wait()


@pytest.mark.parametrize("kind", KINDS)
def test_client_that_leaves_ends_what_it_waits_for(kind: str) -> None:
    """Whoever works for a client that leaves is cancelled, and then told why; the task itself may go on."""

    async def main() -> None:
        client = Client(kind)
        asyncio.get_running_loop().call_later(0.01, client.leave)
        with pytest.raises(ClientGone):
            await waits_for_ever(client)
        await turn()
        assert nothing_left(client)

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_client_that_had_left_before_is_noticed(kind: str) -> None:
    """One that was gone when the watch began is no less gone."""

    async def main() -> None:
        client = Client(kind)
        client.leave()
        with pytest.raises(ClientGone):
            await waits_for_ever(client)
        await turn()
        assert nothing_left(client)

    asyncio.run(main())


def test_client_that_says_something_has_not_left() -> None:
    """Whatever else comes of a client that is asked is passed over."""

    async def main() -> None:
        client = Client("asked")
        with client.watch:
            for _ in range(3):
                client.send()
                await turn()
        await turn()
        assert nothing_left(client)

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("leaves", ["never", "before", "after"])
def test_cancellation_from_without_stays_one(leaves: str, kind: str) -> None:
    """A server that stops is not a client that left, not even where both come together."""

    async def main() -> None:
        client = Client(kind)
        task = asyncio.create_task(waits_for_ever(client))
        await turn()
        if leaves == "before":
            client.leave()
        task.cancel()
        if leaves == "after":
            client.leave()
        with pytest.raises(asyncio.CancelledError):
            await task
        await turn()
        assert nothing_left(client)

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_client_that_leaves_later_disturbs_nobody(kind: str) -> None:
    """Once the context is left the task goes on, whatever its client does."""

    async def main() -> str:
        client = Client(kind)
        with client.watch:
            await turn()
            assert client.is_watched
        client.leave()
        await turn()
        assert nothing_left(client)
        return "done"

    assert asyncio.run(main()) == "done"


@pytest.mark.parametrize("kind", KINDS)
def test_news_that_come_too_late_disturb_nobody(kind: str) -> None:
    """Work that waited for nothing is done before its watch hears of a client that was gone, and goes on."""

    async def main() -> None:
        client = Client(kind)
        client.leave()
        with client.watch:
            pass
        await turn()
        assert nothing_left(client)

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_client_that_leaves_as_its_answer_comes(kind: str) -> None:
    """Where the work is done and its client gone in the same step, one of both counts, and no cancellation is left."""

    async def work(client: Client, answer: asyncio.Future[str]) -> str:
        try:
            with client.watch:
                came = await answer
        except ClientGone:
            came = "gone"
        await turn()  # what is left of a cancellation would strike here
        return came

    async def main() -> None:
        client = Client(kind)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(work(client, answer))
        await turn()
        answer.set_result("answer")
        client.leave()
        assert await task in ("answer", "gone")
        await turn()
        assert nothing_left(client)

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_error_of_the_work_is_its_own(kind: str) -> None:
    """What goes wrong while the client is there goes on as it is, and nobody watches any more."""

    async def work(client: Client) -> None:
        with client.watch:
            await turn()
            raise LookupError

    async def main() -> None:
        client = Client(kind)
        with pytest.raises(LookupError):
            await work(client)
        await turn()
        assert nothing_left(client)

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_cleaning_up_comes_before_the_news(kind: str) -> None:
    """What the work has to close is closed, with awaits of its own, before anyone hears that the client left."""
    said = []

    async def work(client: Client) -> None:
        with client.watch:
            try:
                await asyncio.Event().wait()
            finally:
                await turn()
                said.append("closed")

    async def main() -> None:
        client = Client(kind)
        asyncio.get_running_loop().call_later(0.01, client.leave)
        with pytest.raises(ClientGone):
            await work(client)
        said.append("told")

    asyncio.run(main())
    assert said == ["closed", "told"]
