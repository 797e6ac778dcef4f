"""Tokens: how many a call may take, before anybody knows, and how many an answer says that it took. Pure."""

import re

import msgspec

from chat_api.counting import Usage
from chat_api.types import Body

CHARS_PER_TOKEN = 4
FILE_TOKENS = 1000  # of an image or a sound within a prompt, whatever its size
MAX_USAGE_BYTES = 2048  # at the end of an answer, in which it is looked for first

# Base64 without a space, its slashes escaped or not: words are no file, whatever they begin with.
_FILE = re.compile(
    rb'"data:[^",]{0,100};base64,[A-Za-z0-9+/=\\_-]*"|"(?:data|file_data|b64_json)"\s*:\s*"[A-Za-z0-9+/=\\_-]{1024,}"'
)
_LAST_MEMBER = b',"usage":{'
_USAGE = b'"usage"'
_MEMBER = re.compile(rb'"usage"\s*:')
_TAIL = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')


class _Background(msgspec.Struct):
    background: bool | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    """What chat, embeddings, Responses, images and audio call the same thing."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None


class _Event(_Answer):
    """An event of a stream; those of the Responses API have the answer within."""

    response: _Answer | None = None


_decode_background = msgspec.json.Decoder(_Background).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode


def prompt_tokens(body: bytes | Body) -> int:
    """About how many tokens a request's body is: a quarter of its bytes, what is no text counted apart.

    It is rounded up, as many small ones are not to be more than they reserve; and no word is less than a token.
    """
    if not isinstance(body, bytes):
        return FILE_TOKENS
    size = len(body)
    files = [len(found[0]) for found in _FILE.finditer(body)] if size > 2048 else ()
    return max(-(-(size - sum(files)) // CHARS_PER_TOKEN), body.count(b" ")) + FILE_TOKENS * len(files)


def goes_on(body: bytes | Body) -> bool:
    """Whether the answer is made in the background: it goes on though nobody listens, and is read later."""
    if not isinstance(body, bytes) or b"background" not in body:
        return False
    try:
        return _decode_background(body).background is True
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def usage_in(answer: bytes) -> Usage | None:
    """What a whole JSON answer says that it took; None where it says nothing."""
    # Azure sorts the members. What is an object up to the last brace of the answer is a member of the answer's own.
    if answer.endswith(b"}}") and (begin := answer.rfind(_LAST_MEMBER, -MAX_USAGE_BYTES)) >= 0:
        try:
            return _usage(_decode_usage(answer[begin + len(_LAST_MEMBER) - 1 : -1]))
        except msgspec.MsgspecError:
            pass
    try:
        return _usage(_decode_answer(answer).usage)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def usage_at_end(tail: bytes, *, is_stream: bool) -> Usage | None:
    """What the end of an answer says that it took; None where it says nothing.

    Within a string a quote is escaped, so that what a model says is never taken for what it took. What the caller
    has said a stream of the Responses API repeats as JSON: there only the event itself counts.

    Args:
        tail: the last bytes of it.
        is_stream: whether they are events; else they are JSON that was too large to hold.
    """
    try:
        if is_stream and (event := _last_event(tail)) is not None:
            return _usage(event.usage or (event.response.usage if event.response else None))
        told = _TAIL.findall(tail)
        return _usage(_decode_usage(told[-1])) if told else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _last_event(tail: bytes) -> _Event | None:
    """The last event that tells of usage; None if only its end was kept, and nothing came after it.

    Raises:
        msgspec.MsgspecError: it is none, or it was cut short.
    """
    told = tail.rfind(_USAGE)
    while told >= 0 and not _MEMBER.match(tail, told):  # a text may be just that word
        told = tail.rfind(_USAGE, 0, told)
    if told < 0:
        return _Event()
    begin = max(tail.rfind(b"\n", 0, told), tail.rfind(b"\r", 0, told)) + 1
    event, *after = tail[begin:].splitlines()
    if begin or event.startswith(b"data:"):
        return _decode_event(event.removeprefix(b"data:"))
    is_last = not any(line.startswith(b"data:") and b"[DONE]" not in line for line in after)
    return None if is_last else _Event()


def _usage(told: _Usage | None) -> Usage | None:
    if told is None:
        return None
    if told.prompt_tokens is not None:  # a chat's
        prompt, completion, details = told.prompt_tokens, told.completion_tokens or 0, told.prompt_tokens_details
    elif told.input_tokens is not None:
        prompt, completion, details = told.input_tokens, told.output_tokens or 0, told.input_tokens_details
    else:
        return None
    cached = (details.cached_tokens or 0) if details is not None else 0
    if prompt < 0 or completion < 0 or not 0 <= cached <= prompt:
        prompt, completion = max(0, prompt), max(0, completion)
        cached = min(max(0, cached), prompt)
    return Usage(prompt, completion, cached)
