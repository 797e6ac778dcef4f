"""Which requests are the same: what makes a difference to the digest, what does not, and what has none."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat_api.canonical import asked_choices, canonical_key

CHAT = "chat/completions"
ASKED: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}


def key(operation: str = CHAT, scope: str = "", **members: Any) -> bytes | None:
    """The digest of a request with these members beside a model and a message."""
    return canonical_key(json.dumps({**ASKED, **members}).encode(), operation, scope=scope)


def key_of(text: str | bytes, operation: str = CHAT) -> bytes | None:
    """The digest of a body as it is written."""
    return canonical_key(text.encode() if isinstance(text, str) else text, operation)


def schema(*names: str) -> dict[str, Any]:
    """A tool whose parameters have these names, in this order."""
    parameters = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


def test_digest() -> None:
    """A digest has 32 bytes and stays the same from one version to the next: answers are kept for long."""
    found = key(temperature=0.5, scope="alice")

    assert found is not None
    assert found.hex() == "775157bb1065cff352aad5dc64162a6389adb2e73b0a402ed2f8288a3d8912a7"


@pytest.mark.parametrize(
    "other",
    [
        {"stream": True},
        {"stream": False},
        {"stream": None},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"user": "alice"},
        {"safety_identifier": "a-1"},
        {"user_security_context": {"end_user_id": "a"}},
        {"metadata": {"team": "a"}},
        {"store": False},
        {"store": None},
        {"prompt_cache_key": "k"},
        {"prompt_cache_retention": "24h"},
    ],
    ids=str,
)
def test_says_nothing_of_the_answer(other: dict[str, Any]) -> None:
    """Who asks, how the answer is told, and what is stored of it nowhere, make no difference."""
    assert key(**other) == key() != None  # noqa: E711


@pytest.mark.parametrize(
    "other",
    [
        {"model": "gpt-4o-mini"},
        {"messages": [{"role": "user", "content": "Hello"}]},
        {"messages": [{"role": "user", "content": "hello", "name": "a"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]},
        {"temperature": 1},
        {"temperature": None},
        {"seed": 1},
        {"n": 2},
        {"service_tier": "flex"},
        {"unheard_of": 1},
        {"tools": []},
        {"data_sources": [{"type": "azure_search"}]},
    ],
    ids=str,
)
def test_shapes_the_answer(other: dict[str, Any]) -> None:
    """Every other member makes a difference, known or not, null or not."""
    assert None not in (key(), key(**other))
    assert key(**other) != key()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param('{"a":1,"b":{"c":2,"d":3}}', '{"b":{"d":3,"c":2},"a":1}', id="order"),
        pytest.param('{"a":[1,2]}', ' {\n"a" :\t[ 1,\r\n2 ] } ', id="white-space"),
        pytest.param('{"a":"é\\n/😀"}', '{"\\u0061":"\\u00e9\\u000a\\/\\ud83d\\ude00"}', id="escapes"),
        pytest.param('{"a":"say \\"hi\\""}', '{"a":"say \\u0022hi\\u0022"}', id="quotes"),
        pytest.param('{"a":"\\\\\\"u0022"}', '{"a":"\\u005c\\u0022u0022"}', id="backslash-and-quote"),
        pytest.param('{"a":1}', '{"a":1.0}', id="fraction"),
        pytest.param('{"a":100}', '{"a":1E+2}', id="exponent"),
        pytest.param('{"a":0}', '{"a":-0.0}', id="minus-zero"),
        pytest.param('{"a":0.5}', '{"a":5e-1}', id="half"),
        pytest.param('{"a":[{"b":2.0}]}', '{"a":[{"b":2}]}', id="number-within"),
    ],
)
def test_spellings(one: str, other: str) -> None:
    """The same value, however it is spelled, is the same request."""
    assert key_of(one) == key_of(other) != None  # noqa: E711


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a":1}', '{"a":true}'),
        ('{"a":0}', '{"a":false}'),
        ('{"a":1}', '{"a":"1"}'),
        ('{"a":"true"}', '{"a":true}'),
        ('{"a":null}', '{"a":"null"}'),
        ('{"a":null}', "{}"),
        ('{"a":""}', '{"a":null}'),
        ('{"a":[]}', '{"a":{}}'),
        ('{"a":[1,2]}', '{"a":[2,1]}'),
        ('{"a":[[1],2]}', '{"a":[1,[2]]}'),
        ('{"a":9007199254740993}', '{"a":9007199254740992}'),
        ('{"a":0.1}', '{"a":0.10000000000000002}'),
        ('{"a":"e\u0301"}', '{"a":"\u00e9"}'),
        ('{"a":"\\u0000"}', '{"a":"u0000"}'),
        ('{"a":" b"}', '{"a":"b"}'),
        ('{"a":"\\\\u0022"}', '{"a":"\\u0022"}'),
    ],
)
def test_values_that_are_not_the_same(one: str, other: str) -> None:
    """Values of other types, orders of lists and texts of other characters are not the same."""
    assert None not in (key_of(one), key_of(other))
    assert key_of(one) != key_of(other)


@pytest.mark.parametrize("member", ["tools", "functions"])
def test_order_of_properties(member: str) -> None:
    """A schema's properties in another order are another request: they are filled in in that order."""
    one, same, other = (
        canonical_key(json.dumps({member: [schema(*names)]}).encode(), CHAT)
        for names in (("reason", "verdict"), ("reason", "verdict"), ("verdict", "reason"))
    )

    assert one == same != other


