"""The forms of the log: each whole and readable by what it is for, and nothing in a record breaks out of one."""

import csv
import io
import json
import re
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_api.conversation_forms import COLUMNS, FORMS, Writing, as_forward, as_line, as_markdown, as_row, form_of
from chat_api.conversations import Record, is_record
from chat_api.log_reading import LogReader, read_line
from tests.conversation_logs import line, members, record
from tests.test_conversations import JSON

THEIRS = Path(__file__).parent / "openai_forward"
WEATHER = {"name": "weather", "arguments": "{}"}


def written(form: str, *records: Record) -> bytes:
    """Records in a form."""
    return b"".join(Writing(form_of(form, UTC)).pieces(records))


def row(made: Record) -> dict[str, str]:
    """A record's cells by their columns."""
    ((*cells,),) = csv.reader(io.StringIO(as_row(made).decode(), newline=""))
    return dict(zip(COLUMNS, cells, strict=True))


def test_openai_forward_has_its_own_bytes() -> None:
    """What openai-forward 0.6.3 made of a log of its own, its `convert` run on the same lines, is what comes out."""
    problems: list[object] = []
    records = LogReader(problems.append).records([THEIRS / "chat.log"])
    writing = Writing(form_of("openai-forward"))

    assert b"".join(writing.pieces(records)) == (THEIRS / "chat_openai.json").read_bytes()
    assert (problems, writing.left_out) == ([], 1)


def test_openai_forward_of_our_own_records() -> None:
    """The same members in the same order, of what this server logs."""
    (item,) = json.loads(
        written("openai-forward", record(parameters={"tools": [{"type": "function", "function": {}}]}))
    )

    assert list(item.items()) == [
        ("datetime", "2026-11-21 10:00:00"),
        ("ip", "127.0.0.1"),
        ("model", "gpt-4o"),
        ("temperature", 1),
        ("messages", [{"system": "Be brief."}, {"user": "Hello?"}]),
        ("functions", [{}]),
        ("is_function_call", False),
        ("assistant", "Hi!"),
    ]


@pytest.mark.parametrize(
    ("message", "assistant"),
    [
        ({"function_call": WEATHER}, "{'name': 'weather', 'arguments': '{}'}"),
        ({"tool_calls": [{"function": WEATHER}]}, "{'name': 'weather', 'arguments': '{}'}"),
        ({"tool_calls": [{"function": {"name": "a"}}, {"function": {"name": "b"}}]}, "[{'name': 'a'}, {'name': 'b'}]"),
    ],
    ids=["function", "tool", "tools"],
)
def test_openai_forward_of_calls(message: object, assistant: str) -> None:
    """What is called is Python's text of it, as there; tools, which it did not know, are their functions."""
    (item,) = json.loads(written("openai-forward", record(answer={"choices": [{"message": message}]})))

    assert (item["is_function_call"], item["assistant"]) == (True, assistant)


@pytest.mark.parametrize(
    "changes",
    [{"messages": None}, {"messages": []}, {"answer": None}, {"answer": {"choices": []}}, {"answer": {"output": []}}],
    ids=["meta", "no-messages", "no-answer", "no-choice", "responses"],
)
def test_openai_forward_has_whole_chats_only(changes: dict[str, Any]) -> None:
    """It matched questions with their answers, and left out the rest."""
    assert as_forward(record(**changes)) is None
    assert written("openai-forward", record(**changes)) == b"[]"


def test_halves_of_surrogate_pairs_are_dropped_there() -> None:
    """As its own clean-up does; elsewhere they would have ended its conversion."""
    made = record(model="m\ud800", messages=[{"role": "user", "content": "a\udc00b"}])
    (item,) = json.loads(written("openai-forward", made))

    assert (item["model"], item["messages"]) == ("m", [{"user": "ab"}])


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(max_size=5), JSON), st.booleans())
def test_jsonl_is_the_record_again(more: dict[str, Any], as_ascii: bool) -> None:
    """Any record line comes out of jsonl as it went in, byte for byte, and what is made of it reads the same."""
    given_line = json.dumps(members() | more, ensure_ascii=as_ascii).encode("utf-8", "backslashreplace") + b"\n"
    made = read_line(given_line) if is_record(members() | more) else Record(members() | more)
    assert isinstance(made, Record)

    assert not made.line or as_line(made) == given_line
    again = read_line(as_line(Record(made.members))) if is_record(made.members) else made
    assert isinstance(again, Record)
    assert again.members == made.members
    assert json.loads(written("json", made, made)) == [made.members, made.members]


