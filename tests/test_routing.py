"""The routing of a body that is otherwise left alone: `model`, `stream` and `n`, and another `model` in its place."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api.errors import RequestError
from chat_api.routing import (
    COUNTLESS,
    MAX_MODEL_BYTES,
    Routing,
    asks_usage,
    form_model,
    read_routing,
    with_model,
    with_usage,
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"{}", Routing(), id="empty"),
        pytest.param(b' \r\n\t{ "model" : "m" } \n', Routing("m"), id="spaces"),
        pytest.param(b'{"model":"m","stream":true,"n":3}', Routing("m", True, 3), id="all"),
        pytest.param(b'{"model":null,"stream":null,"n":null}', Routing(), id="nulls"),
        pytest.param(b'{"model":""}', Routing(), id="empty-model"),
        pytest.param(b'{"model":"\\u00e9/\\ud83d\\ude00"}', Routing("é/😀"), id="escapes"),
        pytest.param(b'{"mod\\u0065l":"m"}', Routing("m"), id="escaped-name"),
        pytest.param(b'{"Model":"m"}', Routing(), id="names-are-exact"),
        pytest.param(b'{"model":"a","model":"b"}', Routing("b"), id="the-last-of-two"),
        pytest.param(b'{"x":{"model":"m","stream":true,"n":3}}', Routing(), id="not-within"),
        pytest.param(b'{"stream":false}', Routing(), id="no-stream"),
        pytest.param(b'{"stream":1,"n":"3"}', Routing(choices=COUNTLESS), id="wrong-types-are-the-upstreams-to-refuse"),
        pytest.param(b'{"stream":"true"}', Routing(), id="stream-as-text"),
        pytest.param(b'{"n":3.0}', Routing(choices=COUNTLESS), id="n-as-float"),
        pytest.param(b'{"n":-1}', Routing(choices=COUNTLESS), id="n-below-zero"),
        pytest.param(b'{"n":99999999999999999999}', Routing(choices=COUNTLESS), id="n-beyond-sense"),
        pytest.param(b'{"prompt":"a","n":2}', Routing(choices=2), id="one-prompt"),
        pytest.param(b'{"prompt":["a","b"],"n":2}', Routing(choices=COUNTLESS), id="several-prompts"),
        pytest.param(b'{"a":1e999,"b":123456789012345678901234567890,"model":"m"}', Routing("m"), id="odd-numbers"),
        pytest.param(b'{"a":"\xff","model":"m"}', Routing("m"), id="not-utf-8-elsewhere"),
        pytest.param(b'{"a":' + b"[" * 500 + b"]" * 500 + b',"model":"m"}', Routing("m"), id="nested"),
        pytest.param(
            b'{"stream":true,"stream_options":{"include_usage":true}}',
            Routing(stream=True, asks_usage=True),
            id="usage",
        ),
        pytest.param(b'{"stream_options":{"include_usage":false}}', Routing(), id="no-usage"),
        pytest.param(b'{"stream_options":null}', Routing(), id="null-options"),
        pytest.param(b'{"x":{"stream_options":{"include_usage":true}}}', Routing(), id="options-within"),
    ],
)
def test_read_routing(body: bytes, expected: Routing) -> None:
    """What decides a body's way is read; everything else may be whatever it is."""
    assert read_routing(body) == expected


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        pytest.param(b"", "empty_body", "the body is empty", id="empty"),
        pytest.param(b" \n", "empty_body", "the body is empty", id="blank"),
        pytest.param(b"[]", "invalid_json", "the body is an array", id="array"),
        pytest.param(b'"x"', "invalid_json", "the body is text", id="text"),
        pytest.param(b"-5", "invalid_json", "the body is a number", id="number"),
        pytest.param(b"true", "invalid_json", "the body is true", id="true"),
        pytest.param(b"false", "invalid_json", "the body is false", id="false"),
        pytest.param(b"null", "invalid_json", "the body is null", id="null"),
        pytest.param(b"model=m", "invalid_json", "the body is not JSON", id="form"),
        pytest.param(b'{"model":"m"', "invalid_json", "the body is not JSON", id="cut"),
        pytest.param(b'{"model":"m"} x', "invalid_json", "the body is not JSON", id="more-after-it"),
        pytest.param(b"{'model':'m'}", "invalid_json", "the body is not JSON", id="single-quotes"),
        pytest.param(b'{"a":01}', "invalid_json", "the body is not JSON", id="leading-zero"),
        pytest.param(b'{"a":NaN}', "invalid_json", "the body is not JSON", id="nan"),
        pytest.param(b"\xef\xbb\xbf{}", "invalid_json", "the body is not JSON", id="bom"),
        pytest.param(b'{"a":' * 100_000, "invalid_json", "nested too deeply", id="deep-objects"),
        pytest.param(b'{"a":' + b"[" * 100_000, "invalid_json", "nested too deeply", id="deep-arrays"),
        pytest.param(b'{"model":5}', "invalid_model", "model is a number", id="model-number"),
        pytest.param(b'{"model":true}', "invalid_model", "model is true", id="model-true"),
        pytest.param(b'{"model":["m"]}', "invalid_model", "model is an array", id="model-array"),
        pytest.param(b'{"model":{"a":1}}', "invalid_model", "model is an object", id="model-object"),
        pytest.param(b'{"model":"a\\nb"}', "invalid_model", "model holds a character", id="model-line-feed"),
        pytest.param(b'{"model":"\\u0000"}', "invalid_model", "model holds a character", id="model-nul"),
        pytest.param(b'{"model":"\xff"}', "invalid_model", "model is text", id="model-not-utf-8"),
        pytest.param(
            b'{"model":"' + b"m" * (MAX_MODEL_BYTES + 1) + b'"}', "invalid_model", "too long", id="model-too-long"
        ),
    ],
)
def test_refused_body(body: bytes, code: str, message: str) -> None:
    """A body that is no JSON object, or whose model is no name, is refused with what it is."""
    with pytest.raises(RequestError) as caught:
        read_routing(body)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert message in caught.value.message
    assert caught.value.param == ("model" if code == "invalid_model" else None)