def test_order_of_properties_within() -> None:
    """It counts at any depth of a schema, but not outside of one, nor does the order of anything else in it."""
    deep = [{"type": "json_schema", "json_schema": {"schema": {"anyOf": [schema(*names)]}}} for names in ("ab", "ba")]
    first, second = (key(response_format=one) for one in deep)
    assert first != second

    turned = {name: schema("a", "b")[name] for name in ("function", "type")}
    assert key(tools=[turned]) == key(tools=[schema("a", "b")])
    two = {"one": schema("a", "b"), "two": schema("c", "d")}
    assert key(response_format=two) == key(response_format=dict(reversed(two.items())))
    assert key(data_sources=[schema("a", "b")]) == key(data_sources=[schema("b", "a")])


def test_scope_and_operation() -> None:
    """The digest differs by scope and by operation, wherever one ends and the other begins."""
    keys = [
        canonical_key(b"{}", operation, scope=scope)
        for operation in (CHAT, "completions", "embeddings")
        for scope in ("", "alice", "alic", "\0", "\0{}", "\ud800")
    ]

    assert None not in keys
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("operation", ["responses", "images/generations", "", "chat", "/chat/completions"])
def test_other_operations(operation: str) -> None:
    """There is no digest for any other operation."""
    assert key(operation) is None


@pytest.mark.parametrize(
    "other",
    [
        {"store": True},
        {"store": "yes"},
        {"stream": "true"},
        {"stream": 1},
        {"modalities": ["text", "audio"]},
        {"audio": {"voice": "alloy", "format": "wav"}},
    ],
    ids=str,
)
def test_not_to_be_repeated(other: dict[str, Any]) -> None:
    """What is to be stored upstream, spoken, or told nobody knows how, is asked each time."""
    assert key(**other) is None


@pytest.mark.parametrize("other", [{"modalities": ["text"]}, {"modalities": None}, {"audio": None}], ids=str)
def test_text_only(other: dict[str, Any]) -> None:
    """An answer that is not spoken can be repeated, though the request mentions speech."""
    assert key(**other) is not None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'"a"', id="text"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"{} {}", id="two"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte-order-mark"),
        pytest.param(b'{"a":NaN}', id="nan"),
        pytest.param(b'{"a":1e400}', id="infinite"),
        pytest.param(b'{"a":-1e400}', id="minus-infinite"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="long-integer"),
        pytest.param(b'{"a":"\xff"}', id="no-utf-8"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="surrogate-in-utf-8"),
        pytest.param(b'{"a":"\\ud83d"}', id="half-a-pair"),
        pytest.param(b'{"\\ude00":1}', id="half-a-pair-in-a-name"),
        pytest.param(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep"),
        pytest.param(b'{"a":1,"a":2}', id="twice"),
        pytest.param(b'{"user":"a","user":"b"}', id="twice-of-no-interest"),
        pytest.param(b'{"a":1,"\\u0061":1}', id="twice-escaped"),
        pytest.param(b'{"a":[{"b":1,"b":"\\u0022"}]}', id="twice-within"),
        pytest.param(b'{"a":1,"a":"\\u0022\\\\u0022"}', id="twice-and-escapes"),
    ],
)
def test_no_digest(body: bytes) -> None:
    """What is no JSON object for certain has no digest, and never raises."""
    assert key_of(body) is None


