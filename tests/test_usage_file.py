import asyncio
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api.counting import Amounts, Used
from chat_api.errors import StoreDown
from chat_api.stores import usage_file
from chat_api.stores.usage_file import SHRUNK_ROWS, UsageFile
from chat_api.tally import OTHER, merge, printed, total
from tests.processes import ROOT

DAY = "2026-11-21"
ALICE = Used(DAY, "alice", "gpt-4o", "gpt-4o@east")
ONE = {ALICE: Amounts(1, 2, 3, 4, 5, 6)}
# Counts one call after the other in the file, and says so after each.
WRITER = f"""
import asyncio, sys
from pathlib import Path
from chat_api.counting import Amounts, Used
from chat_api.stores.usage_file import UsageFile

async def main(path, key, times):
    file = UsageFile(Path(path))
    for number in range(int(times)):
        await file.add({{Used("{DAY}", key, "m", "d"): Amounts(1, 10)}})
        print(number + 1, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def add(path: Path, rows: dict[Used, Amounts]) -> None:
    """Count these in the file."""
    asyncio.run(UsageFile(path).add(rows))


def read(path: Path, since: str = "0001-01-01", until: str = "9999-12-31") -> dict[Used, Amounts]:
    """What is in the file."""
    return asyncio.run(UsageFile(path).read(since, until))


def writer(path: Path, key: str, times: int) -> subprocess.Popen[str]:
    """A process that counts so many calls."""
    command = [sys.executable, "-c", WRITER, str(path), key, str(times)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is to be."""
    return tmp_path / "usage.json"


def test_what_was_added_is_read(path: Path) -> None:
    """Row by row, over any number of writes; only the days that are asked for, both ends included."""
    other = Used("2026-11-22", "bob", "größer \N{SNOWMAN}", "")
    assert read(path) == {}
    add(path, ONE)
    add(path, {**ONE, other: Amounts(7)})

    assert read(path) == {ALICE: Amounts(2, 4, 6, 8, 10, 12), other: Amounts(7)}
    assert set(read(path, DAY, DAY)) == {ALICE}
    assert set(read(path, "2026-11-22", "2026-11-22")) == {other}
    assert read(path, "2026-11-23", "2026-11-30") == {}


def test_what_stands_in_it(path: Path) -> None:
    """It is JSON with a line for each day, so that a person can read it and a program compare it."""
    add(path, {**ONE, Used("2026-11-20", "bob", "m", "d"): Amounts(1)})

    assert path.read_text() == (
        '{"chat_api_usage":1,"days":{\n'
        '"2026-11-20":[["bob","m","d",1,0,0,0,0,0]],\n'
        '"2026-11-21":[["alice","gpt-4o","gpt-4o@east",1,2,3,4,5,6]]\n'
        "}}\n"
    )
    assert json.loads(path.read_text())["chat_api_usage"] == 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.builds(Used, st.sampled_from([DAY, "2026-11-22"]), *[st.text(max_size=5).map(printed)] * 3),
            st.builds(Amounts, *[st.integers(0, 2**63)] * 6),
            max_size=4,
        ),
        max_size=3,
    )
)
def test_any_rows_come_back(tmp_path_factory: pytest.TempPathFactory, parts: list[dict[Used, Amounts]]) -> None:
    """Whatever the names are, and however they were written, the sums are what was added."""
    path = tmp_path_factory.mktemp("any") / "usage.json"
    expected: dict[Used, Amounts] = {}
    for rows in parts:
        add(path, rows)
        merge(expected, rows)

    assert read(path) == expected


def test_nobody_else_may_read_it(path: Path) -> None:
    """Neither the file nor what is beside it, whatever the umask is; and nothing else is left there."""
    before = os.umask(0)
    try:
        Path(f"{path}.tmp").write_text("of a process that was killed")
        add(path, ONE)
        add(path, ONE)
    finally:
        os.umask(before)

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"usage.json": 0o600, "usage.json.lock": 0o600}


