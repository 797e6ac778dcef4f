"""Who calls: client keys as they are configured, and the caller that a request turns out to be."""

import dataclasses
import hashlib
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chat_api.counting import Rate

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
KEY_PREFIX = "sk-chat-"
ANY_MODEL = "*"  # in `ClientKey.tokens`: what it takes of all models together


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A key that callers present, known by its digest; what it leaves out is what the settings say for every caller."""

    name: str  # what logs and usage call it
    digest: bytes = dataclasses.field(repr=False)  # SHA-256
    models: frozenset[str] | None = None  # that it is for; None for all
    requests: tuple[Rate, ...] | None = None  # over all routes
    # By model; ANY_MODEL for all of them together.
    tokens: Mapping[str, tuple[Rate, ...]] = dataclasses.field(default_factory=lambda: MappingProxyType({}), hash=False)
    max_parallel: int | None = None  # calls at a time
    expires: float | None = None  # seconds since 1970
    networks: tuple[Network, ...] = ()  # the addresses it is accepted from; none for any
    budget: int | None = None  # a calendar month's (UTC), in millionths of the currency
    log_chat: str | None = None  # whether its conversations are logged: "false", "true" or "meta"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request is from: whoever has a client key, or an address."""

    name: str  # of the key; the address without one
    subject: str  # what is counted for: no key is called as an address is
    key: ClientKey | None = None


def by_key(key: ClientKey) -> Caller:
    """The caller who presented a client key."""
    return Caller(key.name, f"key {key.name}", key)


def by_address(address: str) -> Caller:
    """A caller who has none."""
    return Caller(address or "-", f"address {address or '-'}")


def new_key() -> str:
    """A key that nobody can guess: 256 random bits behind `KEY_PREFIX`."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> bytes:
    """What is stored and compared instead of a key: its SHA-256."""
    return hashlib.sha256(key.encode()).digest()


def unnamed_key(key: str) -> ClientKey:
    """A key of CLIENT_KEYS, which has no name: it is called after its digest, so that its usage stays its own."""
    digest = digest_of(key)
    return ClientKey(f"key-{digest.hex()[:8]}", digest)
