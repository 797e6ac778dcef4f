"""Redaction: which expressions are taken, what they reach, and the process in which they run."""

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chat_api import redactor
from chat_api.config_file import Config, read_config
from chat_api.redaction import parse_rule, redacted_line
from chat_api.redactor import Redactor, serve
from chat_api.settings import SettingsError, load

PATTERN_FORM = r"a regular expression such as \b\d{16}\b"
RECORD = {
    "time": "2026-11-21T10:00:00.123Z",
    "operation": "chat/completions",
    "key": "alice",
    "messages": [{"role": "user", "content": "I am alice@example.com, 4111 1111 1111 1111", "n": 4111}],
    "answer": {"alice": [None, True, 1.5, "alice"]},
    "ended": "complete",
}
LINE = json.dumps(RECORD).encode()


def test_every_text_is_redacted() -> None:
    """Rules reach all texts, one after the other; not names of members, numbers, the time and our own words."""
    rules = [
        parse_rule(r"[\w.]+@[\w.]+"),
        parse_rule(r"(?:\d{4} ){3}(\d{4})", r"card \1"),
        parse_rule("alice", ""),
        parse_rule("complet|2026"),
    ]
    record = json.loads(redacted_line(LINE, rules))

    assert record == RECORD | {
        "key": "",
        "messages": [{"role": "user", "content": "I am ***, card 1111", "n": 4111}],
        "answer": {"alice": [None, True, 1.5, ""]},
    }


