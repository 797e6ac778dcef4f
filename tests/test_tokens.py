"""How many tokens a call may take before anybody knows, and how many an answer says that it took."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_api.counting import Usage
from chat_api.tokens import (
    FILE_TOKENS,
    goes_on,
    prompt_tokens,
    usage_at_end,
    usage_in,
)
from chat_api.types import Body


class Spooled:
    """A form on disk."""

    size = 10
    is_repeatable = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Nobody asks."""
        yield b""

    def with_model(self, name: str) -> Body:
        """Nobody asks."""
        return self


PICTURE = b'"data:image/png;base64,' + b"iVBO" * 2500 + b'"'
SOUND = b'"data":"' + b"UklG" * 2500 + b'"'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"", 0, id="nothing"),
        pytest.param(b"x" * 400, 100, id="a-quarter"),
        pytest.param(b"x" * 401, 101, id="rounded-up"),
        pytest.param(b"a b " * 5000, 10000, id="long"),
        pytest.param('{"content":"ü"}'.encode() * 100, 400, id="bytes-not-letters"),
        pytest.param(b"[" + PICTURE + b"]" + b"x" * 398, 100 + FILE_TOKENS, id="picture"),
        pytest.param(b"[" + PICTURE + b"," + PICTURE + b"]" + b"x" * 397, 100 + 2 * FILE_TOKENS, id="two-pictures"),
        pytest.param(b"{" + SOUND + b"}" + b"x" * 398, 100 + FILE_TOKENS, id="sound"),
        pytest.param(b"{" + SOUND.replace(b":", b" : ") + b"}" + b"x" * 398, 100 + FILE_TOKENS, id="sound-with-spaces"),
        pytest.param(b'"data:,' + b"word " * 1000 + b'"', 1252, id="text-that-begins-like-a-file"),
        pytest.param(b'"content":"' + b"word_" * 1000 + b'"', 1253, id="text-without-spaces-is-no-file"),
        pytest.param(b'"data":"' + b"word " * 1000 + b'"', 1253, id="words-are-no-file"),
        pytest.param(b'"data:;base64,' + b"word " * 1000 + b'"', 1254, id="words-that-say-to-be-base64"),
        pytest.param(
            b"[" + PICTURE.replace(b"VB", b"\\/") + b"]" + b"x" * 398, 100 + FILE_TOKENS, id="escaped-slashes"
        ),
        pytest.param(PICTURE[:199] + b'"', 50, id="small-picture"),
        pytest.param(b'"' + b"word " * 1000 + b'"', 1251, id="text-is-no-file"),
        pytest.param(b'"' + b"a" * 3999, 1000, id="text-without-an-end-is-no-file"),
    ],
)
def test_prompt_tokens(body: bytes, expected: int) -> None:
    """A prompt is about a quarter of its bytes; a picture or a sound in it counts as one, whatever its size."""
    assert prompt_tokens(body) == expected


def test_prompt_that_is_a_form() -> None:
    """What is not held in memory is one file."""
    assert prompt_tokens(Spooled()) == FILE_TOKENS


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"background":true}', True, id="true"),
        pytest.param(b'{ "stream" : true, "background" : true }', True, id="streamed"),
        pytest.param(b'{"background":false,"background":true}', True, id="the-last-of-two"),
        pytest.param(b'{"background":false}', False, id="false"),
        pytest.param(b'{"background":null}', False, id="null"),
        pytest.param(b'{"background":"transparent"}', False, id="a-pictures"),
        pytest.param(b'{"x":{"background":true}}', False, id="not-within"),
        pytest.param(b'{"background":tru', False, id="no-json"),
        pytest.param(b"{}", False, id="nothing"),
        pytest.param(Spooled(), False, id="form"),
    ],
)
def test_goes_on(body: bytes | Body, expected: bool) -> None:
    """An answer goes on without its listener only where it was asked for so."""
    assert goes_on(body) is expected


