"""Client keys as they are configured, and what callers are called where they are counted."""

import hashlib

from chat_api.callers import ClientKey, by_address, by_key, digest_of, unnamed_key

KEY = "sk-client-0123456789"


def test_digest() -> None:
    """A key is known by the SHA-256 of its UTF-8, as `sha256sum` gives it."""
    assert digest_of("abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of("clé") == hashlib.sha256(b"cl\xc3\xa9").digest()


def test_unnamed_key() -> None:
    """A key without a name is called after its digest, another one for each key, and repeats nothing of the key."""
    one, other = unnamed_key(KEY), unnamed_key(KEY + "0")
    assert one == ClientKey(f"key-{digest_of(KEY).hex()[:8]}", digest_of(KEY))
    assert one.name != other.name
    assert KEY not in repr(one)


def test_repr() -> None:
    """Not even the digest of a key is in what a program may print of it."""
    key = ClientKey("alice", digest_of(KEY))
    assert "alice" in repr(key)
    for text in (repr(key), repr(by_key(key))):
        assert "digest" not in text
        assert repr(digest_of(KEY)) not in text


def test_nothing_is_left_out() -> None:
    """A key that says only its name and digest leaves everything to the settings."""
    key = ClientKey("alice", digest_of(KEY))
    assert (key.models, key.requests, dict(key.tokens), key.max_parallel) == (None, None, {}, None)
    assert (key.expires, key.networks, key.budget) == (None, (), None)


def test_keys_can_be_told_apart_in_sets() -> None:
    """A key with limits by model can stand in a set, as its mapping takes no part in that."""
    assert len({ClientKey("a", b"1", tokens={"m": ()}), ClientKey("a", b"1", tokens={"m": ()})}) == 1


def test_subjects_never_meet() -> None:
    """A key that is called as an address is, or as a model is, is counted apart from both."""
    key = by_key(ClientKey("127.0.0.1", b""))
    address = by_address("127.0.0.1")
    assert (key.name, address.name) == ("127.0.0.1", "127.0.0.1")
    assert key.subject != address.subject
    assert key.key is not None
    assert address.key is None


def test_unknown_address() -> None:
    """Callers whose address is not known are one caller."""
    assert by_address("") == by_address("-")
    assert (by_address("").name, by_address("").subject) == ("-", "address -")