@pytest.mark.parametrize("depth", [100, 500, 900, 990, 1100, 100_000])
def test_deep_schema(depth: int) -> None:
    """A schema of any depth raises nothing; one of a hundred levels has its digest."""
    found = key_of(b'{"tools":' + b'{"properties":' * depth + b"1" + b"}" * (depth + 1))

    assert found is not None or depth > 100


def test_large_numbers() -> None:
    """Numbers beyond 64 bits are told apart as long as they can be read."""
    keys = {key_of(f'{{"a":{number}}}') for number in ("1" + "0" * 40, "1" + "0" * 39 + "1", "1e300", "-1e300")}

    assert None not in keys
    assert len(keys) == 4


texts = st.text(st.sampled_from('ab1é€😀\u0301"\\/\n\0 :u'), max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def turned(value: Any) -> Any:
    """A value with all of its members in the other order, and numbers in their other spelling."""
    if isinstance(value, dict):
        return {name: turned(child) for name, child in reversed(value.items())}
    if isinstance(value, list):
        return [turned(child) for child in value]
    return float(value) if type(value) is int and float(value) == value else value


def plain(value: Any) -> Any:
    """A value whose equality is that of JSON: numbers by their value, true apart from 1."""
    if isinstance(value, dict):
        return {name: plain(child) for name, child in value.items()}
    if isinstance(value, list):
        return [plain(child) for child in value]
    return (str(type(value)) if isinstance(value, bool) else "", value)


@given(st.dictionaries(st.sampled_from("abcd"), json_values, max_size=4))
@settings(deadline=None)
def test_any_spelling(members: dict[str, Any]) -> None:
    """Any object has one digest, in whatever order and however escaped and spaced it is written."""
    found = key_of(json.dumps(members))

    assert found is not None
    assert found == key_of(json.dumps(turned(members), ensure_ascii=False, indent=1))


@given(*[st.dictionaries(st.sampled_from("ab"), json_values, max_size=2)] * 2)
@example({"a": 1}, {"a": True})
@settings(deadline=None)
def test_any_difference(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two objects have the same digest if they are the same JSON, and only then."""
    is_same = plain(one) == plain(other)

    assert (key_of(json.dumps(one)) == key_of(json.dumps(other))) == is_same


@given(st.binary(max_size=40) | st.text(st.sampled_from('{}[]",:\\u0022ab1e.-'), max_size=40).map(str.encode))
@settings(deadline=None)
def test_any_bytes(body: bytes) -> None:
    """No bytes at all raise anything, neither for their digest nor for how many answers they ask for."""
    assert key_of(body) is None or json.loads(body) is not None
    asked_choices(body, CHAT)
    asked_choices(body, "embeddings")


@pytest.mark.parametrize(
    ("operation", "members", "expected"),
    [
        (CHAT, {}, 1),
        (CHAT, {"n": None}, 1),
        (CHAT, {"n": 3}, 3),
        (CHAT, {"n": 3.0}, 3),
        (CHAT, {"n": True}, None),
        (CHAT, {"n": "3"}, None),
        (CHAT, {"n": 0}, None),
        (CHAT, {"n": 1.5}, None),
        ("completions", {"prompt": "a"}, 1),
        ("completions", {"prompt": ["a", "b"], "n": 2}, 4),
        ("completions", {"prompt": [1, 2, 3]}, 1),
        ("completions", {"prompt": [[1, 2], [3]]}, 2),
        ("completions", {"prompt": []}, 1),
        ("embeddings", {"input": "a"}, 1),
        ("embeddings", {"input": ["a", "b", "c"]}, 3),
        ("embeddings", {"input": [[1], [2]], "n": 7}, 2),
    ],
)
def test_asked_choices(operation: str, members: dict[str, Any], expected: int | None) -> None:
    """How many answers are asked for: `n` for each prompt, a vector for each text."""
    assert asked_choices(json.dumps(members).encode(), operation) == expected


@pytest.mark.parametrize("body", [b"", b"[]", b'{"n":1e999}', b"[" * 100_000])
def test_asked_choices_of_no_object(body: bytes) -> None:
    """Of what is no JSON object nobody knows what it asks for."""
    assert asked_choices(body, CHAT) is None