CHAT = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
FULL = CHAT | {
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
RESPONSE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 18,
}
USAGES = [
    pytest.param(CHAT, Usage(11, 7), id="chat"),
    pytest.param(FULL, Usage(11, 7, 4), id="chat-with-details"),
    pytest.param(RESPONSE, Usage(11, 7, 4), id="response"),
    pytest.param({"prompt_tokens": 8, "total_tokens": 8}, Usage(8), id="embeddings"),
    pytest.param({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, Usage(), id="nothing-was-taken"),
    pytest.param(CHAT | {"prompt_tokens_details": None}, Usage(11, 7), id="no-details"),
    pytest.param(CHAT | {"prompt_tokens_details": {}}, Usage(11, 7), id="empty-details"),
    pytest.param(CHAT | {"prompt_tokens_details": {"cached_tokens": None}}, Usage(11, 7), id="cached-null"),
    pytest.param(
        CHAT | {"prompt_tokens_details": {"cached_tokens": 99}}, Usage(11, 7, 11), id="more-cached-than-asked"
    ),
    pytest.param(CHAT | {"prompt_tokens_details": {"cached_tokens": -1}}, Usage(11, 7), id="cached-below-zero"),
    pytest.param(CHAT | {"completion_tokens": None}, Usage(11), id="completion-null"),
    pytest.param(CHAT | {"prompt_tokens": -5, "completion_tokens": -5}, Usage(), id="below-zero"),
    pytest.param(CHAT | {"completion_tokens": -5}, Usage(11), id="completion-below-zero"),
    pytest.param({"type": "duration", "seconds": 9}, None, id="seconds-of-a-sound"),
    pytest.param({}, None, id="empty"),
    pytest.param(None, None, id="null"),
    pytest.param({"prompt_tokens": "11", "completion_tokens": 7}, None, id="text"),
]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["tight", "spaces"])
@pytest.mark.parametrize(("usage", "expected"), USAGES)
def test_usage(usage: dict[str, Any] | None, expected: Usage | None, separators: tuple[str, str]) -> None:
    """Whatever an API calls it: usage is read from a whole answer, from an event, and from the end of either."""
    answer = {"choices": [{"message": {"content": "hi"}}], "usage": usage, "user": None}
    raw = json.dumps(answer, separators=separators).encode()
    assert usage_in(raw) == expected
    assert usage_at_end(raw[5:], is_stream=False) == expected
    assert usage_at_end(b"data: " + raw + b"\n\ndata: [DONE]\n\n", is_stream=True) == expected
    assert usage_at_end(raw[5:] + b"\n\ndata: [DONE]\n\n", is_stream=True) == expected
    completed = json.dumps({"type": "response.completed", "response": answer}, separators=separators).encode()
    assert usage_at_end(b"event: response.completed\ndata: " + completed + b"\n\n", is_stream=True) == expected


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="empty"),
        pytest.param(b"[]", id="array"),
        pytest.param(b'{"usage":', id="cut"),
        pytest.param(b'{"usage":[]}', id="array-within"),
        pytest.param(b"\xff\xfe", id="no-text"),
        pytest.param(b"\x1f\x8b\x08\x00", id="compressed"),
        pytest.param(b'{"a":' + b"[" * 5000, id="too-deep"),
        pytest.param(b"ID3\x04\x00\x00usage", id="a-sound"),
    ],
)
def test_no_usage(answer: bytes) -> None:
    """Where nothing is told nothing is made up, whatever the answer is."""
    assert usage_in(answer) is None
    assert usage_at_end(answer, is_stream=False) is None
    assert usage_at_end(answer, is_stream=True) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(b'{"data":{"usage":{"prompt_tokens":9}}}', None, id="within"),
        pytest.param(b'{"data":{"x":1,"usage":{"prompt_tokens":9}}}', None, id="within-at-the-end"),
        pytest.param(b'{"usage":{"prompt_tokens":3},"x":{"x":1,"usage":{"prompt_tokens":9}}}', Usage(3), id="before"),
        pytest.param(b'{"data":{"x":1,"usage":{"prompt_tokens":9}},"usage":{"prompt_tokens":3}}', Usage(3), id="after"),
        pytest.param(b'{"data":"x","usage":{"prompt_tokens":3}}\n', Usage(3), id="with-a-line-end"),
        pytest.param(b'{"a":1,"usage":{"prompt_tokens":3,"x":{"y":1}}}', Usage(3), id="with-an-object-at-its-end"),
        pytest.param(b'{"a":",\\"usage\\":{\\"prompt_tokens\\":9}","x":{}}', None, id="text"),
        pytest.param(b'{"x":",","usage":{"prompt_tokens":3}}', Usage(3), id="after-a-comma"),
        pytest.param(b'{"data":"x","usage":{"prompt_tokens":3%b}}' % (b" " * 5000), Usage(3), id="far-from-the-end"),
    ],
)
def test_usage_is_a_member_of_its_own(answer: bytes, expected: Usage | None) -> None:
    """Of a whole answer only the member `usage` counts, wherever it is, not what lies within another."""
    assert usage_in(answer) == expected


USAGE_EVENT = b'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}\n\n'
COMPLETED = (
    b'data: {"type":"response.completed","response":{"usage":%b,"user":null}}\n\n' % json.dumps(RESPONSE).encode()
)


