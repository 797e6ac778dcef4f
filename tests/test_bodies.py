"""JSON bodies, forms and query strings, made into fields."""

import pytest
from msgspec import Raw

from chat_api.bodies import merge, read_form, read_json
from chat_api.errors import RequestError
from tests.values import plain

DEEP = 100_000


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"{}", {}, id="empty-object"),
        pytest.param(b' \r\n{"prompt" : "hi" }\n', {"prompt": b'"hi"'}, id="white-space"),
        pytest.param(b'\xef\xbb\xbf{"prompt":"hi"}', {"prompt": b'"hi"'}, id="bom"),
        pytest.param(b'{"a":1.0,"b":[ 1e0 ],"c":null}', {"a": b"1.0", "b": b"[ 1e0 ]", "c": b"null"}, id="as-written"),
        pytest.param(b'{"pr\\u006fmpt":"\\u00e9"}', {"prompt": b'"\\u00e9"'}, id="escapes"),
        pytest.param('{"prompt":"é😀"}'.encode(), {"prompt": '"é😀"'.encode()}, id="utf-8"),
    ],
)
def test_read_json(body: bytes, expected: dict[str, bytes]) -> None:
    """The fields of a JSON object come out as they were written."""
    assert plain(read_json(body)) == expected


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        pytest.param(b"", "the body is empty; it takes a JSON object with a prompt", "empty_body", id="empty"),
        pytest.param(b" \r\n", "the body is empty; it takes a JSON object with a prompt", "empty_body", id="blank"),
        pytest.param(
            b"\xef\xbb\xbf", "the body is empty; it takes a JSON object with a prompt", "empty_body", id="only-a-bom"
        ),
        pytest.param(b"[1]", "the body is an array; it takes a JSON object with a prompt", "invalid_json", id="array"),
        pytest.param(b'"hi"', "the body is text; it takes a JSON object with a prompt", "invalid_json", id="text"),
        pytest.param(b"5", "the body is a number; it takes a JSON object with a prompt", "invalid_json", id="number"),
        pytest.param(b" null", "the body is null; it takes a JSON object with a prompt", "invalid_json", id="null"),
        pytest.param(
            b'{"prompt":"\xff"}',
            "the body is not UTF-8 (byte 11); it takes a JSON object in UTF-8",
            "invalid_json",
            id="utf-8",
        ),
        pytest.param(
            b'{"messages":[{"role":"user","content":"caf\xe9"}]}',
            "the body is not UTF-8 (byte 42); it takes a JSON object in UTF-8",
            "invalid_json",
            id="utf-8-nested",
        ),
        pytest.param(
            b'{"a\xff":1}', "the body is not UTF-8 (byte 3); it takes a JSON object in UTF-8", "invalid_json", id="key"
        ),
        pytest.param(b'{"messages":' + b"[" * DEEP, "the body is nested too deeply", "invalid_json", id="deep-arrays"),
        pytest.param(b'{"a":' * DEEP, "the body is nested too deeply", "invalid_json", id="deep-objects"),
    ],
)
def test_read_json_refuses(body: bytes, message: str, code: str) -> None:
    """A body that is no JSON object in UTF-8 is refused with what it is instead."""
    with pytest.raises(RequestError) as caught:
        read_json(body)
    assert (caught.value.status, caught.value.message, caught.value.code) == (400, message, code)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"hello", id="words"),
        pytest.param(b'{"prompt":"hi"', id="cut"),
        pytest.param(b'{"prompt":"hi"} x', id="trailing-characters"),
        pytest.param(b'{"prompt":"hi"}{"prompt":"hi"}', id="two-objects"),
        pytest.param(b'{"prompt":"hi",}', id="trailing-comma"),
        pytest.param(b'{"temperature":NaN}', id="nan"),
        pytest.param(b'{"temperature":01}', id="leading-zero"),
        pytest.param(b"{prompt:hi}", id="cmd-took-the-quotes"),
        pytest.param(b'\xef\xbb\xbf\xef\xbb\xbf{"prompt":"hi"}', id="two-boms"),
    ],
)
def test_read_json_refuses_what_is_not_json(body: bytes) -> None:
    """What is not JSON at all is refused as such, without the hint about quotes."""
    with pytest.raises(RequestError) as caught:
        read_json(body)
    assert caught.value.message.startswith("the body is not JSON: ")
    assert "quotes" not in caught.value.message
    assert caught.value.code == "invalid_json"


