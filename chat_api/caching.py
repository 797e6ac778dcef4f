"""Answers that are kept to be given again, and the protocol of who keeps them."""

import math
from collections.abc import Awaitable, Mapping
from typing import NamedTuple, Protocol

from msgspec import Struct


class Wish(NamedTuple):
    """What a caller asks of answers that are kept."""

    max_age_seconds: float = math.inf  # how old one may be
    may_be_kept: bool = True  # the one that he gets


class Kept(Struct, frozen=True, array_like=True):
    """A whole answer as it is kept."""

    body: bytes  # as the upstream gave it: JSON, or all events of a stream, `[DONE]` included
    is_stream: bool
    headers: tuple[tuple[bytes, bytes], ...]  # of the upstream's, those that callers get again
    deployment: str  # the label of who answered
    stored: float  # when, in seconds since 1970
    expires: float  # when it is not given any more, in seconds since 1970


class Source(Protocol):
    """Where a reply is from that no upstream was asked for."""

    @property
    def name(self) -> str:
        """What it is called where usage is counted: "cache", "shared"."""
        ...

    @property
    def is_free(self) -> bool:
        """Whether somebody else has been counted for it; asked when it has ended."""
        ...


class CacheStore(Protocol):
    """Keeps answers, up to a bound in bytes, for one process or for several."""

    def get(self, key: bytes) -> Kept | Awaitable[Kept | None] | None:
        """What is kept under a key (32 bytes); None if nothing is, or it has expired, or nobody can say.

        Neither this nor the awaitable raises: a store that fails is a miss, counted and logged once.
        """
        ...

    def put(self, key: bytes, kept: Kept) -> None:
        """Keep an answer. Neither waits nor raises: what cannot be kept is counted."""
        ...

    def state(self) -> Mapping[str, object]:
        """What operators are told of it: its kind, how many answers and bytes, failures, whether it is up."""
        ...

    async def aclose(self) -> None:
        """Write what is still to be written, and let go of every file and connection."""
        ...
