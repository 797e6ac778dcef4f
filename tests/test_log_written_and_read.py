"""Records as the server writes them, read by the commands that show and convert them."""

import csv
import io
import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from chat_api.cli import main
from chat_api.conversation_forms import FORMS
from chat_api.conversation_log import ConversationLog
from chat_api.redaction import parse_rule
from tests.conversations import AT, CHAT, an_exchange, encoded, logging_into, stream_of, until

REFUSED = {
    "error": {
        "code": "content_filter",
        "message": "The prompt was filtered.",
        "innererror": {"content_filter_result": {"hate": {"filtered": True, "severity": "high"}}},
    }
}
ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "The sea."}, "finish_reason": "stop"}]}
PIECES = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("The ", "la")]
EXCHANGES = (
    an_exchange(ANSWER, request_id="plain"),
    an_exchange(
        stream_of(PIECES).removesuffix(b"data: [DONE]\n\n"),
        request_id="broken",
        at=AT + 1,
        is_stream=True,
        ended="broken",
        error_code="stream_broken",
        error="It broke.",
    ),
    an_exchange(ANSWER, request_id="meta", at=AT + 2, has_words=False),
    an_exchange(REFUSED, request_id="refused", at=AT + 3, status=400, ended="refused"),
    an_exchange(ANSWER, encoded(CHAT).replace(b"0.2", b"1e999"), request_id="large", at=AT + 4),
    an_exchange(b"\xff{", b"{", request_id="odd", at=AT + 5),
)
SLOW = an_exchange(ANSWER, {"messages": [{"role": "user", "content": "a" * 60 + "!"}]}, at=AT + 6)
SHOWN = """\
2026-11-21 10:00:00 UTC  alice  gpt-4o at gpt-4o@host  200  1.25 s  plain
  system: Be kind.
  user: Größe 😀?
  answer: The sea.

2026-11-21 10:00:01 UTC  alice  gpt-4o at gpt-4o@host  200  1.25 s  broken
  system: Be kind.
  user: Größe 😀?
  answer: The la
  ended: broken
  error: stream_broken: It broke.

2026-11-21 10:00:02 UTC  alice  gpt-4o at gpt-4o@host  200  1.25 s  meta

2026-11-21 10:00:03 UTC  alice  gpt-4o at gpt-4o@host  400  1.25 s  refused
  system: Be kind.
  user: Größe 😀?
  ended: refused
  error: content_filter: The prompt was filtered.
  [filtered: hate]

2026-11-21 10:00:04 UTC  alice  gpt-4o at gpt-4o@host  200  1.25 s  large
  system: Be kind.
  user: Größe 😀?
  answer: The sea.

2026-11-21 10:00:05 UTC  alice  gpt-4o at gpt-4o@host  200  1.25 s  odd
  request: [unreadable: 1 bytes]
  answer: [unreadable: 2 bytes]

2026-11-21 10:00:06 UTC  alice  chat/completions at gpt-4o@host  200  1.25 s
  request: [unreadable: 104 bytes]
  answer: [unreadable: 100 bytes]

"""


def is_written(log: ConversationLog) -> bool:
    """Whether nothing waits."""
    return not log.state()["queued"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three writers at the same time have left, one of which could not redact in time."""
    folder = tmp_path_factory.mktemp("log")
    slow_rules = {"redact": [parse_rule("(a+)+b")], "redact_seconds": 0.1}
    with ExitStack() as stack:
        for exchanges, more in ((EXCHANGES[::2], {}), (EXCHANGES[1::2], {}), ((SLOW,), slow_rules)):
            log = stack.enter_context(logging_into(folder, **more))
            for exchange in exchanges:
                log.note(exchange)
            until(partial(is_written, log))  # its file is its own as long as it is open
    return folder


def run(*arguments: str | Path) -> str:
    """What a command of `log` prints, which complains of nothing."""
    result = CliRunner().invoke(main, ["log", *map(str, arguments)], env={"TZ": "UTC"})
    assert result.exit_code == 0
    assert result.stderr in ("", "Left out: 4, for openai-forward has whole chats only.\n")
    return result.stdout


def test_show(folder: Path) -> None:
    """What was asked, what was said so far, how it ended and why; of what is not logged nothing, or its size."""
    assert run("show", "--dir", folder) == SHOWN


@pytest.mark.parametrize("pattern", ["filtered: hate", "(?m)^error: stream_broken", "unreadable: 1 "])
def test_grep(folder: Path, pattern: str) -> None:
    """What is shown of an ending is found."""
    assert run("show", "--dir", folder, "--grep", pattern).count("2026-11-21 10:") == 1


@pytest.mark.parametrize("form", FORMS)
def test_convert(folder: Path, form: str) -> None:
    """Each form has all that it has a place for, and is what its name says."""
    text = run("convert", "--dir", folder, "--format", form)
    lines = sorted(line for path in folder.iterdir() for line in path.read_text().splitlines())

    if form == "jsonl":
        assert sorted(text.splitlines()) == lines
    elif form == "json":
        records = json.loads(text, parse_constant=pytest.fail)
        assert [record.get("request_id") for record in records] == [*(one.request_id for one in EXCHANGES), None]
        assert records[3]["answer"] == REFUSED
        assert records[4]["parameters"]["temperature"] == "1e999"
    elif form == "openai-forward":
        assert [item["assistant"] for item in json.loads(text)] == ["The sea.", "The la", "The sea."]
    elif form == "csv":
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert [row["error_code"] for row in rows] == ["", "stream_broken", "", "content_filter", "", "", ""]
        assert [row["answer"] for row in rows][:4] == ["The sea.", "The la", "", ""]
    else:
        assert text.count("\n## 2026") == 6
        assert "- answer error: `{" in text
        assert "\nThe la\n" in text


def test_files_of_several_writers(folder: Path) -> None:
    """Each has a file of its own, and all of them are read."""
    assert sorted(path.name for path in folder.iterdir()) == [
        "chat-2026-11-21.1.jsonl",
        "chat-2026-11-21.2.jsonl",
        "chat-2026-11-21.jsonl",
    ]