def test_longest_model() -> None:
    """A name may be as long as the limit, counted in bytes."""
    name = "é" * (MAX_MODEL_BYTES // 2)
    assert read_routing(json.dumps({"model": name}).encode()).model == name


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"{}", b'{"model":"d"}', id="empty"),
        pytest.param(b'{"a":1}', b'{"model":"d","a":1}', id="none"),
        pytest.param(b'{"a":1,"model":"x","b":2}', b'{"a":1,"model":"d","b":2}', id="in-its-place"),
        pytest.param(b'{"model":null}', b'{"model":"d"}', id="null"),
        pytest.param(b'{"model":{"a":[1]},"b":2}', b'{"model":"d","b":2}', id="object"),
        pytest.param(b'{"mod\\u0065l":"x"}', b'{"model":"d"}', id="escaped-name"),
        pytest.param(b'{"model":"x","model":"y","z":1}', b'{"model":"d","z":1}', id="twice"),
        pytest.param(b'{"a":{"model":"x"}}', b'{"model":"d","a":{"model":"x"}}', id="not-within"),
        pytest.param(
            b'{"model":"x", "a" : {"b" :  [1.0, 1e400] } , "c":"\\u00e9\\/"}',
            b'{"model":"d","a":{"b" :  [1.0, 1e400] },"c":"\\u00e9\\/"}',
            id="values-as-written",
        ),
        pytest.param(b'{"a":"\xff","model":"x"}', b'{"a":"\xff","model":"d"}', id="not-utf-8"),
    ],
)
def test_with_model(body: bytes, expected: bytes) -> None:
    """The model stands where it stood, or first; the value of every other member is its own bytes."""
    assert with_model(body, "d") == expected


@pytest.mark.parametrize("name", ['my "d"', "ü", "a/b", "\\"])
def test_with_any_name(name: str) -> None:
    """Any name can be put in."""
    assert json.loads(with_model(b'{"model":"x"}', name)) == {"model": name}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["model", "stream", "n"])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=5), st.booleans(), st.sampled_from([None, 0, 3]))