@pytest.mark.parametrize(
    ("pattern", "replace", "problem"),
    [
        pytest.param("(", None, "missing ), unterminated subpattern at position 0", id="open"),
        pytest.param("a{99999999999}", None, "the repetition number is too large", id="too-large"),
        pytest.param("(a)", r"\2", "its replacement: invalid group reference 2 at position 1", id="no-such-group"),
        pytest.param("(a)", r"\g<b>", "its replacement: unknown group name 'b'", id="no-such-name"),
        pytest.param("a*", None, "it finds what is empty, between any two letters", id="empty"),
    ],
)
def test_expressions_that_cannot_be_used(pattern: str, replace: str | None, problem: str) -> None:
    """What is no expression, or finds nothing everywhere, is refused with its reason."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the reason is compared
        parse_rule(pattern, replace)
    assert problem in str(caught.value)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Config]:
    """Reads a config file with this content."""

    def read(content: str) -> Config:
        (tmp_path / "config.yaml").write_text(content)
        return read_config(tmp_path / "config.yaml")

    return read


def test_config_file_has_rules(read: Callable[[str], Config]) -> None:
    """An entry is an expression, or one and what stands in its place; spaces are part of both."""
    config = read("log: {redact: ['a ', {pattern: '(b)', replace: ' \\1'}, {pattern: c, replace: ''}, {pattern: d}]}")

    assert [(rule.pattern.pattern, rule.replace) for rule in config.redact] == [
        *(("a ", "***"), ("(b)", r" \1"), ("c", ""), ("d", "***"))
    ]
    assert read("log: {redact: }").redact == read("log: ").redact == ()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param("log: []", None, id="nothing"),
        pytest.param("log: a", "log is no mapping of names to values", id="no-mapping"),
        pytest.param("log: {redcat: []}", 'log has an unknown name "redcat"; did you mean redact?', id="unknown"),
        pytest.param("log: {redact: a}", "redact is no list", id="no-list"),
        pytest.param(
            "log: {redact: [a, '(']}",
            'log: redact entry 2: pattern "(" cannot be used (missing ), unterminated subpattern at position 0); '
            f"it takes {PATTERN_FORM}",
            id="open",
        ),
        pytest.param(
            "log: {redact: [{replace: a}]}", f"log: redact entry 1 has no pattern; it takes {PATTERN_FORM}", id="none"
        ),
        pytest.param(
            "log: {redact: [{pattern: [a]}]}", f"log: redact entry 1: pattern takes {PATTERN_FORM}", id="no-text"
        ),
        pytest.param(
            "log: {redact: [{patern: a}]}",
            'log: redact entry 1 has an unknown name "patern"; did you mean pattern?',
            id="misspelt",
        ),
    ],
)
def test_rules_that_cannot_be_used(read: Callable[[str], Config], content: str, problem: str | None) -> None:
    """What is wrong with a rule is told with its place in the file."""
    if problem is None:
        assert read(content).redact == ()
        return
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared
        read(content)
    assert str(caught.value) == problem


def test_file_with_rules_alone_is_never_passed_over(tmp_path: Path) -> None:
    """Beside an ENDPOINT, and if it is named, a file is read that has nothing but redactions."""
    env_file = tmp_path / ".env"
    (tmp_path / "config.yaml").write_text("log: {redact: [a]}")
    for environ in ({"ENDPOINT": "https://r.openai.azure.com"}, {"CONFIG_FILE": str(tmp_path / "config.yaml")}):
        settings = load(environ, env_file)
        assert len(settings.config.redact) == 1
        assert any("redactions of the config file are not used" in warning for warning in settings.warnings)
        assert not any("redactions" in warning for warning in load({**environ, "LOG_CHAT": "meta"}, env_file).warnings)
    (tmp_path / "config.yaml").write_text("log: {redact: ['(']}")
    with pytest.raises(SettingsError, match="log: redact entry 1: pattern"):
        load({"ENDPOINT": "https://r.openai.azure.com"}, env_file)


@pytest.fixture
def other() -> Iterator[Redactor]:
    """Redaction in its process."""
    other = Redactor([parse_rule("alice"), parse_rule("(é+)+b", r"[\1]")], 0.2)
    yield other
    other.close()


def test_process_gives_lines_back(other: Redactor) -> None:
    """Line after line comes back redacted, however large and in whatever letters."""
    for text in ("alice é", "x" * 1_000_000, ""):
        (told,) = json.loads(other.redacted(json.dumps({"a": text}).encode()) or b"").values()
        assert told == text.replace("alice", "***")


def test_line_that_takes_too_long_is_none(other: Redactor) -> None:
    """What an expression has no end for is given up; the lines before and after it come back."""
    evil = json.dumps({"a": "é" * 60}).encode()

    assert other.redacted(b'{"a":"alice"}') == b'{"a":"***"}'
    assert other.redacted(evil) is None
    assert other.redacted(b'{"a":"alice"}') == b'{"a":"***"}'


def test_line_that_cannot_be_read_is_none(other: Redactor) -> None:
    """What is no record, or nests too deeply to be looked at, does not come back, and ends nothing."""
    for line in (b"{", b'{"a":' + b"[" * 950 + b'"alice"' + b"]" * 950 + b"}", b'{"a":1e999}'):
        assert other.redacted(line) is None
    assert other.redacted(b'{"a":"alice"}') == b'{"a":"***"}'


def test_process_that_was_killed_is_another(other: Redactor) -> None:
    """Somebody may kill it: no line is lost by that."""
    assert other.redacted(b'{"a":"alice"}')
    process = other._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    assert other.redacted(b'{"a":"alice"}') == b'{"a":"***"}'


def test_process_that_cannot_be_started_gives_none(other: Redactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a second process nothing is redacted, and so nothing comes back."""
    monkeypatch.setattr(sys, "executable", "/none/python")

    assert other.redacted(b'{"a":"alice"}') is None


def test_process_reads_rules_and_then_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when nothing more comes; what it cannot read is answered with an empty line."""
    given, told = io.BytesIO(b'[5,[["a","b"]]]\n{"x":"a"}\n[\n'), io.BytesIO()
    streams: Any = SimpleNamespace(stdin=SimpleNamespace(buffer=given), stdout=SimpleNamespace(buffer=told))
    monkeypatch.setattr(redactor, "sys", streams)
    serve()

    assert told.getvalue() == b'{"x":"b"}\n\n'