# What the Responses API repeats of a call before it answers: its tools, whose parameters are the caller's own JSON.
TOOLS = b'"tools":[{"parameters":{"properties":{"usage":{"input_tokens":0,"output_tokens":0}}}}],"usage":null'
CREATED = b'event: response.created\ndata: {"type":"response.created","response":{%b}}\n\n' % TOOLS
DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"H"}\n\n'
LATE = b'"metadata":{"usage":"no"}}}\n\n'  # members that come after the usage, and are the caller's as well


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        pytest.param(USAGE_EVENT + b"data: [DONE]\n\n", Usage(11, 7), id="chat"),
        pytest.param(USAGE_EVENT, Usage(11, 7), id="one-event"),
        pytest.param(USAGE_EVENT.replace(b"data: ", b"data:"), Usage(11, 7), id="tight"),
        pytest.param(COMPLETED, Usage(11, 7, 4), id="response"),
        pytest.param(CREATED + DELTA + COMPLETED, Usage(11, 7, 4), id="response-from-its-beginning"),
        pytest.param(COMPLETED.replace(b'"user":null}}\n\n', LATE), Usage(11, 7, 4), id="response-with-metadata"),
        pytest.param(COMPLETED.replace(b"{", b"{" + TOOLS + b",", 1), Usage(11, 7, 4), id="response-with-tools"),
        pytest.param(b'ces":[],' + USAGE_EVENT[20:], Usage(11, 7), id="only-the-end-of-the-event-was-kept"),
        pytest.param(b'ls":[],' + COMPLETED[30:], Usage(11, 7, 4), id="only-the-end-of-the-response-was-kept"),
        pytest.param(TOOLS[3:-12] + b"," + COMPLETED[30:], Usage(11, 7, 4), id="the-end-of-it-with-tools"),
        pytest.param(USAGE_EVENT.replace(b":7", b":1") + USAGE_EVENT, Usage(11, 7), id="the-last-of-several"),
        pytest.param(b'data: {"usage":null}\n\n' + USAGE_EVENT, Usage(11, 7), id="after-null"),
        pytest.param(USAGE_EVENT.replace(b"\n", b"\r\n"), Usage(11, 7), id="crlf"),
        pytest.param(DELTA.replace(b"\n", b"\r") + USAGE_EVENT.replace(b"\n", b"\r"), Usage(11, 7), id="cr"),
        pytest.param(DELTA + USAGE_EVENT[:-2], Usage(11, 7), id="no-line-end"),
        pytest.param(USAGE_EVENT[:-2], Usage(11, 7), id="one-event-and-no-line-end"),
        pytest.param(USAGE_EVENT[:40], None, id="cut-within"),
        pytest.param(DELTA + USAGE_EVENT[:40], None, id="cut-within-after-another"),
        pytest.param(b'data: {"usage":null}\n\ndata: [DONE]\n\n', None, id="null"),
        pytest.param(USAGE_EVENT + b'data: {"x":"usage"}\n\n', Usage(11, 7), id="a-text-that-is-the-word"),
        pytest.param(b'data: {"x":"usage","y":"usage"}\n\n', None, id="only-the-word"),
        pytest.param(CREATED + DELTA, None, id="tools-and-no-more"),
        pytest.param(USAGE_EVENT + DELTA.replace(b"H", b"usage"), Usage(11, 7), id="before-a-text-that-is-the-word"),
        pytest.param(TOOLS[5:] + b"}}\n\n" + DELTA, None, id="the-end-of-tools-and-no-more"),
        pytest.param(b'event: x\ndata: {"tools":[{"usage":{"input_tokens":0}}]}\n\n', None, id="tools-of-an-assistant"),
    ],
)
def test_usage_at_end(tail: bytes, expected: Usage | None) -> None:
    """What the last event that tells says at its place is what a stream took; what its caller has said is not."""
    assert usage_at_end(tail, is_stream=True) == expected


TEXTS = st.one_of(
    st.text(),
    st.sampled_from(
        [
            '"usage":{"prompt_tokens":1,"completion_tokens":1}',
            '","usage":{"prompt_tokens":1,"completion_tokens":1},"x":"',
            '\\","usage":{"prompt_tokens":1}',
            '\\"usage\\":{\\"input_tokens\\":1}',
            "}}],'usage':{",
            'data: {"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n',
        ]
    ),
    st.lists(st.sampled_from(['"', "\\", "usage", ":", "{", "}", '"prompt_tokens"', "1", ",", " "])).map("".join),
)


@given(TEXTS, TEXTS)
def test_words_of_a_model_are_no_usage(before: str, after: str) -> None:
    """Whatever a model says before or after it, what it took is what the upstream counted, or nothing."""
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in (before, after)]
    events = [
        b"data: " + json.dumps(chunk, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n" for chunk in chunks
    ]
    assert usage_at_end(b"".join(events), is_stream=True) is None
    assert usage_at_end(events[0] + USAGE_EVENT + events[1], is_stream=True) == Usage(11, 7)
    assert usage_at_end(b"".join(events), is_stream=False) is None


def test_no_word_is_less_than_a_token() -> None:
    """A prompt of one-letter words is as many tokens as it has words, not a quarter of its bytes."""
    assert prompt_tokens(b'{"prompt":"' + b"a " * 400 + b'"}') == 400
