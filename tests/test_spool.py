"""Request bodies that are not held in memory: spooled forms, in memory or on disk, and uploads on their way."""

import asyncio
from collections.abc import AsyncIterable, Iterable
from contextlib import aclosing
from typing import Any

import pytest

from chat_api import spool
from chat_api.errors import BodyTooLarge, ClientGone
from chat_api.multipart import FieldFinder
from chat_api.spool import MAX_MEMORY_BYTES, PIECE_BYTES, Form, RenamedForm, Upload

HEAD = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
FILE = b'\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'


def form_of(size: int, model: bytes = b"asked") -> bytes:
    """A form with a file of that many bytes, no two stretches of which are alike."""
    content = b"".join(b"%08d" % number for number in range(size // 8 + 1))[:size]
    return HEAD + model + FILE + content + b"\r\n--b--\r\n"


async def spooled(raw: bytes, piece: int = 100_000) -> Form:
    """A form that came in pieces of that size."""
    form = Form(FieldFinder(b"b", b"model"))
    for start in range(0, len(raw), piece):
        await form.write(raw[start : start + piece])
    return form


async def read(body: AsyncIterable[bytes]) -> list[bytes]:
    """All pieces of a body."""
    return [piece async for piece in body]


SIZES = [
    pytest.param(0, id="empty-file"),
    pytest.param(1000, id="small"),
    pytest.param(PIECE_BYTES, id="a-piece"),
    pytest.param(MAX_MEMORY_BYTES - len(form_of(0)), id="just-in-memory"),
    pytest.param(MAX_MEMORY_BYTES - len(form_of(0)) + 1, id="just-on-disk"),
    pytest.param(3 * MAX_MEMORY_BYTES + 7, id="on-disk"),
]


@pytest.mark.parametrize("size", SIZES)
def test_form(size: int) -> None:
    """A form comes out as it went in, in pieces of bounded size; beyond the limit it is on disk, not in memory."""
    raw = form_of(size)

    async def check() -> None:
        form = await spooled(raw)
        pieces = await read(form)
        assert b"".join(pieces) == raw
        assert max(map(len, pieces)) <= PIECE_BYTES
        assert (form.size, form.model) == (len(raw), b"asked")
        assert (form._file is not None, len(form._memory)) == (
            (True, 0) if len(raw) > MAX_MEMORY_BYTES else (False, len(raw))
        )
        await form.aclose()

    asyncio.run(check())


@pytest.mark.parametrize("name", ["d", "asked", "a much longer name, ü", ""], ids=["shorter", "same", "longer", "none"])
@pytest.mark.parametrize("size", SIZES)
def test_renamed_form(size: int, name: str) -> None:
    """A form with another model is the same bytes but for the model's, and knows its length."""
    raw = form_of(size)

    async def check() -> None:
        form = await spooled(raw)
        renamed = form.with_model(name)
        assert isinstance(renamed, RenamedForm)
        assert b"".join(await read(renamed)) == raw.replace(b"asked", name.encode(), 1)
        assert renamed.size == len(raw) - len(b"asked") + len(name.encode())
        again = renamed.with_model("x")
        assert b"".join(await read(again)) == raw.replace(b"asked", b"x", 1)
        assert again.size == len(raw) - 4
        assert b"".join(await read(form)) == raw
        await form.aclose()

    asyncio.run(check())


def test_model_behind_a_file_on_disk() -> None:
    """A model that stands behind a large file is found, and replaced there."""
    content = b"\r\n" * MAX_MEMORY_BYTES
    raw = FILE[2:] + content + b"\r\n" + HEAD + b"asked\r\n--b--\r\n"

    async def check() -> None:
        form = await spooled(raw)
        assert form.model == b"asked"
        assert b"".join(await read(form.with_model("d"))) == raw.replace(b"asked", b"d")
        await form.aclose()

    asyncio.run(check())


def test_form_without_model() -> None:
    """A form without the field keeps what it has."""

    async def check() -> None:
        form = await spooled(FILE[2:] + b"x\r\n--b--\r\n")
        assert form.model is None
        assert form.with_model("d") is form

    asyncio.run(check())


def test_closed_form() -> None:
    """A closed form gives back its memory and its file."""

    async def check() -> None:
        small, large = await spooled(form_of(10)), await spooled(form_of(2 * MAX_MEMORY_BYTES))
        file = large._file
        await small.aclose()
        await large.aclose()
        assert small._memory == b""
        assert file is not None
        assert file.closed

    asyncio.run(check())


def test_two_readers_in_memory() -> None:
    """Two readers of a form in memory, a piece in turn, both read all of it."""
    raw = form_of(5 * PIECE_BYTES)

    async def check() -> None:
        form = await spooled(raw)
        first, second = form.__aiter__(), form.with_model("d").__aiter__()
        pieces: tuple[list[bytes], list[bytes]] = ([], [])
        for _ in range(10):
            pieces[0].append(await anext(first, b""))
            pieces[1].append(await anext(second, b""))
        assert b"".join(pieces[0]) == raw
        assert b"".join(pieces[1]) == raw.replace(b"asked", b"d", 1)

    asyncio.run(check())


def test_two_readers_on_disk_in_turn() -> None:
    """Two readers of a form on disk, a piece in turn, both read all of it."""
    raw = form_of(MAX_MEMORY_BYTES + 1)

    async def check() -> None:
        form = await spooled(raw)
        first, second = form.pieces(0, form.size), form.pieces(0, form.size)
        pieces: tuple[list[bytes], list[bytes]] = ([], [])
        for _ in range(form.size // PIECE_BYTES + 2):
            pieces[0].append(await anext(first, b""))
            pieces[1].append(await anext(second, b""))
        assert b"".join(pieces[0]) == b"".join(pieces[1]) == raw
        await form.aclose()

    asyncio.run(check())


def test_two_readers_on_disk_at_once() -> None:
    """Readers of a form on disk that read at the same time each get what they asked for."""
    raw = form_of(3 * MAX_MEMORY_BYTES)

    async def check() -> None:
        form = await spooled(raw)
        spans = [(start, len(raw) - start) for start in range(0, 1000, 100)]
        read_ = await asyncio.gather(*(read(form.pieces(start, end)) for start, end in spans))
        assert [b"".join(pieces) for pieces in read_] == [raw[start:end] for start, end in spans]
        await form.aclose()

    asyncio.run(check())


def receive_of(messages: Iterable[dict[str, Any]]) -> spool.Receive:
    """An ASGI receive that gives these messages, and then waits for ever."""
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    return receive


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    """A part of a request's body."""
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param([part(b"ab"), part(b"cd", more=False)], [b"ab", b"cd"], id="parts"),
        pytest.param([part(b"ab"), part(b""), part(b"", more=False)], [b"ab"], id="empty-parts-are-no-end"),
        pytest.param([{"type": "http.request"}], [], id="nothing"),
        pytest.param([part(b"0123456789", more=False)], [b"0123456789"], id="as-large-as-allowed"),
    ],
)
def test_upload(messages: list[dict[str, Any]], expected: list[bytes]) -> None:
    """An upload goes on in the parts it comes in; what comes from the client next is left to who listens."""

    async def check() -> None:
        upload = Upload(receive_of([*messages, GONE]), None, 10)
        listener = asyncio.create_task(upload.after())
        assert await read(upload) == expected
        assert await listener == GONE

    asyncio.run(check())


def test_upload_keeps_its_size_and_model() -> None:
    """An upload knows what the client said its length is, and has no model to change."""
    upload = Upload(receive_of([]), 7, 10)
    assert upload.size == 7
    assert upload.with_model("d") is upload


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        pytest.param([part(b"ab"), GONE], ClientGone, id="client-gone"),
        pytest.param([part(b"01234"), part(b"5678901")], BodyTooLarge, id="too-large"),
        pytest.param([part(b"01234567890", more=False)], BodyTooLarge, id="too-large-at-once"),
    ],
)
def test_broken_upload(messages: list[dict[str, Any]], error: type[Exception]) -> None:
    """An upload that ends early or never ends is an error, and whoever waits for its end need not wait on."""

    async def check() -> None:
        upload = Upload(receive_of([*messages, GONE]), None, 10)
        with pytest.raises(error):
            await read(upload)
        assert await upload.after() == GONE

    asyncio.run(check())


def test_nobody_listens_before() -> None:
    """While an upload is under way nobody else takes its messages."""

    async def check() -> None:
        upload = Upload(receive_of([part(b"ab"), part(b"cd", more=False), GONE]), None, 10)
        listener = asyncio.create_task(upload.after())
        async with aclosing(upload.__aiter__()) as pieces:  # type: ignore[type-var]
            assert await anext(pieces) == b"ab"
            await asyncio.sleep(0)
            assert not listener.done()
            assert await anext(pieces) == b"cd"
        assert await listener == GONE

    asyncio.run(check())


def test_abandoned_upload() -> None:
    """An upload that is not read to its end lets go of the client."""

    async def check() -> None:
        upload = Upload(receive_of([part(b"ab"), GONE]), None, 10)
        async with aclosing(upload.__aiter__()) as pieces:  # type: ignore[type-var]
            await anext(pieces)
        assert await upload.after() == GONE

    asyncio.run(check())
