"""Conversations for people: a head line, who said what, why it ended."""

from typing import Any

import pytest

from chat_api.conversation_text import as_text, searched
from tests.conversation_logs import record


def test_a_conversation() -> None:
    """Facts in one line, then everybody's words; nothing of an ending that is as it should be."""
    assert as_text(record()) == (
        "2026-11-21 10:00:00 UTC  alice  gpt-4o at gpt-4o@east  200  1.23 s  12 + 3 tokens  cache miss  req-0\n"
        "  system: Be brief.\n"
        "  user: Hello?\n"
        "  answer: Hi!\n"
    )


def test_one_that_failed() -> None:
    """How it ended and with which error stands below."""
    made = record(answer=None, ended="broken", error={"code": "c", "message": "It broke."}, attempts=2, usage=None)

    assert as_text(made) == (
        "2026-11-21 10:00:00 UTC  alice  gpt-4o at gpt-4o@east  200  1.23 s  cache miss  2 attempts  req-0\n"
        "  system: Be brief.\n"
        "  user: Hello?\n"
        "  ended: broken\n"
        "  error: c: It broke.\n"
    )


@pytest.mark.parametrize(
    ("error", "said", "told"),
    [
        pytest.param(None, {"code": "429", "message": "Wait."}, ["error: 429: Wait."], id="answer"),
        pytest.param(
            {"code": "c", "message": "Wait."}, {"code": "429", "message": "Wait."}, ["error: c: Wait."], id="same"
        ),
        pytest.param(
            {"code": "c", "message": "It broke."},
            {"message": "Wait."},
            ["error: c: It broke.", "error: Wait."],
            id="more",
        ),
        pytest.param({"code": "c"}, {"type": "t", "message": 5}, ["error: c", "error: t: 5"], id="no-message"),
        pytest.param({"code": "c"}, "no\nmore", ["error: c", "error: no\\nmore"], id="text"),
        pytest.param(
            {"code": "c"},
            {"innererror": {"content_filter_result": {"hate": {"filtered": True}, "violence": {"filtered": False}}}},
            ["error: c", "[filtered: hate]"],
            id="meta",
        ),
        pytest.param(None, {"innererror": [1]}, [], id="odd"),
    ],
)
def test_errors(error: object, said: object, told: list[str]) -> None:
    """What the caller was told, what the answer says if that is more, and what was filtered."""
    text = as_text(record(error=error, answer={"error": said}))

    assert text.splitlines()[3:] == [f"  {line}" for line in told]


def test_one_of_which_little_is_known() -> None:
    """What is not there is left out, or said to be missing."""
    nothing: dict[str, Any] = dict.fromkeys(("key", "model", "deployment", "status", "timings", "cache", "messages"))
    made = record(**nothing, answer=None, usage={"total_tokens": 7})

    assert as_text(made) == "2026-11-21 10:00:00 UTC  no key  chat/completions  no answer  7 tokens  req-0\n"


def test_no_text_passes_for_another_record() -> None:
    """Each further line of what was said is indented, whatever it pretends to be."""
    made = record(messages=[{"role": "user\nx", "content": "a\n2026-11-21 10:00:00 UTC  bob\r\n  answer: no"}])

    assert as_text(made).splitlines()[1:4] == [
        "  user\\nx: a",
        "    2026-11-21 10:00:00 UTC  bob",
        "      answer: no",
    ]


def test_colours_are_those_of_the_roles() -> None:
    """Only the labels, the time and the ending are painted; a call's id is part of its label."""
    painted: list[tuple[str, str]] = []

    def paint(kind: str, text: str) -> str:
        painted.append((kind, text))
        return text

    as_text(record(messages=[{"role": "tool", "tool_call_id": "c", "content": "21"}], ended="client left"), paint)

    assert painted == [
        ("head", "2026-11-21 10:00:00 UTC"),
        ("tool", "tool c:"),
        ("answer", "answer:"),
        ("ended", "ended: client left"),
    ]


def test_a_number_of_seconds_beyond_sense() -> None:
    """A damaged record is shown all the same."""
    assert " s  " not in as_text(record(timings={"seconds": 10**400}))


def test_what_is_searched() -> None:
    """All words, those of the ending as well."""
    assert searched(record(ended="client left")) == "system: Be brief.\nuser: Hello?\nanswer: Hi!\nended: client left"
