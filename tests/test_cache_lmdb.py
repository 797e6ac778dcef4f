"""Kept answers on disk: who may read them, several processes, processes that are killed, and files that are broken."""

import asyncio
import contextlib
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import lmdb
import pytest

from chat_api.stores import cache_lmdb
from chat_api.stores.cache_folder import open_tables
from chat_api.stores.cache_lmdb import LmdbCache
from chat_api.stores.cache_record import written
from tests.caches import MAX_BYTES, NOW, Place, answer, got, key_of
from tests.processes import ROOT
from tests.servers import eventually

KILLS = 8
SIZE = 9000  # of an answer: three pages
BATCH = 10

# Stores batch after batch, and says the last number of each once it is stored.
WRITER = f"""
import os, sys
from pathlib import Path
from chat_api.stores.cache_folder import open_tables
from chat_api.stores.cache_record import written
from tests.caches import NOW, answer, key_of
tables = open_tables(Path(sys.argv[1]), int(sys.argv[3]))
number = int(sys.argv[2])
while True:
    numbers = range(number, number + {BATCH})
    tables.write({{key_of(one): (written(answer(one, {SIZE})), answer(one).expires) for one in numbers}}, NOW)
    number += {BATCH}
    os.write(1, b"%d\\n" % number)
"""
# Keeps so many answers from a number on, as a server does.
KEEPER = """
import asyncio, sys
from pathlib import Path
from tests.caches import Place, answer, key_of
async def main():
    async with Place("lmdb", Path(sys.argv[1])).opened() as cache:
        for number in range(int(sys.argv[2]), int(sys.argv[2]) + 50):
            cache.put(key_of(number), answer(number))
asyncio.run(main())
"""
# Takes the lock of those who write, and keeps it.
HOLDER = """
import sys
import lmdb
with lmdb.open(sys.argv[1], max_dbs=3, map_size=1048576, mode=0o600).begin(write=True):
    print("held", flush=True)
    sys.stdin.read()
"""
# A reader that never ends.
READER = HOLDER.replace("write=True", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where answers are kept."""
    return tmp_path / "cache"


@contextlib.contextmanager
def running(program: str, *arguments: object) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A process, and what it prints; killed at the end."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        yield process, process.stdout
    finally:
        process.kill()
        process.communicate()


async def written_down(cache: LmdbCache) -> None:
    """Wait until nothing is on its way to the disk."""
    assert await asyncio.to_thread(eventually, lambda: not cache.state()["waiting"], 20)


def test_only_its_owner_can_read_it(folder: Path) -> None:
    """What was said stands there: the folder and the files are the owner's alone, also where they were not before."""

    async def main() -> None:
        async with Place("lmdb", folder).opened() as cache:
            cache.put(key_of(1), answer(1))

    asyncio.run(main())
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == {
        "data.mdb": 0o600,
        "lock.mdb": 0o600,
    }
    (folder / "data.mdb").chmod(0o644)
    asyncio.run(main())
    assert (folder / "data.mdb").stat().st_mode & 0o777 == 0o600


def test_killed_while_writing(folder: Path) -> None:
    """After kill -9 it opens again, all that was stored is whole, and what was being stored is there or is not."""
    rng = random.Random(7)
    stored = 0
    for _ in range(KILLS):
        with running(WRITER, folder, stored, 64 * MAX_BYTES) as (_, out):
            for _ in range(rng.randrange(1, 12)):
                stored = int(out.readline())
            if rng.random() < 0.5:
                os.set_blocking(out.fileno(), False)
                while not (out.read() or b"").endswith(b"\n"):  # in the midst of the next one
                    pass
        found = asyncio.run(whole(folder, stored + 200 * BATCH))
        assert found >= stored
        assert found % BATCH == 0  # a transaction is there or is not
        stored = found


async def whole(folder: Path, until: int) -> int:
    """How many answers there are, from the first without a gap; none is another than it was."""
    async with Place("lmdb", folder).opened(64 * MAX_BYTES) as cache:
        found = 0
        for number in range(until):
            there = await got(cache, key_of(number))
            if there is not None:
                assert there == answer(number, SIZE)
                assert number == found
                found += 1
        assert cache.state()["answers"] == found
        return found


def test_several_processes(folder: Path) -> None:
    """Processes that keep answers at the same time lose none of each other's, and one that reads sees all of them."""

    async def main() -> None:
        async with Place("lmdb", folder).opened() as cache:
            with contextlib.ExitStack() as stack:
                keepers = [stack.enter_context(running(KEEPER, folder, 50 * nth))[0] for nth in range(3)]
                for keeper in keepers:
                    assert await asyncio.to_thread(keeper.wait, 20) == 0
            for number in range(150):
                assert await got(cache, key_of(number)) == answer(number)

    asyncio.run(main())


def test_killed_with_the_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process has the lock nobody waits and nothing is lost; if it is killed, writing goes on."""
    monkeypatch.setattr(cache_lmdb, "MAX_WAITING_BYTES", 20_000)

    async def main() -> None:
        async with Place("lmdb", folder).opened() as cache:
            assert isinstance(cache, LmdbCache)
            with running(HOLDER, folder) as (_, out):
                assert await asyncio.to_thread(out.readline)
                for number in range(30):
                    cache.put(key_of(number), answer(number, 1000))
                    assert number > 0 or await got(cache, key_of(number)) == answer(number, 1000)
                state = cache.state()
                assert (state["waiting"], state["answers"]) == (30 - int(str(state["not_kept"])), 0)
                assert int(str(state["not_kept"])) > 0
            await written_down(cache)
            assert cache.state()["answers"] == state["waiting"]
            assert await got(cache, key_of(0)) == answer(0, 1000)

    asyncio.run(main())


def test_a_lock_that_is_never_given_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the start nor the end of a process waits for another's lock for long, nor does a call in between."""
    monkeypatch.setattr(cache_lmdb, "OPEN_SECONDS", 0.05)
    monkeypatch.setattr(cache_lmdb, "CLOSE_SECONDS", 0.05)
    folder.mkdir()

    async def main() -> None:
        with running(HOLDER, folder) as (_, out):
            assert await asyncio.to_thread(out.readline)
            async with Place("lmdb", folder).opened() as cache:
                assert isinstance(cache, LmdbCache)
                assert await got(cache, key_of(1)) is None
                cache.put(key_of(1), answer(1))
                assert await got(cache, key_of(1)) == answer(1)
                assert cache.state()["reason"] == "it waits for another process that writes"
        await asyncio.to_thread(cache._thread.join, 20)  # else it would be there in the next test

    asyncio.run(main())


def test_a_lock_that_is_given_back_late(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that could not be opened at the start is open as soon as it can be, and what came before is stored."""
    monkeypatch.setattr(cache_lmdb, "OPEN_SECONDS", 0.05)
    folder.mkdir()

    async def main() -> None:
        with contextlib.ExitStack() as stack:
            _, out = stack.enter_context(running(HOLDER, folder))
            assert await asyncio.to_thread(out.readline)
            async with Place("lmdb", folder).opened() as cache:
                assert isinstance(cache, LmdbCache)
                cache.put(key_of(1), answer(1))
                stack.close()
                await written_down(cache)
                assert (cache.state()["up"], cache.state()["answers"]) == (True, 1)

    asyncio.run(main())


def test_readers_that_were_killed(folder: Path) -> None:
    """What a reader that was killed had held fast is let go of: the room can be used again."""

    async def main() -> None:
        async with Place("lmdb", folder).opened() as cache:
            assert isinstance(cache, LmdbCache)
            for number in range(60):
                cache.put(key_of(number), answer(number, SIZE))
            await written_down(cache)
            with running(READER, folder) as (_, out):
                assert await asyncio.to_thread(out.readline)
            for number in range(100, 220):
                cache.put(key_of(number), answer(number, SIZE))
            await written_down(cache)
            assert cache.state()["failures"] == 0
            assert await got(cache, key_of(219)) == answer(219, SIZE)

    asyncio.run(main())


def test_a_reader_that_never_ends(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where somebody holds fast all that is let go of, there is no room: counted, logged once, and no call fails."""

    async def main() -> None:
        async with Place("lmdb", folder).opened() as cache:
            assert isinstance(cache, LmdbCache)
            with running(READER, folder) as (_, out):
                assert await asyncio.to_thread(out.readline)
                for number in range(160):
                    cache.put(key_of(number), answer(number, SIZE))
                    if number % 20 == 0:
                        await written_down(cache)
                await written_down(cache)
                state = cache.state()
                assert state["up"] is False
                assert int(str(state["not_kept"])) > 0
            cache.put(key_of(1000), answer(1000, SIZE))
            await written_down(cache)
            assert await got(cache, key_of(1000)) == answer(1000, SIZE)
            assert cache.state()["up"] is True

    asyncio.run(main())
    complaints = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(complaints) == 1
    assert complaints[0].startswith(f"the cache in {folder} (CACHE_URL) cannot be written: ")


def broken(folder: Path, change: Callable[[bytes], bytes]) -> None:
    """Keep answers in a folder, and change the file's content."""
    tables = open_tables(folder, MAX_BYTES)
    tables.write({key_of(number): (written(answer(number, 1000)), NOW + 10**6) for number in range(100)}, NOW)
    tables.close()
    (folder / "data.mdb").write_bytes(change((folder / "data.mdb").read_bytes()))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: b"not ours\n" * 10_000, id="text"),
        pytest.param(lambda data: bytes(len(data)), id="zeros"),
        pytest.param(lambda data: data[:100], id="head-only"),
        pytest.param(lambda data: data[:8192], id="cut-short"),
    ],
)
def test_a_broken_file(folder: Path, change: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture) -> None:
    """It is said which file and which setting, it is left as it is, and every call goes on without a cache."""
    broken(folder, change)

    async def main() -> None:
        async with Place("lmdb", folder).opened() as cache:
            assert await got(cache, key_of(1)) is None
            cache.put(key_of(1), answer(1))
            assert await got(cache, key_of(1)) is None
            state = cache.state()
            assert (state["kind"], state["up"], state["not_kept"], state["failures"]) == ("lmdb", False, 1, 1)

    asyncio.run(main())
    assert f"no answer is kept: {folder} (CACHE_URL) is broken, or something else than kept answers" in caplog.text


