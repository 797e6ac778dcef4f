"""The tables of kept answers in LMDB, and who has to go for whom. Whoever writes waits for other processes that do.

There are three: `answers` by their keys, each after the number under which it was stored and its end; `ages`, the keys
by that number; `ends`, the keys by their end.
"""

from collections.abc import Iterator, Mapping

import lmdb

from chat_api.stores.cache_record import FORM

LARGEST_SHARE = 32  # an answer, or what is written at a time, takes at most such a part of the file
KEPT_SHARE = 3 / 4  # of the file's pages; the others are those that a transaction needs, and that are being let go
TRIES = 4  # what a transaction lets go of can be used by the one after the next
EXPIRED_AT_A_TIME = 500
HARD_SHARE = 8  # such a part of what is kept goes where there is no room although there should be
NUMBER = 8  # bytes of a number
_HEAD = 2 * NUMBER  # before a record: its number, and its end in milliseconds
_VERSION = FORM.strip()  # another form has tables of its own
_NAMES = (b"answers ", b"ages ", b"ends ")


class Tables:
    """Three tables of an environment.

    Args:
        environment: what they are in.
        max_bytes: how long its file may get.

    Attributes:
        expired: how many were let go because they had.
        evicted: how many were let go because there was no room.

    Raises:
        lmdb.Error: they cannot be opened, or there are others.
    """

    def __init__(self, environment: lmdb.Environment, max_bytes: int) -> None:
        self._environment = environment
        self._page = environment.stat()["psize"]
        self._max_pages = int(max_bytes / self._page * KEPT_SHARE)
        _check_names(environment)
        with environment.begin(write=True) as transaction:  # which lets other threads run while it waits for its turn
            self._answers, self._ages, self._ends = (
                environment.open_db(name + _VERSION, transaction) for name in _NAMES
            )
        self.expired = self.evicted = 0

    def reading(self) -> "lmdb.Transaction[memoryview]":
        """A transaction to read in, which waits for nobody.

        Raises:
            lmdb.Error: there can be none.
        """
        return self._environment.begin(buffers=True)

    def close(self) -> None:
        """Let go of the file."""
        self._environment.close()

    def record(self, transaction: "lmdb.Transaction[memoryview]", key: bytes) -> memoryview | None:
        """The record under a key, which is there as long as the transaction is."""
        there = transaction.get(key, db=self._answers)
        return None if there is None else there[_HEAD:]

    def write(self, records: Mapping[bytes, tuple[bytes, float]], now: float) -> None:
        """Store records by their keys, each with its end, in one transaction; before it make what room they need.

        Raises:
            lmdb.Error: none of them is stored.
        """
        for last in range(TRIES):
            try:
                with self._environment.begin(write=True) as transaction:
                    self._make_room(transaction, records, now)
                    number = self._next_number(transaction)
                    for key, (record, expires) in records.items():
                        self._store(transaction, key, number, int(expires * 1000), record)
                        number += 1
                return
            except lmdb.MapFullError:
                if last == TRIES - 1:
                    raise
                self._make_room_hard()

    def _store(self, transaction: "lmdb.Transaction[bytes]", key: bytes, number: int, end: int, record: bytes) -> None:
        self._forget(transaction, key)
        age, until = number.to_bytes(NUMBER, "big"), max(end, 0).to_bytes(NUMBER, "big")
        transaction.put(key, age + until + record, db=self._answers)
        transaction.put(age, key, db=self._ages, append=True)
        transaction.put(until + age, key, db=self._ends)

    def _forget(self, transaction: "lmdb.Transaction[bytes]", key: bytes) -> bool:
        there = transaction.get(key, db=self._answers)
        if there is None:
            return False
        age, until = there[:NUMBER], there[NUMBER:_HEAD]
        transaction.delete(key, db=self._answers)
        transaction.delete(age, db=self._ages)
        transaction.delete(until + age, db=self._ends)
        return True

    def _next_number(self, transaction: "lmdb.Transaction[bytes]") -> int:
        with transaction.cursor(db=self._ages) as cursor:
            return int.from_bytes(cursor.key(), "big") + 1 if cursor.last() else 1

    def _make_room(
        self, transaction: "lmdb.Transaction[bytes]", records: Mapping[bytes, tuple[bytes, float]], now: float
    ) -> None:
        """Let go of those that have expired, then of the oldest."""
        needed = sum(len(record) // self._page + 2 for record, _ in records.values())
        end = int(now * 1000).to_bytes(NUMBER, "big")
        for until, key in self._first(transaction, self._ends, EXPIRED_AT_A_TIME):
            if until[:NUMBER] > end:
                break
            self._let_go(transaction, self._ends, until, key)
            self.expired += 1
        while self._used(transaction)[1] + needed > self._max_pages and (oldest := self._oldest(transaction)):
            self._let_go(transaction, self._ages, *oldest)
            self.evicted += 1

    def _oldest(self, transaction: "lmdb.Transaction[bytes]") -> tuple[bytes, bytes] | None:
        return next(self._first(transaction, self._ages, 1), None)

    def _first(
        self, transaction: "lmdb.Transaction[bytes]", table: "lmdb._Database", count: int
    ) -> Iterator[tuple[bytes, bytes]]:
        """The first entries of a table, each looked for when it is asked for, since the one before it may be gone."""
        for _ in range(count):
            with transaction.cursor(db=table) as cursor:
                if not cursor.first():
                    return
                entry = cursor.item()
            yield entry

    def _let_go(
        self, transaction: "lmdb.Transaction[bytes]", table: "lmdb._Database", place: bytes, key: bytes
    ) -> None:
        self._forget(transaction, key)
        transaction.delete(place, db=table)  # also where it leads nowhere

    def _make_room_hard(self) -> None:
        """There are pages enough, but not where they are needed, or a reader that died has kept them."""
        self._environment.reader_check()
        with self._environment.begin(write=True) as transaction:
            for _ in range(self._used(transaction)[0] // HARD_SHARE + 1):
                if oldest := self._oldest(transaction):
                    self._let_go(transaction, self._ages, *oldest)
                    self.evicted += 1

    def _used(self, transaction: "lmdb.Transaction[bytes]") -> tuple[int, int]:
        """How many answers there are, and how many pages all of it takes."""
        pages = 0
        for table in (self._ages, self._ends, self._answers):
            there = transaction.stat(db=table)
            pages += there["branch_pages"] + there["leaf_pages"] + there["overflow_pages"]
        return there["entries"], pages

    def amounts(self) -> tuple[int, int]:
        """How many answers there are, and how many bytes they take.

        Raises:
            lmdb.Error: it cannot be said.
        """
        with self._environment.begin() as transaction:
            entries, pages = self._used(transaction)
        return entries, pages * self._page


def _check_names(environment: lmdb.Environment) -> None:
    """See whether there is nothing else.

    Raises:
        lmdb.Error: there is.
    """
    with environment.begin() as transaction, transaction.cursor() as cursor:
        for name in cursor.iternext(values=False):
            if not bytes(name).startswith(_NAMES):
                raise lmdb.InvalidError("it has tables of others")
