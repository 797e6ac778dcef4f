"""The credential that a call is sent upstream with. Pure."""

import re
from functools import lru_cache

from chat_api.errors import AuthError
from chat_api.headers import is_value
from chat_api.types import Call, Deployment, Secret

MIN_KEY_CHARS = 12  # anything shorter is no key, and may be a word of any message
_JWT = re.compile(rb"eyJ[\w-]*\.[\w-]+\.[\w-]*")


def credential(call: Call, deployment: Deployment) -> tuple[bytes, bytes]:
    """The header that authenticates `call` upstream: the server's key if it has one, else the caller's own.

    Raises:
        AuthError: there is neither.
    """
    key = check_key(deployment.key or call.credential, deployment)
    return _header(key.reveal(), deployment.kind)


@lru_cache(maxsize=64)
def _is_sendable(key: str) -> bool:
    return is_value(key.encode("utf-8"))


@lru_cache(maxsize=64)
def _header(key: str, kind: str) -> tuple[bytes, bytes]:
    text = key.encode()
    # Azure takes Entra ID tokens, which are JWTs, as Bearer only, and keys as api-key on every API.
    is_bearer = kind == "openai" or _JWT.fullmatch(text) is not None
    return (b"authorization", b"Bearer " + text) if is_bearer else (b"api-key", text)


def check_key(key: Secret | None, deployment: Deployment) -> Secret:
    """The key with which a deployment is asked.

    Raises:
        AuthError: there is none, or it cannot be one.
    """
    if key is None:
        where = deployment.key_setting
        message = f"no key: send yours as an api-key header or as Authorization: Bearer, or set {where} on the server"
        raise AuthError(message)
    if not _is_sendable(key.reveal()):
        raise AuthError("the key that was presented holds a character that no key has", code="invalid_credential")
    return key


def without_key(said: bytes, key: bytes) -> bytes:
    """What a server has said without the key that it was asked with: some repeat the one that they refuse."""
    return said.replace(key, b"***") if len(key) >= MIN_KEY_CHARS and said.find(key) >= 0 else said