def test_with_model_property(members: dict[str, Any], is_ascii: bool, indent: int | None) -> None:
    """Whatever an object holds and however it is written, all but its model has the value, and the bytes, it had."""
    try:
        body = json.dumps(members, ensure_ascii=is_ascii, indent=indent).encode()
        before = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (UnicodeEncodeError, msgspec.DecodeError):
        return  # a lone surrogate, or a number that JSON has not
    after = msgspec.json.decode(with_model(body, "d"), type=dict[str, msgspec.Raw])
    assert bytes(after.pop("model")) == b'"d"'
    before.pop("model", None)
    assert [(name, bytes(value)) for name, value in after.items()] == [
        (name, bytes(value)) for name, value in before.items()
    ]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=30) | st.lists(st.sampled_from([*'{}[]":,\\', "model", "n", "1", " ", "u0"])).map("".join))
def test_any_body(body: bytes | str) -> None:
    """Whatever a body is, it has a routing or is the caller's fault."""
    raw = body if isinstance(body, bytes) else body.encode()
    try:
        routing = read_routing(raw)
    except RequestError:
        return
    assert routing.model is None or routing.model.isprintable()


def test_name_that_is_no_unicode() -> None:
    """A body with a member name that is no UTF-8 goes on as it is, but cannot be sent under another model's name."""
    body = b'{"\xff":1,"model":"x"}'
    assert read_routing(body).model == "x"
    with pytest.raises(RequestError, match="no Unicode"):
        with_model(body, "d")


@pytest.mark.parametrize("text", [rb"\ud83d", rb"\uDE00", rb"a\uD83Db"])
def test_half_a_surrogate_pair_is_relayed(text: bytes) -> None:
    """JavaScript cuts emoji in half: such a body is JSON all the same, and its routing is read."""
    assert read_routing(b'{"messages":[{"content":"%b"}],"model":"x","stream":true}' % text) == Routing("x", True)
    with pytest.raises(RequestError, match="not JSON"):
        read_routing(b'{"content":"%b' % text)


def test_no_choices() -> None:
    """At least one answer is asked for: a stream that breaks off is not complete because `n` is 0."""
    assert read_routing(b'{"n":0}').choices >= 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, None, id="missing"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b"m", "m", id="name"),
        pytest.param("ü".encode(), "ü", id="utf-8"),
        pytest.param(b"a\xffb", "a\ufffdb", id="not-utf-8"),
    ],
)
def test_form_model(value: bytes | None, expected: str | None) -> None:
    """The value of a form's field is a name; an empty one is none."""
    assert form_model(value) == expected


@pytest.mark.parametrize("value", [b"a\r\nb", b"\x00", b"m" * (MAX_MODEL_BYTES + 1)], ids=["crlf", "nul", "long"])
def test_form_model_that_is_none(value: bytes) -> None:
    """A field's value that cannot be a name is refused as the model."""
    with pytest.raises(RequestError) as caught:
        form_model(value)
    assert (caught.value.param, caught.value.code) == ("model", "invalid_model")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(b'{"include_usage":true}', True, id="tight"),
        pytest.param(b' { "include_usage" : true } ', True, id="spaces"),
        pytest.param(b'{"x":1,"include_usage":true,"y":{}}', True, id="among-others"),
        pytest.param(b'{"include_us\\u0061ge":true}', True, id="escaped-name"),
        pytest.param(b'{"include_usage":false,"include_usage":true}', True, id="the-last-of-two"),
        pytest.param(b'{"include_usage":true,"include_usage":false}', False, id="the-last-of-two-is-false"),
        pytest.param(b'{"include_usage":false}', False, id="false"),
        pytest.param(b'{"include_usage":null}', False, id="null"),
        pytest.param(b'{"include_usage":"true"}', False, id="text"),
        pytest.param(b'{"include_usage":1}', False, id="number"),
        pytest.param(b'{"x":{"include_usage":true}}', False, id="within"),
        pytest.param(b'{"x":"\\"include_usage\\":true"}', False, id="within-a-text"),
        pytest.param(b"{}", False, id="empty"),
        pytest.param(b"null", False, id="no-options"),
        pytest.param(b'"include_usage"', False, id="no-object"),
        pytest.param(b"[]", False, id="array"),
    ],
)
def test_asks_usage(options: bytes, expected: bool) -> None:
    """Who asks to be told what a stream took says so with `true` at its place, and in no other way."""
    assert asks_usage(options) is expected


