"""openai-forward's log: its lines are told from ours, never evaluated, and joined into records."""

from datetime import UTC, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_api import forward_log
from chat_api.conversations import Unreadable, parse_record
from chat_api.forward_log import Half, Joiner, half_of, joined, parse_literal
from tests.conversation_logs import answer_line, asked_line


def half(line: str) -> Half:
    """The half that a line is."""
    members = parse_literal(line.encode())
    assert members is not None
    found = half_of(members, len(line))
    assert found is not None
    return found


def test_a_request_and_its_answer_are_a_record() -> None:
    """What it logged has our names; its parameters of None were not asked for; its times have a zone of their own."""
    made = joined(half(asked_line("u")), half(answer_line("u")), timezone(timedelta(hours=2)))

    assert made.members == {
        "time": "2023-10-17T13:27:00Z",
        "request_id": "u",
        "address": "10.1.2.3",
        "operation": "chat/completions",
        "model": "gpt-4",
        "status": 200,
        "stream": True,
        "parameters": {"temperature": 1},
        "messages": [{"role": "user", "content": "hi"}],
        "answer": {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}}]},
        "ended": "complete",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param(
            "{'assistant': {'name': 'f', 'arguments': '{}'}, 'is_function_call': True, 'uid': 'u'}",
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            id="october-2023",
        ),
        pytest.param(
            "{'assistant': [{'id': 'c', 'function': {'name': 'f'}}], 'is_tool_calls': True, 'uid': 'u'}",
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f"}}]},
            id="later",
        ),
        pytest.param("{'assistant': 'a', 'uid': 'u'}", {"role": "assistant", "content": "a"}, id="earlier"),
        pytest.param('{"assistant": "a", "uid": "u"}', {"role": "assistant", "content": "a"}, id="json"),
    ],
)
def test_answers_of_its_versions(line: str, message: object) -> None:
    """Functions, tools and text, as each of its versions logged them."""
    found = half_of(parse_literal(line.encode()) or parse_record(line.encode()))
    assert found is not None

    assert joined(half(asked_line("u")), found, UTC).members["answer"] == {
        "choices": [{"index": 0, "message": message}]
    }


def test_other_requests_of_its_versions() -> None:
    """Messages by role of early versions, and completions."""
    early = half("{'messages': [{'user': 'hi'}], 'model': 'm', 'ip': '', 'uid': 'u', 'datetime': 'soon'}")
    prompt = half("{'prompt': 'hi', 'model': 'm', 'stream': True, 'temperature': 1, 'ip': '', 'uid': 'u'}")

    assert joined(early, None, UTC).members["messages"] == [{"role": "user", "content": "hi"}]
    assert "time" not in joined(early, None, UTC).members
    made = joined(prompt, half("{'text': 'a', 'uid': 'u'}"), UTC).members
    assert (made["operation"], made["prompt"]) == ("completions", "hi")
    assert made["answer"] == {"choices": [{"index": 0, "text": "a"}]}


def test_a_line_with_the_head_of_its_standard_format() -> None:
    """What loguru writes before a message is no part of it."""
    line = "2023-10-17 15:27:12.345 | DEBUG    | openai_forward.content.openai:log:173 - " + answer_line("u")

    assert parse_literal(line.encode()) == {"assistant": "Hello!", "is_function_call": False, "uid": "u"}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("{'a': __import__('os').system('true')}", id="a-call"),
        pytest.param("{'a': b'bytes'}", id="no-json"),
        pytest.param("{'a': 1e999}", id="infinite"),
        pytest.param("{'a': {1, 2}}", id="a-set"),
        pytest.param("{'a': 'torn", id="torn"),
        pytest.param("{'a': 1}, 2", id="no-dict"),
        pytest.param("{'a': '\\d" + "\x00'}", id="nul"),
        pytest.param("{'a': " + "(" * 5_000 + ")" * 5_000 + "}", id="deep"),
        pytest.param("{'a': " + "-" * 100_000 + "1}", id="deep-in-another-way"),
        pytest.param("{'a': [" + "0," * forward_log.MAX_MEMBERS + "]}", id="too-many-members"),
        pytest.param("{'a': " + "9" * 5_000 + "}", id="a-huge-number"),
    ],
)
def test_literals_that_are_not_taken(line: str) -> None:
    """Nothing but plain values, and not too many: the line is skipped, and nothing in it is done."""
    with pytest.raises(Unreadable):
        parse_literal(line.encode())


def test_what_is_no_literal_is_left_to_others() -> None:
    """JSON and anything else does not begin as its lines do."""
    assert parse_literal(b'{"time": 1}') is None
    assert parse_literal(b"['a']") is None
    assert half_of({"uid": 1, "messages": []}) is None
    assert half_of({"uid": "u", "object": "list"}) is None


def test_many_quotes_in_a_torn_line_cost_no_time() -> None:
    """Looking for the strings of a line is linear, however its quotes stand."""
    with pytest.raises(Unreadable):
        parse_literal(b"{'a': \"" + b"\\'" * 300_000)


def test_long_text_is_no_crowd_of_members() -> None:
    """Commas and brackets within strings do not count."""
    text = "[,:{" * forward_log.MAX_MEMBERS

    assert parse_literal(repr({"a": text, "b": f"'{text}"}).encode()) == {"a": text, "b": f"'{text}"}


def test_records_come_in_the_order_of_the_requests() -> None:
    """Whoever is answered first waits for those who asked before; what is never answered comes at the end."""
    joiner = Joiner(UTC)
    lines = [asked_line("a"), asked_line("b"), answer_line("b"), answer_line("a"), asked_line("c"), answer_line("x")]
    counts = [[made.members["request_id"] for made in joiner.add(half(line))] for line in lines]

    assert counts == [[], [], [], ["a", "b"], [], []]
    assert [(made.members["request_id"], "answer" in made.members) for made in joiner.rest()] == [("c", False)]
    assert joiner.lonely == 1


@pytest.mark.parametrize("bounds", [{"held_lines": 2}, {"held_bytes": 2 * len(asked_line("0"))}])
def test_not_too_many_wait(bounds: dict[str, int]) -> None:
    """Beyond a number or a size the first is given without its answer, and that is then one without a request."""
    joiner = Joiner(UTC, **bounds)
    given = [made.members["request_id"] for uid in "0123" for made in joiner.add(half(asked_line(uid)))]

    assert given == ["0", "1"]
    assert list(joiner.add(half(answer_line("0")))) == []
    assert joiner.lonely == 1
    assert [made.members["request_id"] for made in joiner.add(half(answer_line("2")))] == ["2"]


def test_the_last_of_the_same_uid_goes() -> None:
    """As openai-forward has it where two have one uid."""
    joiner = Joiner(UTC)
    for line in (
        asked_line("a"),
        asked_line("b", "first"),
        asked_line("b", "last"),
        answer_line("b"),
        answer_line("b"),
    ):
        assert list(joiner.add(half(line))) == []

    made = list(joiner.rest())
    assert [one.members["messages"][0]["content"] for one in made] == ["hi", "last"]
    assert joiner._size == 0


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_every_dict_that_it_logged_is_read(content: object) -> None:
    """Python's own text of any JSON is read back as it was."""
    logged = {"messages": [{"role": "user", "content": content}], "uid": "u"}

    assert parse_literal(str(logged).encode("utf-8", "surrogatepass")) == logged