def test_read_json_refuses_arrays_without_end() -> None:
    """Brackets alone, 100000 of them, are refused and never a RecursionError."""
    with pytest.raises(RequestError) as caught:
        read_json(b"[" * DEEP)
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize("body", [b"'{prompt: hi}'", b'\'{"prompt": "hi"}\'', b"'{prompt:"])
def test_read_json_knows_windows_quotes(body: bytes) -> None:
    """A body in single quotes comes from cmd.exe, and the message shows the quotes that work there."""
    with pytest.raises(RequestError) as caught:
        read_json(body)
    assert caught.value.message.endswith('; your shell passed its quotes on: try -d "{\\"prompt\\": \\"…\\"}"')
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", {}, id="empty"),
        pytest.param("prompt=hi", {"prompt": "hi"}, id="one"),
        pytest.param("prompt=a+b%20c%2B&n=2", {"prompt": "a b c+", "n": "2"}, id="escapes"),
        pytest.param("prompt=%C3%A9%F0%9F%98%80", {"prompt": "é😀"}, id="utf-8"),
        pytest.param("prompt=é", {"prompt": "é"}, id="unescaped"),
        pytest.param("prompt=a=b;c", {"prompt": "a=b;c"}, id="separators-in-a-value"),
        pytest.param("prompt=", {"prompt": ""}, id="empty-value"),
        pytest.param("prompt&user=x", {"prompt": "", "user": "x"}, id="no-value"),
        pytest.param("stop=a", {"stop": "a"}, id="one-stop"),
        pytest.param("stop=a&stop=b", {"stop": ["a", "b"]}, id="two-stops"),
        pytest.param("stop=a&n=1&stop=b&stop=c", {"stop": ["a", "b", "c"], "n": "1"}, id="three-stops"),
    ],
)
def test_read_form(text: str, expected: dict[str, object]) -> None:
    """A form's fields are text; `stop` may come several times."""
    assert read_form(text) == expected


@pytest.mark.parametrize(
    ("text", "message", "param", "code"),
    [
        pytest.param("n=1&n=1", 'field "n" is given twice', "n", "invalid_value", id="twice"),
        pytest.param("stop=a&stop=b&x=&x=", 'field "x" is given twice', "x", "invalid_value", id="twice-empty"),
        pytest.param("prompt=%ff", "the form is not UTF-8", None, "invalid_form", id="value-not-utf-8"),
        pytest.param("%e9=1", "the form is not UTF-8", None, "invalid_form", id="name-not-utf-8"),
        pytest.param("prompt=%C3", "the form is not UTF-8", None, "invalid_form", id="half-a-character"),
        pytest.param(
            "&".join(f"f{number}=1" for number in range(201)),
            "the form has more than 200 fields; text that holds & takes --data-urlencode",
            None,
            "invalid_form",
            id="201-fields",
        ),
    ],
)
def test_read_form_refuses(text: str, message: str, param: str | None, code: str) -> None:
    """A field given twice, too many fields and bytes that are no UTF-8 are refused."""
    with pytest.raises(RequestError) as caught:
        read_form(text)
    error = caught.value
    assert (error.status, error.message, error.param, error.code) == (400, message, param, code)


def test_read_form_takes_200_fields() -> None:
    """The two hundredth field is still read."""
    fields = read_form("&".join(f"f{number}=1" for number in range(200)))
    assert (len(fields), fields["f199"]) == (200, "1")


def test_merge() -> None:
    """Body and query string each add their fields."""
    prompt = Raw(b'"hi"')
    assert merge({"prompt": prompt}, {"n": "2"}) == {"prompt": prompt, "n": "2"}
    assert merge({}, {}) == {}


@pytest.mark.parametrize("name", ["prompt", "stop"])
def test_merge_conflict(name: str) -> None:
    """A field in both the body and the query string is refused, even with one value."""
    with pytest.raises(RequestError) as caught:
        merge({"user": "u", name: "x"}, {"n": "2", name: "x"})
    assert caught.value.message == f'field "{name}" is given twice: in the body and in the query string'
    assert (caught.value.param, caught.value.code) == (name, "invalid_value")


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        pytest.param(b"{'prompt': 'hi'}", "double quotes", id="python-dict"),
        pytest.param(b"prompt=hi", "leave the content type out", id="form"),
        pytest.param(b'{"prompt":"\\ud83d"}', "surrogate", id="half-a-pair"),
    ],
)
def test_what_is_no_json_is_explained(body: bytes, hint: str) -> None:
    """Where it shows what a person did, the message says what to do instead."""
    with pytest.raises(RequestError, match=hint):
        read_json(body)


def test_plain_text_as_a_form_is_told_how_to_be_sent() -> None:
    """`curl -d 'Say hello'` sends a form without a field."""
    with pytest.raises(RequestError, match="text/plain"):
        read_form("Say hello")
