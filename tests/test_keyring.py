"""Whose client key a credential is, and what it is for."""

from ipaddress import ip_network

import pytest

from chat_api.callers import ClientKey, Network, by_address, digest_of
from chat_api.errors import AuthError, Forbidden
from chat_api.keyring import Keyring, anonymous, check_model, is_within
from chat_api.types import Secret

NOW = 1_800_000_000.0  # 2027-01-15 08:00 UTC
ALICE = ClientKey("alice", digest_of("key-of-alice"))
BOB = ClientKey("bob", digest_of("key-of-bob"), expires=NOW, networks=(ip_network("10.0.0.0/8"),))
RING = Keyring([ALICE, BOB])


@pytest.mark.parametrize(
    ("presented", "expected"),
    [
        pytest.param("key-of-alice", ALICE, id="first"),
        pytest.param("key-of-bob", BOB, id="last"),
        pytest.param("key-of-carol", None, id="unknown"),
        pytest.param("Key-of-alice", None, id="letters"),
        pytest.param("key-of-alic", None, id="beginning"),
        pytest.param("key-of-alice ", None, id="more"),
        pytest.param(digest_of("key-of-alice").hex(), None, id="digest"),
        pytest.param("alice", None, id="name"),
        pytest.param("", None, id="empty"),
        pytest.param("\xe9\x00", None, id="odd"),
        pytest.param(None, None, id="none"),
    ],
)
def test_holder(presented: str | None, expected: ClientKey | None) -> None:
    """Who has a key is its caller; a name, a digest or a part of a key is none."""
    credential = None if presented is None else Secret(presented)
    caller = RING.holder(credential, "10.1.2.3", NOW - 1)
    assert (caller.key if caller else None) == expected


def test_holder_is_the_same() -> None:
    """The same key makes the same caller again, at no cost."""
    first = RING.holder(Secret("key-of-alice"), "", NOW)
    assert first is RING.holder(Secret("key-of-alice"), "", NOW)


@pytest.mark.parametrize(("seconds", "expired"), [(-0.001, False), (0, True), (1, True), (1e9, True)])
def test_expiry(seconds: float, expired: bool) -> None:
    """A key is accepted until the moment it expires; from then on its holder is told, by its name, and when."""
    if not expired:
        assert RING.holder(Secret("key-of-bob"), "10.0.0.1", NOW + seconds) is not None
        return
    with pytest.raises(AuthError, match=r"^the client key bob expired on 2027-01-15 08:00 UTC$") as caught:
        RING.holder(Secret("key-of-bob"), "10.0.0.1", NOW + seconds)
    assert (caught.value.status, caught.value.code) == (401, "expired_credential")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        pytest.param("10.255.255.255", None, id="within"),
        pytest.param("11.0.0.0", "the client key bob is not accepted from 11.0.0.0", id="outside"),
        pytest.param("", "the client key bob is not accepted from an unknown address", id="unknown"),
    ],
)
def test_networks(address: str, expected: str | None) -> None:
    """A key with networks is refused from anywhere else, and from where nobody knows."""
    if expected is None:
        assert RING.holder(Secret("key-of-bob"), address, NOW - 1) is not None
        return
    with pytest.raises(Forbidden) as caught:
        RING.holder(Secret("key-of-bob"), address, NOW - 1)
    assert (caught.value.message, caught.value.code, caught.value.status) == (expected, "ip_not_allowed", 403)


def test_expired_before_forbidden() -> None:
    """An expired key is a 401 from everywhere."""
    with pytest.raises(AuthError):
        RING.holder(Secret("key-of-bob"), "11.0.0.0", NOW)


def test_empty_ring() -> None:
    """Without client keys nobody has one, and nobody is asked for one."""
    assert not Keyring()
    assert Keyring().holder(Secret("key-of-alice"), "", NOW) is None
    assert RING


@pytest.mark.parametrize(
    ("credential", "code", "begins"),
    [
        pytest.param(None, "missing_credential", "no key; send one", id="nothing"),
        pytest.param(
            Secret("canary-key-0123"), "invalid_credential", "the key that was presented is not one", id="key"
        ),
    ],
)
def test_refusal(credential: Secret | None, code: str, begins: str) -> None:
    """Who has no key of ours is told how to present one; what he presented is not repeated."""
    error = RING.refusal(credential)
    assert (error.status, error.code) == (401, code)
    assert error.message.startswith(begins)
    assert "canary" not in error.message
    assert "Bearer" in error.message
    assert "api-key" in error.message


FOR_ONE = ClientKey("alice", b"", models=frozenset({"gpt-4o", "mini"}))


@pytest.mark.parametrize(
    ("models", "names", "operation"),
    [
        pytest.param(None, ["anything"], "chat/completions", id="all-models"),
        pytest.param(None, [], "files", id="no-model-and-all"),
        pytest.param(FOR_ONE.models, ["gpt-4o"], "chat/completions", id="listed"),
        pytest.param(FOR_ONE.models, ["mini"], "embeddings", id="another"),
        pytest.param(FOR_ONE.models, ["d-4o", "gpt-4o"], "chat/completions", id="by-what-it-is-counted-as"),
        pytest.param(frozenset({"d-4o"}), ["d-4o", "gpt-4o"], "chat/completions", id="by-what-it-was-called"),
        pytest.param(FOR_ONE.models, [], "responses/resp_1", id="a-response-that-exists"),
    ],
)
def test_model_is_allowed(models: frozenset[str] | None, names: list[str], operation: str) -> None:
    """A key opens the models that it lists, by either of their names, and responses that were made already."""
    check_model(ClientKey("alice", b"", models=models), names, operation, is_read=False)


