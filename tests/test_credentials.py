"""The credential that a call is sent upstream with: whose key, and in which header."""

import pytest

from chat_api.credentials import credential, without_key
from chat_api.errors import AuthError
from chat_api.types import Call, Deployment, Secret


def call(presented: str | None) -> Call:
    """A call with what its caller presents."""
    return Call("op", None, b"", False, Secret(presented) if presented is not None else None)


def deployment(key: str | None = None, kind: str = "azure") -> Deployment:
    """A deployment, with the server's own key if there is one."""
    return Deployment("d", "https://x", "v1", Secret(key) if key is not None else None, kind)


@pytest.mark.parametrize(
    ("key", "presented", "expected"),
    [
        pytest.param("ours", "theirs", b"ours", id="the-servers-key-wins"),
        pytest.param("ours", None, b"ours", id="only-the-servers"),
        pytest.param(None, "theirs", b"theirs", id="only-the-callers"),
    ],
)
def test_credential_is_the_servers_key_else_the_callers(
    key: str | None, presented: str | None, expected: bytes
) -> None:
    """The server's key goes upstream whatever the caller presents; without one the caller's does, as api-key."""
    assert credential(call(presented), deployment(key)) == (b"api-key", expected)


@pytest.mark.parametrize(("kind", "setting"), [("azure", "KEY"), ("openai", "OPENAI_API_KEY")])
def test_no_credential_is_401_before_anything_is_sent(kind: str, setting: str) -> None:
    """With neither key the error says what to send and what to set."""
    with pytest.raises(AuthError, match=f"api-key header or as Authorization: Bearer, or set {setting} on") as caught:
        credential(call(None), deployment(kind=kind))

    assert (caught.value.status, caught.value.code) == (401, "missing_credential")


@pytest.mark.parametrize(
    ("presented", "expected"),
    [
        pytest.param("eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln-_x", b"authorization", id="entra-token"),
        pytest.param("0123456789abcdef0123456789abcdef", b"api-key", id="key"),
        pytest.param("eyJust.a-key", b"api-key", id="two-parts"),
    ],
)
def test_token_goes_on_as_bearer_and_a_key_as_api_key(presented: str, expected: bytes) -> None:
    """Azure takes Entra ID tokens as Bearer only, and keys as api-key everywhere."""
    name, value = credential(call(presented), deployment())

    assert name == expected
    assert value.removeprefix(b"Bearer ") == presented.encode()


def test_openai_compatible_server_is_given_its_key_as_bearer() -> None:
    """What speaks OpenAI's API is asked with Authorization, whatever the key looks like."""
    assert credential(call("k"), deployment(kind="openai")) == (b"authorization", b"Bearer k")


@pytest.mark.parametrize("presented", ["a\tb", "a\r\nb", "\u00ff"])
def test_key_that_is_no_header_value_is_401(presented: str) -> None:
    """What a caller presents cannot break out of the header it is sent in."""
    with pytest.raises(AuthError) as caught:
        credential(call(presented), deployment())

    assert caught.value.code == "invalid_credential"
    assert presented not in caught.value.message


@pytest.mark.parametrize(
    ("said", "key", "expected"),
    [
        pytest.param(b"wrong: a-key-of-ours!", b"a-key-of-ours", b"wrong: ***!", id="once"),
        pytest.param(b"a-key-of-ours a-key-of-ours", b"a-key-of-ours", b"*** ***", id="twice"),
        pytest.param(b"wrong: a-key-of-others", b"a-key-of-ours", b"wrong: a-key-of-others", id="another"),
        pytest.param(b"unknown model", b"model", b"unknown model", id="too-short-for-a-key"),
    ],
)
def test_what_a_server_says_goes_on_without_the_key(said: bytes, key: bytes, expected: bytes) -> None:
    """A key that is repeated is hidden; a short one is more likely a word."""
    assert without_key(said, key) == expected