@pytest.mark.parametrize("part", [0.2, 0.5, 0.99])
def test_a_torn_file(folder: Path, part: float) -> None:
    """Of a file that was cut what is left is given as it was, or not at all; the process goes on."""
    broken(folder, lambda data: data[: int(len(data) * part)])

    async def main() -> None:
        async with Place("lmdb", folder).opened() as cache:
            found = [await got(cache, key_of(number)) for number in range(100)]
            assert all(there in (None, answer(number, 1000)) for number, there in enumerate(found))
            for number in range(100):
                cache.put(key_of(number), answer(number, 1000))

    asyncio.run(main())


def test_somebody_elses(folder: Path) -> None:
    """A folder in which another program keeps something else with LMDB is not written to."""
    folder.mkdir()
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"theirs", b"1")
    before = (folder / "data.mdb").read_bytes()

    async def main() -> None:
        async with Place("lmdb", folder).opened() as cache:
            assert cache.state()["up"] is False

    asyncio.run(main())
    assert (folder / "data.mdb").read_bytes() == before


def test_no_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where a file stands in the folder's place that is said."""
    (tmp_path / "file").touch()

    async def main() -> None:
        async with Place("lmdb", tmp_path / "file").opened() as cache:
            assert cache.state()["up"] is False

    asyncio.run(main())
    assert f"no answer is kept: {tmp_path / 'file'} (CACHE_URL) cannot be used: File exists" in caplog.text


def test_a_smaller_bound(folder: Path) -> None:
    """Who is given less room than before lets go of the oldest, and of what is left nothing is lost."""

    async def main() -> None:
        async with Place("lmdb", folder).opened(8 * MAX_BYTES) as cache:
            for number in range(400):
                cache.put(key_of(number), answer(number, SIZE))
        async with Place("lmdb", folder).opened() as cache:
            assert isinstance(cache, LmdbCache)
            cache.put(key_of(1000), answer(1000, SIZE))
            await written_down(cache)
            assert await got(cache, key_of(399)) == answer(399, SIZE)
            assert await got(cache, key_of(0)) is None
            assert int(str(cache.state()["bytes"])) <= MAX_BYTES

    asyncio.run(main())