@pytest.mark.parametrize(
    ("models", "names", "operation", "message"),
    [
        pytest.param(
            FOR_ONE.models,
            ["gpt-5", "gpt-5"],
            "chat/completions",
            'the client key alice is not for model "gpt-5"; it takes gpt-4o, mini',
            id="another",
        ),
        pytest.param(
            FOR_ONE.models,
            ["GPT-4o"],
            "chat/completions",
            'the client key alice is not for model "GPT-4o"; it takes gpt-4o, mini',
            id="letters",
        ),
        pytest.param(
            FOR_ONE.models,
            [],
            "files",
            "the client key alice is for gpt-4o, mini only, and files says no model",
            id="no",
        ),
        pytest.param(
            FOR_ONE.models,
            [],
            "responses",
            "the client key alice is for gpt-4o, mini only, and responses says no model",
            id="responses",
        ),
        pytest.param(
            FOR_ONE.models,
            [],
            "/responses/x",
            "the client key alice is for gpt-4o, mini only, and /responses/x says no model",
            id="outside-of-the-api",
        ),
        pytest.param(
            frozenset(), ["m"], "chat/completions", 'the client key alice is not for model "m"; it takes ', id="none"
        ),
    ],
)
def test_model_is_refused(models: frozenset[str], names: list[str], operation: str, message: str) -> None:
    """What a key does not list is a 403, and so is what could reach any model; the message says which there are."""
    with pytest.raises(Forbidden) as caught:
        check_model(ClientKey("alice", b"", models=models), names, operation, is_read=False)
    error = caught.value
    assert (error.message, error.status, error.code) == (message, 403, "model_not_allowed")
    assert error.param == ("model" if names else None)


@pytest.mark.parametrize(
    ("operation", "names", "is_read", "allowed"),
    [
        pytest.param("models", [], True, True, id="list"),
        pytest.param("models/gpt-5", [], True, True, id="one"),
        pytest.param("models/gpt-5", [], False, False, id="delete"),
        pytest.param("modelsx", [], True, False, id="not-quite"),
        pytest.param("files", [], True, False, id="files"),
        pytest.param("chat/completions", [], True, False, id="stored-chats"),
        pytest.param("models/gpt-5", ["gpt-5"], True, False, id="one-of-our-own-list"),
    ],
)
def test_lists_of_models_may_be_read(operation: str, names: list[str], is_read: bool, allowed: bool) -> None:
    """Which models an upstream has is no secret to whoever has a key; to change or to reach anything is."""
    if allowed:
        check_model(FOR_ONE, names, operation, is_read=is_read)
        return
    with pytest.raises(Forbidden):
        check_model(FOR_ONE, names, operation, is_read=is_read)


def test_model_is_cut() -> None:
    """Of a name beyond measure only the beginning is repeated."""
    with pytest.raises(Forbidden) as caught:
        check_model(FOR_ONE, ["x" * 5000], "chat/completions", is_read=True)
    assert len(caught.value.message) < 300


def networks(*texts: str) -> tuple[Network, ...]:
    """Those that are written so."""
    return tuple(ip_network(text) for text in texts)


@pytest.mark.parametrize(
    ("address", "texts", "expected"),
    [
        pytest.param("10.0.0.1", ("10.0.0.0/8",), True, id="within"),
        pytest.param("10.0.0.1", ("10.0.0.1/32",), True, id="itself"),
        pytest.param("10.0.0.2", ("10.0.0.1/32",), False, id="neighbour"),
        pytest.param("192.168.0.1", ("10.0.0.0/8", "192.168.0.0/16"), True, id="the-second"),
        pytest.param("2001:db8::1", ("2001:db8::/32",), True, id="ipv6"),
        pytest.param("2001:db9::1", ("2001:db8::/32",), False, id="ipv6-outside"),
        pytest.param("::ffff:10.0.0.1", ("10.0.0.0/8",), True, id="ipv4-within-ipv6"),
        pytest.param("::1", ("0.0.0.0/0",), False, id="another-family"),
        pytest.param("10.0.0.1", ("::/0",), False, id="the-other-family"),
        pytest.param("fe80::1%eth0", ("fe80::/10",), True, id="zone"),
        pytest.param("unix:", ("0.0.0.0/0", "::/0"), False, id="no-address"),
        pytest.param("", ("0.0.0.0/0",), False, id="nothing"),
        pytest.param("10.0.0.1", (), False, id="no-network"),
    ],
)
def test_is_within(address: str, texts: tuple[str, ...], expected: bool) -> None:
    """An address is in a network of its own family, whatever form it has; what is no address is in none."""
    assert is_within(address, networks(*texts)) is expected


def test_anonymous() -> None:
    """Who has no key is his address, and always the same caller."""
    assert anonymous("10.0.0.1") == by_address("10.0.0.1")
    assert anonymous("10.0.0.1") is anonymous("10.0.0.1")