ASKED = {"include_usage": True}


@pytest.mark.parametrize(
    ("body", "options"),
    [
        pytest.param(b'{"stream":true}', ASKED, id="no-options"),
        pytest.param(b' \n{ "stream" : true } \n', ASKED, id="spaces"),
        pytest.param(b'{"stream":true,"stream_options":null}', ASKED, id="null"),
        pytest.param(b'{"stream":true,"stream_options":{}}', ASKED, id="empty"),
        pytest.param(b'{"stream":true,"stream_options":{"include_usage":false}}', ASKED, id="false"),
        pytest.param(b'{"stream":true,"stream_options":{"include_usage":null}}', ASKED, id="null-within"),
        pytest.param(
            b'{"stream":true,"stream_options":{"include_obfuscation":false}}',
            {"include_obfuscation": False, "include_usage": True},
            id="other-options-stay",
        ),
        pytest.param(b'{"stream\\u005foptions":{},"stream":true}', ASKED, id="escaped-name"),
        pytest.param(b'{"stream_options":{},"stream_options":null,"stream":true}', ASKED, id="twice"),
        pytest.param(b'{"stream":true,"x":{"stream_options":{"include_usage":false}}}', ASKED, id="within"),
        pytest.param(b'{"stream":true,"x":"\\u00e9 \\"stream_options\\""}', ASKED, id="within-a-text"),
        pytest.param(b'{"x":"\\ud83d","stream":true}', ASKED, id="half-a-surrogate-pair"),
        pytest.param(b'{"x":"\\ud83d","stream_options":{},"stream":true} ', ASKED, id="half-a-pair-and-options"),
        pytest.param(b'{"x":"\\ud83d","stream\\u005foptions":null,"stream":true}', ASKED, id="half-a-pair-and-escapes"),
    ],
)
def test_with_usage(body: bytes, options: dict[str, bool]) -> None:
    """However a call's options are written, its stream is asked for usage; all else stays what it was."""
    before, after = json.loads(body), json.loads(with_usage(body))
    assert after.pop("stream_options") == options
    before.pop("stream_options", None)
    assert after == before


def test_with_usage_changes_nothing_else() -> None:
    """Of an ordinary body every byte goes on, in its place."""
    body = b' {"n" : 1.0, "n" : 1e0,\n"stream":true , "a":"\xff"} '
    assert with_usage(body) == b' {"stream_options":{"include_usage":true},' + body[2:]


@pytest.mark.parametrize("options", [b"true", b'"x"', b"[]", b"1"])
def test_options_that_are_none_are_the_upstreams_to_refuse(options: bytes) -> None:
    """What is no object of options goes on as it is."""
    body = b'{"stream":true,"stream_options":%b}' % options
    assert with_usage(body) is body


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES | st.just("stream_options"), VALUES, max_size=5), st.booleans())
def test_with_usage_property(members: dict[str, Any], is_ascii: bool) -> None:
    """Whatever a body holds, it asks for usage then, or its options are none; every other value has its own bytes."""
    try:
        body = json.dumps({**members, "stream": True}, ensure_ascii=is_ascii).encode()
        before = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (UnicodeEncodeError, msgspec.DecodeError):
        return  # a lone surrogate, or a number that JSON has not
    after = msgspec.json.decode(with_usage(body), type=dict[str, msgspec.Raw])
    options = after.pop("stream_options")
    given_options = before.pop("stream_options", msgspec.Raw(b"null"))
    if bytes(given_options)[:1] in (b"{", b"n"):
        assert asks_usage(bytes(options))
    else:
        assert bytes(options) == bytes(given_options)
    assert {name: bytes(value) for name, value in after.items()} == {
        name: bytes(value) for name, value in before.items()
    }


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
    ],
)
def test_most_tokens(body: bytes, expected: int | None) -> None:
    """The most that an answer may have is what the body says, for each choice; nonsense says nothing."""
    assert read_routing(body).most_tokens == expected
