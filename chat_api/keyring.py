"""The client keys that there are, and whom a request's credential makes its caller. Pure.

A key is looked up by its digest and then compared in constant time: how long that takes tells nothing of
a key. No message repeats one.
"""

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from hmac import compare_digest

from chat_api.callers import Caller, ClientKey, by_address, by_key
from chat_api.errors import AuthError, Forbidden
from chat_api.types import Secret


class Keyring:
    """All client keys; an empty one asks nobody for a key."""

    def __init__(self, keys: Iterable[ClientKey] = ()) -> None:
        self._callers = {key.digest: by_key(key) for key in keys}

    def __bool__(self) -> bool:
        return bool(self._callers)

    def holder(self, credential: Secret | None, address: str, now: float) -> Caller | None:
        """The caller who has the key that was presented; None if it is none of ours.

        Args:
            credential: what was presented.
            address: the client's.
            now: the time, in seconds since 1970.

        Raises:
            AuthError: the key has expired.
            Forbidden: it is not accepted from this address.
        """
        presented = credential.digest if credential is not None else b""
        caller = self._callers.get(presented)
        if caller is None or (key := caller.key) is None or not compare_digest(presented, key.digest):
            return None
        if key.expires is not None and now >= key.expires:
            date = datetime.fromtimestamp(key.expires, UTC).strftime("%Y-%m-%d %H:%M")
            raise AuthError(f"the client key {key.name} expired on {date} UTC", code="expired_credential")
        if key.networks and not is_within(address, key.networks):
            message = f"the client key {key.name} is not accepted from {address or 'an unknown address'}"
            raise Forbidden(message, code="ip_not_allowed")
        return caller

    def refusal(self, credential: Secret | None) -> AuthError:
        """What a caller is told whose credential opens nothing here."""
        asked = "the key that was presented is not one of this server's" if credential else "no key"
        message = f"{asked}; send one of its client keys as Authorization: Bearer or as an api-key header"
        return AuthError(message, code="invalid_credential" if credential else "missing_credential")


def check_model(key: ClientKey, names: Iterable[str], operation: str, *, is_read: bool) -> None:
    """Whether a key is for a model.

    Args:
        key: the caller's.
        names: what the model is called, here and by the caller; none if the call names no model.
        operation: what is asked for.
        is_read: whether it changes nothing.

    Raises:
        Forbidden: it is for other models, or the call could reach any of them.
    """
    if key.models is None:
        return
    asked = list(dict.fromkeys(names))
    if any(name in key.models for name in asked):
        return
    allowed = ", ".join(sorted(key.models))
    if not asked:
        # A response that was made already is read, cancelled or deleted; a list of models is only that.
        if operation.startswith("responses/") or (is_read and operation.partition("/")[0] == "models"):
            return
        message = f"the client key {key.name} is for {allowed} only, and {operation} says no model"
        raise Forbidden(message, code="model_not_allowed")
    message = f'the client key {key.name} is not for model "{asked[0][:200]}"; it takes {allowed}'
    raise Forbidden(message, param="model", code="model_not_allowed")


# The same few clients call again and again.
@lru_cache(maxsize=1024)
def is_within(address: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    """Whether an address is in one of the networks; IPv4 within IPv6 counts as what it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)


# An address that nobody has given a name; kept, as the same ones call again and again.
anonymous = lru_cache(maxsize=1024)(by_address)
