"""The folder of kept answers: made for its owner only, and looked at before anything is read of it."""

import contextlib
import os
from pathlib import Path

import lmdb

from chat_api.stores.cache_tables import Tables

SETTING = "CACHE_URL"
MAX_READERS = 1024  # processes, of which each has one or two at a time
SPARE_SHARE = 4
_FILE = "data.mdb"


class CacheFailed(Exception):
    """A folder cannot be used; the message names it, and the setting."""


def open_tables(folder: Path, max_bytes: int) -> Tables:
    """The tables in a folder, which is made if need be. It waits for its turn with other processes that write.

    Raises:
        CacheFailed: it cannot be used, or holds something else; it is left as it is.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (_FILE, "lock.mdb"):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                (folder / name).chmod(0o600)
        environment = _opened(folder, max_bytes)
    except OSError as error:
        raise CacheFailed(f"{folder} ({SETTING}) cannot be used: {error.strerror or error}") from None
    except lmdb.Error as error:
        raise _unusable(folder, error) from None
    try:
        environment.reader_check()  # what processes that were killed have left behind
        _fill_up(environment, folder / _FILE)
        return Tables(environment, max_bytes)
    except (lmdb.Error, OSError) as error:
        environment.close()
        raise _unusable(folder, error) from None


def _opened(folder: Path, max_bytes: int) -> lmdb.Environment:
    file = folder / _FILE
    length = file.stat().st_size if file.exists() else 0
    return lmdb.open(
        str(folder),
        # One that was allowed to be longer needs room to become emptier; its file stays as it is.
        map_size=max_bytes if length <= max_bytes else length + length // SPARE_SHARE,
        mode=0o600,
        max_dbs=3,
        max_readers=MAX_READERS,
        max_spare_txns=2,
        metasync=False,  # at worst the last transaction is lost, when the power fails
        readahead=False,  # of answers that have nothing to do with each other
    )


def _fill_up(environment: lmdb.Environment, file: Path) -> None:
    """Have the file as long as it says that it is: to read beyond the end of one that was cut would end the process.

    What was cut off then reads as nothing, which LMDB tells, or the checksum of a record.
    """
    with environment.begin(write=True):  # nobody else writes now
        said = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if file.stat().st_size < said:
            os.truncate(file, said)


def _unusable(folder: Path, error: Exception) -> CacheFailed:
    left = "it is left as it is: move it away, or name another"
    return CacheFailed(f"{folder} ({SETTING}) is broken, or something else than kept answers ({error}); {left}")
