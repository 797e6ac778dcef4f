"""Which requests are the same: a digest of what shapes an answer, and nothing else. Pure.

Two requests with one digest have one answer, so whatever is in doubt makes a difference here: a request that is
taken for another gets a wrong answer, one that is not taken for its like only costs a call.

* White space, the order of members and how a text is escaped make no difference. The order of a schema's
  `properties` does: a model fills them in in that order.
* 1, 1.0 and 1e0 are one number; 1, true and "1" are three values. What is null differs from what is not there:
  that both mean the default is for each model's upstream to say, not for us.
* `stream` and `stream_options` shape how an answer is told, not what it says.
"""

import math
import re
from hashlib import sha256
from typing import Any

import msgspec

OPERATIONS = frozenset({"chat/completions", "completions", "embeddings"})
_NOTHING_TO_THE_ANSWER = frozenset(
    {
        "stream",
        "stream_options",
        "user",  # these say who asks, for whoever watches over abuse
        "safety_identifier",
        "user_security_context",
        "metadata",  # is written to what is stored, and only there
        "store",  # where it stores nothing: see _is_repeatable
        "prompt_cache_key",  # what a prompt costs upstream, not what is answered
        "prompt_cache_retention",
    }
)
_FOR_EACH_CALLER = frozenset({"store", "modalities", "audio"})  # see _is_repeatable
_SCHEMAS = ("response_format", "tools", "functions")  # the parameters in which JSON schemas stand
_PROPERTIES = b'"properties":'
_QUOTE = b"\\u0022"
_ESCAPE = re.compile(rb"\\(?:u0022|.)", re.DOTALL)
_FORM = "1"  # another one whenever the digest is made otherwise: answers are kept for long


def _number(literal: str) -> float | int:
    """The number that a literal with a fraction or an exponent is: a whole one is an integer."""
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError(f"{literal} is out of range")
    return int(number) if number.is_integer() else number


_decode = msgspec.json.Decoder(float_hook=_number).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


def canonical_key(body: bytes, operation: str, *, scope: str = "") -> bytes | None:
    """32 bytes that are the same for requests which any one answer serves.

    Args:
        body: of the request, as it came.
        operation: "chat/completions", "completions" or "embeddings"; there is none for another.
        scope: within which requests are compared: who asks, by which route, which deployments may answer.

    Returns:
        None for what is no JSON object, or not for certain: a member twice, half a surrogate pair, numbers or
        a depth that nobody can read; and for what each caller has to have made for them.
    """
    if operation not in OPERATIONS:
        return None
    try:
        members = _decode(body)
        if type(members) is not dict or not _is_repeatable(members):
            return None
        left_out = {}
        for name in _NOTHING_TO_THE_ANSWER.intersection(members):
            left_out[name] = members.pop(name)
        canonical: bytes = _encode(members)
        if _quotes(body) != canonical.count(b'"') + (_encode(left_out).count(b'"') if left_out else 0):
            return None  # a member was there twice: which of them counts, not every upstream says alike
        if canonical.find(_PROPERTIES) >= 0:
            orders: list[list[str]] = []
            _note_orders([members.get(name) for name in _SCHEMAS], orders)
            canonical += _encode(orders)
        head = f"{_FORM}\0{operation}\0{scope}\0".encode("utf-8", "surrogatepass")  # no NUL is in what follows
        return sha256(head + canonical).digest()
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None


def asked_choices(body: bytes, operation: str) -> int | None:
    """How many answers a request asks for: choices, or embeddings; None where nobody can tell."""
    try:
        members = _decode(body)
        if operation == "embeddings":
            return _inputs(members.get("input"))
        n = members.get("n")
        each = 1 if n is None else n
        if type(each) is not int or each < 1:
            return None
        return each * _inputs(members.get("prompt")) if operation == "completions" else each
    except (ValueError, RecursionError, AttributeError):
        return None


def _is_repeatable(members: dict[str, Any]) -> bool:
    """Whether nothing but the answer comes of the call.

    `store` has the upstream keep the answer, for the caller to read or to train with: that is not done by giving
    them another's. A spoken answer has an id, by which the next question may refer to it for an hour.
    """
    stream = members.get("stream")
    if type(stream) is not bool and stream is not None:
        return False  # nobody knows how it is to be answered
    if _FOR_EACH_CALLER.isdisjoint(members):
        return True
    if members.get("store") not in (None, False):
        return False
    modalities = members.get("modalities")
    return members.get("audio") is None and not (isinstance(modalities, list) and "audio" in modalities)


def _quotes(body: bytes) -> int:
    """How many quotes there are in a JSON text, once its strings are escaped as msgspec does it.

    Each member has two of its own, so that what was there twice, at any depth, makes a difference.
    """
    quotes = body.count(b'"')
    if body.find(b"\\") >= 0 and body.find(_QUOTE) >= 0:  # some escape a quote so, for the sake of HTML
        quotes += _ESCAPE.findall(body).count(_QUOTE)
    return quotes


def _note_orders(value: Any, orders: list[list[str]]) -> None:
    """Note the names of each `properties` within a value, in their order.

    The places are taken in an order that is always the same.
    """
    if type(value) is dict:
        for name in sorted(value):
            child = value[name]
            if type(child) is dict:
                if name == "properties":
                    orders.append(list(child))
                _note_orders(child, orders)
            elif type(child) is list:
                _note_orders(child, orders)
    elif type(value) is list:
        for child in value:
            _note_orders(child, orders)


def _inputs(value: Any) -> int:
    """How many texts a prompt or an input is: one, or a list of them; a list of numbers is the tokens of one."""
    if not isinstance(value, list):
        return 1
    return sum(isinstance(item, str | list) for item in value) or 1