def test_halves_of_surrogate_pairs_are_spelled_out_in_json() -> None:
    """No file can hold one otherwise."""
    made = record(model="m\ud800")

    assert json.loads(as_line(made)) == made.members
    assert b"m\\ud800" in written("markdown", made)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_to_write(form: str) -> None:
    """No records: an empty list, only the head of a table, nothing."""
    empty = {"json": b"[]\n", "openai-forward": b"[]", "csv": ",".join(COLUMNS).encode() + b"\r\n"}

    assert written(form) == empty.get(form, b"")


def test_json_is_indented() -> None:
    """A list of the records, each as it is, for people to look at as well."""
    lines = written("json", record(), record(1)).decode().splitlines()

    assert lines[:3] == ["[", "  {", '    "time": "2026-11-21T10:00:00.123Z",']
    assert lines[-2:] == ["  }", "]"]


def test_csv() -> None:
    """One row for an exchange, CRLF at its end; who said what is text, what was called JSON."""
    text = written("csv", record(answer={"choices": [{"message": {"tool_calls": [{"function": WEATHER}]}}]}))
    cells = row(record(error={"code": "c", "message": "m"}, ended="broken"))

    assert text.count(b"\r\n") == 2
    assert next(csv.DictReader(io.StringIO(text.decode(), newline="")))["tool_calls"] == json.dumps([WEATHER])
    assert {name: cells[name] for name in ("status", "stream", "seconds", "total_tokens", "finish_reason")} == {
        "status": "200",
        "stream": "true",
        "seconds": "1.234",
        "total_tokens": "15",
        "finish_reason": "stop",
    }
    assert (cells["messages"], cells["answer"]) == ("system: Be brief.\n\nuser: Hello?", "Hi!")
    assert (cells["ended"], cells["error_code"], cells["error"]) == ("broken", "c", "m")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\n=", " =", "\uff1d", "\r="])
def test_csv_cells_are_no_formulas(start: str) -> None:
    """What a spreadsheet would reckon with begins with an apostrophe; control characters are spelled out."""
    cells = row(record(model=f"{start}cmd|' /C calc'!A0", answer={"output_text": f"{start}1"}))

    for cell in (cells["model"], cells["answer"]):
        assert cell.startswith(("'", "\\r"))


def test_markdown() -> None:
    """A section an exchange: its facts, and who said what."""
    page = written("markdown", record(parameters=None, usage=None, timings=None), record(1)).decode()

    assert page.startswith("## 2026-11-21 10:00:00 UTC `gpt-4o`\n\n- request_id: `req-0`\n- key: `alice`\n")
    assert (
        "\n- ended: `complete`\n\n### `system`\n\n```text\nBe brief.\n```\n\n### `user`\n\n```text\nHello?\n```\n"
        in page
    )
    assert "```text\nHi!\n```\n\n## 2026-11-21 10:00:01 UTC `gpt-4o`\n" in page


@given(st.text("`~\n a<", max_size=40), st.text("` \na<", max_size=20))
def test_markdown_has_no_way_out_of_a_fence(text: str, name: str) -> None:
    """No line of what was said has as many ticks as its fence; no name ends its span, or its line."""
    page = as_markdown(record(messages=[{"role": name, "content": text}], answer=None, key=name or "k")).decode()
    opening = re.search("\n(```+)text\n", page)

    assert opening is not None
    body = page[opening.end() :]
    assert body.endswith(f"\n{opening[1]}\n")
    assert opening[1] not in body.removesuffix(f"\n{opening[1]}\n")
    assert page.count("\n- key: ") == page[: opening.start()].count("\n### ") == 1


def test_markdown_spans_hold_ticks() -> None:
    """A name of ticks stands within more of them."""
    assert b"- key: ``` a``b` ```\n" in as_markdown(record(key="a``b`"))


def test_a_line_that_was_read_is_written_as_it_stands() -> None:
    """Not even a space of it is changed."""
    text = line().replace('"key":', '"key" : ').encode()
    made = read_line(text)
    assert isinstance(made, Record)

    assert as_line(made) == text
