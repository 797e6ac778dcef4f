"""Tokens: how many a call may take, before anybody knows, and how many an answer says that it took. Pure."""

import math
import re

import msgspec
from msgspec import Raw

from chat_api.counting import Usage
from chat_api.types import Body

CHARS_PER_TOKEN = 4
FILE_TOKENS = 1000  # of an image or a sound within a prompt, whatever its size
FIRST_GUESS = 500  # tokens of an answer, while none has been seen
FIRST_DENSITY = 2.0  # times as many tokens as a prompt's size lets expect: there are languages, and codes
WEIGHT = 0.1  # of the last answer in what is expected of the next
MAX_LEARNED = 1000  # models
MAX_USAGE_BYTES = 2048  # at the end of an answer, in which it is looked for first

# Base64 without a space, its slashes escaped or not: words are no file, whatever they begin with.
_FILE = re.compile(
    rb'"data:[^",]{0,100};base64,[A-Za-z0-9+/=\\_-]*"|"(?:data|file_data|b64_json)"\s*:\s*"[A-Za-z0-9+/=\\_-]{1024,}"'
)
_LAST_MEMBER = b',"usage":{'
_USAGE = b'"usage"'
_MEMBER = re.compile(rb'"usage"\s*:')
_TAIL = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')


_UNSAID = Raw()


class _Asked(msgspec.Struct):
    max_tokens: Raw = _UNSAID
    max_completion_tokens: Raw = _UNSAID
    max_output_tokens: Raw = _UNSAID
    n: Raw = Raw()
    best_of: Raw = Raw()
    prompt: Raw = Raw()


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


_decode_asked = msgspec.json.Decoder(_Asked).decode
_decode_background = msgspec.json.Decoder(_Background).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
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


def most_completion_tokens(body: bytes | Body) -> int | None:
    """How many tokens the answer may have at the most, over all its choices; None if the body does not say."""
    if not isinstance(body, bytes):
        return None
    try:
        asked = _decode_asked(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if asked.max_tokens is asked.max_completion_tokens is asked.max_output_tokens is _UNSAID:
        return None
    stated = [_number(raw) for raw in (asked.max_tokens, asked.max_completion_tokens, asked.max_output_tokens)]
    numbers = [number for number in stated if number is not None]
    each = max(_number(asked.n) or 1, _number(asked.best_of) or 1)
    return max(numbers) * each * _prompts(bytes(asked.prompt)) if numbers else None


def goes_on(body: bytes | Body) -> bool:
    """Whether the answer is made in the background: it goes on though nobody listens, and is read later."""
    if not isinstance(body, bytes) or b"background" not in body:
        return False
    try:
        return _decode_background(body).background is True
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def _number(raw: Raw) -> int | None:
    text = bytes(raw)
    return int(text[:18]) if text.isdigit() else None


def _prompts(prompt: bytes) -> int:
    """How many prompts a legacy completion has; one may be a list of tokens."""
    if not prompt.startswith(b"["):
        return 1
    try:
        prompts = _decode_list(prompt)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 1
    return sum(bytes(one)[:1] in (b'"', b"[") for one in prompts) or 1


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
    if told.prompt_tokens is None and told.input_tokens is None:
        return None
    prompt = told.prompt_tokens or told.input_tokens or 0
    completion = told.completion_tokens or told.output_tokens or 0
    details = told.prompt_tokens_details or told.input_tokens_details
    cached = (details.cached_tokens or 0) if details else 0
    if prompt < 0 or completion < 0 or not 0 <= cached <= prompt:
        prompt, completion = max(0, prompt), max(0, completion)
        cached = min(max(0, cached), prompt)
    return Usage(prompt, completion, cached)


class Averages:
    """What was seen of each model so far, and so what the next call may be.

    That is the average and twice the usual distance from it: fewer than one call in twenty is more,
    and what is too much is given back when the answer has ended.

    Args:
        first: what is expected while nothing has been seen.
    """

    def __init__(self, first: float) -> None:
        self._first = first
        self._of_model: dict[str, tuple[float, float]] = {}

    def expected(self, model: str) -> float:
        """What the next call of a model may be."""
        known = self._of_model.get(model)
        return self._first if known is None else known[0] + 2 * known[1]

    def average(self, model: str) -> float | None:
        """What the calls of a model were; None while nothing has been seen."""
        known = self._of_model.get(model)
        return None if known is None else known[0]

    def note(self, model: str, seen: float) -> None:
        """A call was that."""
        known = self._of_model.get(model)
        if known is None:
            if len(self._of_model) >= MAX_LEARNED:
                del self._of_model[next(iter(self._of_model))]
            self._of_model[model] = (float(seen), seen / 2)
            return
        mean, distance = known
        self._of_model[model] = (
            mean + WEIGHT * (seen - mean),
            distance + WEIGHT * (abs(seen - mean) - distance),
        )


class Expectations:
    """How many tokens calls may take, learned from those that said so."""

    def __init__(self) -> None:
        self._answers = Averages(FIRST_GUESS)
        self._densities = Averages(FIRST_DENSITY)

    def of_prompt(self, model: str, about: int) -> int:
        """How many tokens a prompt may be that is `about` so many by its size."""
        return int(about * min(max(self._densities.expected(model), 1.0), CHARS_PER_TOKEN))

    def usual_prompt(self, model: str, about: int) -> int:
        """How many tokens such a prompt mostly is; what its size lets expect while nothing is known."""
        average = self._densities.average(model)
        return about if average is None else math.ceil(about * average)

    def of_answer(self, model: str) -> int:
        """How many tokens an answer may have."""
        return max(1, math.ceil(self._answers.expected(model)))

    def note(self, model: str, about: int, usage: Usage, choices: int) -> None:
        """A call was this: of a prompt that was `about` so many tokens by its size, over so many choices."""
        self._answers.note(model, usage.completion // choices)
        if about:  # no byte is more than a token: what is beyond that was not in the call, but referred to
            self._densities.note(model, min(usage.prompt / about, CHARS_PER_TOKEN))