def test_a_link_stays_one(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The file may be elsewhere: that one is written, and the link left as it is."""
    real = tmp_path_factory.mktemp("elsewhere") / "real.json"
    path.symlink_to(real)
    add(path, ONE)
    add(path, ONE)

    assert path.is_symlink()
    assert read(real) == read(path) == {ALICE: Amounts(2, 4, 6, 8, 10, 12)}


WHOLE = b'{"chat_api_usage":1,"days":{\n"2026-11-21":[["alice","gpt-4o","gpt-4o@east",1,2,3,4,5,6]]\n}}\n'


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(WHOLE[:-20], id="torn"),
        pytest.param(WHOLE[: len(WHOLE) // 2], id="half"),
        pytest.param(WHOLE + WHOLE, id="twice"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(b"KEY=secret\n", id="another-file"),
        pytest.param(b"{}", id="other-json"),
        pytest.param(b'{"chat_api_usage":2,"days":{}}', id="a-later-version"),
        pytest.param(b'{"chat_api_usage":1,"days":{"yesterday":[]}}', id="no-day"),
        pytest.param(WHOLE.replace(b",6]", b"]"), id="a-number-missing"),
        pytest.param(WHOLE.replace(b",6]", b",6,7]"), id="a-number-too-many"),
        pytest.param(WHOLE.replace(b",6]", b",-6]"), id="less-than-nothing"),
        pytest.param(WHOLE.replace(b"alice", b"al\xffce"), id="no-utf-8"),
    ],
)
def test_what_is_no_usage_is_left_as_it_is(path: Path, content: bytes) -> None:
    """A file that is torn, or another's, is neither read nor written; the error names it and the setting."""
    path.write_bytes(content)
    for attempt in (lambda: add(path, ONE), lambda: read(path)):
        with pytest.raises(StoreDown, match=r"usage\.json \(USAGE_FILE\) is broken, or something else") as raised:
            attempt()
        assert "secret" not in str(raised.value)

    assert path.read_bytes() == content


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    """Somebody may have made it beforehand; there is nothing in it to lose."""
    path.touch()
    add(path, ONE)

    assert read(path) == ONE


@pytest.mark.parametrize(
    ("make", "why"),
    [
        pytest.param(lambda path: path.mkdir(), "broken, or something else", id="folder"),
        pytest.param(lambda path: os.mkfifo(path), "broken, or something else", id="pipe"),
        pytest.param(lambda path: path.symlink_to(path), "symbolic links", id="loop"),
        pytest.param(lambda path: path.symlink_to(path.parent / "none" / "file"), "No such file", id="no-folder"),
        pytest.param(lambda path: path.with_name("usage.json.lock").mkdir(), "cannot be written", id="no-lock"),
    ],
)
def test_what_cannot_be_written_is_told(path: Path, make, why: str) -> None:  # type: ignore[no-untyped-def]
    """With the path, the setting and the system's reason; a pipe or a device is never replaced."""
    make(path)
    before = sorted(path.parent.iterdir())
    with pytest.raises(StoreDown, match=why) as raised:
        add(path, ONE)

    assert f"{path} (USAGE_FILE)" in str(raised.value)
    assert [file for file in sorted(path.parent.iterdir()) if file.suffix != ".lock"] == [
        file for file in before if file.suffix != ".lock"
    ]


def test_a_folder_that_cannot_be_written_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one that is somebody else's; root may write everywhere, so the system's answer is made up here."""

    def refused(file: str, *_: int) -> int:
        raise PermissionError(13, "Permission denied", file)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(StoreDown) as raised:
        add(path, ONE)

    assert raised.value.message == f"{path} (USAGE_FILE) cannot be written: Permission denied ({path}.lock)"


def test_a_full_disk_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written was not counted; the next write does."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    add(path, ONE)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreDown, match=r"cannot be written: No space left on device"):
            add(path, ONE)
    assert read(path) == ONE
    add(path, ONE)

    assert read(path)[ALICE].requests == 2


def test_a_process_that_holds_the_lock_is_not_waited_for_for_ever(path: Path) -> None:
    """One that was stopped in the midst of it: nothing is counted, and it is told; once it is gone all is well."""
    with Path(f"{path}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreDown, match=r"another process has had the lock for 0\.02 s"):
            asyncio.run(UsageFile(path, lock_seconds=0.02).add(ONE))
        assert not path.exists()
    add(path, ONE)

    assert read(path) == ONE


def test_threads_of_one_process_lose_nothing(path: Path) -> None:
    """Where files cannot be locked (Windows) it is still right for one process."""

    async def together() -> None:
        file = UsageFile(path)
        await asyncio.gather(*(file.add(ONE) for _ in range(20)))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(usage_file, "fcntl", None)
        asyncio.run(together())

    assert read(path)[ALICE].requests == 20
    assert not Path(f"{path}.lock").exists()


def test_several_processes_lose_nothing(path: Path) -> None:
    """Four of them count at the same time; in the end every call is in the file, once."""
    writers = [writer(path, f"key-{number}", 25) for number in range(3)] + [writer(path, "key-0", 25)]
    for one in writers:
        one.communicate(timeout=30)

    assert [one.returncode for one in writers] == [0, 0, 0, 0]
    assert {used.key: row.requests for used, row in read(path).items()} == {"key-0": 50, "key-1": 25, "key-2": 25}


def test_a_kill_at_any_moment_leaves_a_whole_file(path: Path) -> None:
    """Killed while it writes again and again: what it had said was counted is there, and the next one goes on."""
    said = 0
    for times in (1, 2, 3, 5, 8, 13):
        with writer(path, "alice", 100_000) as one:
            assert one.stdout is not None
            lines = [one.stdout.readline() for _ in range(times)]
            one.send_signal(signal.SIGKILL)
            lines += one.stdout.readlines()
        said += len([line for line in lines if line.endswith("\n")])
        rows = read(path)
        counted = total(rows.values())
        assert list(rows) == [Used(DAY, "alice", "m", "d")]
        assert counted.requests in (said, said + 1)  # it may have counted one that it did not come to say
        assert counted.prompt == 10 * counted.requests
        said = counted.requests


def test_old_days_are_dropped_and_large_ones_shrunk(path: Path) -> None:
    """The latest 400 days are kept; of those that are over the largest rows, and the sum of the others."""
    days = [f"{year}-{month:02}-{day:02}" for year in (2024, 2025) for month in range(1, 13) for day in range(1, 29)]
    made_up = {Used(days[0], "k", f"m-{number}", "d"): Amounts(1, number) for number in range(SHRUNK_ROWS + 500)}
    add(path, made_up)
    add(path, {Used(day, "k", "m", "d"): Amounts(1) for day in days[1:400]})
    rows = read(path)
    first = {used: row for used, row in rows.items() if used.day == days[0]}
    add(path, {Used(days[400], "k", "m", "d"): Amounts(1)})

    assert len({used.day for used in rows}) == 400
    assert len(first) == SHRUNK_ROWS + 1
    assert first[Used(days[0], "k", OTHER, "d")].requests == 500
    assert total(first.values()) == total(made_up.values())
    assert sorted({used.day for used in read(path)}) == days[1:401]


def test_a_day_that_is_read_again_and_again_stays_small(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many processes bring made-up names, a day has so many rows and no more."""
    monkeypatch.setattr(usage_file, "MAX_ROWS", 10)
    for number in range(10):
        add(path, {Used(DAY, f"k-{number}", f"m-{number}-{one}", f"d-{one}"): Amounts(1) for one in range(20)})

    assert total(read(path).values()).requests == 200
    assert len(read(path)) <= 31
