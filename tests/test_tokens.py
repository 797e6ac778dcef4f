"""How many tokens a call may take before anybody knows, and how many an answer says that it took."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_api.counting import Usage
from chat_api.tokens import (
    CHARS_PER_TOKEN,
    FILE_TOKENS,
    FIRST_DENSITY,
    FIRST_GUESS,
    MAX_LEARNED,
    Averages,
    Expectations,
    goes_on,
    most_completion_tokens,
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
    assert most_completion_tokens(Spooled()) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"max_tokens":100}', 100, id="chat"),
        pytest.param(b'{"max_completion_tokens":200}', 200, id="reasoning"),
        pytest.param(b'{"max_output_tokens":300}', 300, id="responses"),
        pytest.param(b'{"max_tokens":100,"max_completion_tokens":200}', 200, id="the-largest"),
        pytest.param(b'{"max_tokens":100,"n":3}', 300, id="choices"),
        pytest.param(b'{"max_tokens":100,"best_of":5}', 500, id="best-of"),
        pytest.param(b'{"max_tokens":100,"n":3,"best_of":5}', 500, id="best-of-of-which-some"),
        pytest.param(b'{"max_tokens":100,"n":null}', 100, id="n-null"),
        pytest.param(b'{"max_tokens":100,"n":0}', 100, id="n-zero-is-the-upstreams-to-refuse"),
        pytest.param(b'{"max_tokens":0}', 0, id="none"),
        pytest.param(b'{"max_tokens":1,"max_tokens":2}', 2, id="the-last-of-two"),
        pytest.param(b'{"max_\\u0074okens":7}', 7, id="escaped-name"),
        pytest.param(b'{"max_tokens":99999999999}', 99_999_999_999, id="as-many-as-nobody-has"),
        pytest.param(b'{"max_tokens":%b}' % (b"9" * 5000), 10**18 - 1, id="beyond-sense"),
        pytest.param(b'{"max_tokens":100,"prompt":"a"}', 100, id="prompt"),
        pytest.param(b'{"max_tokens":100,"prompt":["a","b","c"],"n":2}', 600, id="prompts"),
        pytest.param(b'{"max_tokens":100,"prompt":[1,2,3]}', 100, id="prompt-of-tokens"),
        pytest.param(b'{"max_tokens":100,"prompt":[[1,2],[3]]}', 200, id="prompts-of-tokens"),
        pytest.param(b'{"max_tokens":100,"prompt":[]}', 100, id="no-prompt"),
        pytest.param(b"{}", None, id="nothing"),
        pytest.param(b'{"max_tokens":null}', None, id="null"),
        pytest.param(b'{"max_tokens":-1}', None, id="below-zero"),
        pytest.param(b'{"max_tokens":"100"}', None, id="text"),
        pytest.param(b'{"max_tokens":true}', None, id="true"),
        pytest.param(b'{"max_tokens":{}}', None, id="object"),
        pytest.param(b'{"x":{"max_tokens":100}}', None, id="not-within"),
        pytest.param(b'{"n":3}', None, id="only-choices"),
        pytest.param(b'{"max_tokens":1', None, id="no-json"),
        pytest.param(b"[]", None, id="no-object"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b'{"x":' + b"[" * 5000, None, id="too-deep"),
        pytest.param(b'{"\xff":1}', None, id="no-text"),
    ],
)
def test_most_completion_tokens(body: bytes, expected: int | None) -> None:
    """The most that an answer may have is what the body says, for each choice; nonsense says nothing."""
    assert most_completion_tokens(body) == expected


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


def learned(*seen: float, first: float = FIRST_GUESS) -> float:
    """What is expected of a model after these."""
    averages = Averages(first)
    for one in seen:
        averages.note("m", one)
    return averages.expected("m")


@pytest.mark.parametrize("first", [FIRST_GUESS, FIRST_DENSITY])
def test_first_guess(first: float) -> None:
    """Of a model of which nothing has been seen the first guess is expected."""
    assert learned(first=first) == first


def test_average_is_learned() -> None:
    """What is expected comes to what is seen, and a little more; each model has its own."""
    averages = Averages(FIRST_GUESS)
    for _ in range(200):
        averages.note("m", 100)
    averages.note("other", 1000)
    assert 100 <= averages.expected("m") <= 101
    assert averages.expected("other") == 2000
    assert averages.expected("neither") == FIRST_GUESS


def test_first_is_doubted() -> None:
    """After one twice of it is expected: nobody knows how far the next one is from it."""
    assert learned(300) == 600


def test_what_varies() -> None:
    """Where calls vary, what is expected is more than nearly all of them are."""
    assert 180 <= learned(*[150, 50] * 200) <= 210


def test_more_is_noticed() -> None:
    """When calls become larger, so does what is expected, within a few of them."""
    assert learned(*[10] * 100, *[1000] * 10) > 1000


def test_averages_are_bounded() -> None:
    """Callers make up names of models; the oldest are forgotten, and what is noted again is no new one."""
    averages = Averages(FIRST_GUESS)
    names = [str(number) for number in range(MAX_LEARNED)]
    for name in [*names, "0"]:
        averages.note(name, 10)
    assert all(averages.expected(name) < FIRST_GUESS for name in names)
    averages.note("new", 10)
    assert [name for name in [*names, "new"] if averages.expected(name) == FIRST_GUESS] == ["0"]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_expectation_is_sane(seen: list[int]) -> None:
    """Whatever was seen, what is expected is not below zero, and no more than three times the largest."""
    assert 0 <= learned(*seen) <= 3 * max(seen) + 1e-6


def expecting(*calls: tuple[int, Usage, int], times: int = 1) -> Expectations:
    """What is expected after these calls: their prompts by size, what they took, and their choices."""
    expectations = Expectations()
    for _ in range(times):
        for about, usage, choices in calls:
            expectations.note("m", about, usage, choices)
    return expectations


@pytest.mark.parametrize(
    ("calls", "times", "about", "expected"),
    [
        pytest.param([], 1, 100, int(100 * FIRST_DENSITY), id="first-guess"),
        pytest.param([], 1, 0, 0, id="first-guess-of-nothing"),
        pytest.param([(100, Usage(100), 1)], 1, 100, 200, id="the-first-is-doubted"),
        pytest.param([(100, Usage(150), 1)], 200, 1000, 1500, id="learned"),
        pytest.param([(100, Usage(100), 1), (100, Usage(200), 1)], 200, 100, 257, id="learned-with-a-margin"),
        pytest.param([(100, Usage(150), 1)], 200, 0, 0, id="learned-of-nothing"),
        pytest.param([(100, Usage(20), 1)], 200, 100, 100, id="never-less-than-its-size"),
        pytest.param([(100, Usage(), 1)], 200, 100, 100, id="never-less-where-prompts-took-nothing"),
        pytest.param([(100, Usage(380), 1)], 1, 100, 100 * CHARS_PER_TOKEN, id="never-more-than-its-bytes"),
        pytest.param([(0, Usage(50), 1)], 200, 100, int(100 * FIRST_DENSITY), id="nothing-teaches-nothing"),
        pytest.param([(100, Usage(150, 90), 3)], 200, 100, 150, id="whatever-the-choices"),
    ],
)
def test_expected_prompt(calls: list[tuple[int, Usage, int]], times: int, about: int, expected: int) -> None:
    """A prompt may be what others turned out to be: no less than its size says, and no more than its bytes."""
    assert expecting(*calls, times=times).of_prompt("m", about) == expected


@pytest.mark.parametrize(
    ("calls", "times", "expected"),
    [
        pytest.param([], 1, FIRST_GUESS, id="first-guess"),
        pytest.param([(10, Usage(10, 300), 1)], 1, 600, id="the-first-is-doubted"),
        pytest.param([(10, Usage(10, 20), 1)], 200, 21, id="learned"),
        pytest.param([(10, Usage(10, 80), 4)], 200, 21, id="of-each-choice"),
        pytest.param([(0, Usage(0, 20), 1)], 200, 21, id="whatever-the-prompt"),
        pytest.param([(10, Usage(10), 1)], 200, 1, id="a-token-at-least"),
    ],
)
def test_expected_answer(calls: list[tuple[int, Usage, int]], times: int, expected: int) -> None:
    """An answer may be what each choice of those before took, and a little more."""
    assert expecting(*calls, times=times).of_answer("m") == expected


def test_models_are_learned_apart() -> None:
    """What one model took is not expected of another."""
    expectations = expecting((100, Usage(100, 20), 1), times=200)
    assert (expectations.of_prompt("n", 100), expectations.of_answer("n")) == (100 * FIRST_DENSITY, FIRST_GUESS)


def test_what_a_call_refers_to_is_soon_forgotten() -> None:
    """A prompt that goes on from an earlier answer takes more than its bytes: what those say counts again soon."""
    expectations = expecting((10, Usage(100_000), 1))
    for _ in range(40):
        expectations.note("m", 10, Usage(10), 1)
    assert expectations.of_prompt("m", 100) < 100 * FIRST_DENSITY


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**9)), max_size=50), st.integers(0, 10**6))
def test_expected_prompt_is_sane(seen: list[tuple[int, int]], about: int) -> None:
    """Whatever prompts took, of the next one no less is expected than its size says, and no more than its bytes."""
    expectations = expecting(*[(size, Usage(took), 1) for size, took in seen])
    assert about <= expectations.of_prompt("m", about) <= CHARS_PER_TOKEN * about


@pytest.mark.parametrize(
    ("seen", "usual"),
    [
        pytest.param([], 100, id="nothing-known"),
        pytest.param([300], 300, id="denser"),
        pytest.param([30], 30, id="looser"),
        pytest.param([1000], 400, id="no-more-than-its-bytes"),
    ],
)
def test_prompt_that_nobody_told_of_is_what_others_were(seen: list[int], usual: int) -> None:
    """A prompt whose tokens nobody told counts what such prompts were on average, and by its size before that."""
    expectations = Expectations()
    for prompt in seen:
        expectations.note("m", 100, Usage(prompt, 1), 1)

    assert expectations.usual_prompt("m", 100) == usual


def test_no_word_is_less_than_a_token() -> None:
    """A prompt of one-letter words is as many tokens as it has words, not a quarter of its bytes."""
    assert prompt_tokens(b'{"prompt":"' + b"a " * 400 + b'"}') == 400
