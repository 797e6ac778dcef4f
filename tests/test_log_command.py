"""The commands `log show` and `log convert`: what they print, write and refuse, and how they end."""

import contextlib
import gzip
import json
import os
import pty
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chat_api import log_command
from chat_api.cli import main
from chat_api.conversation_forms import FORMS
from tests.conversation_logs import answer_line, asked_line, line
from tests.processes import CLI, process


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log of two processes over two days."""
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "chat-2026-11-21.jsonl").write_text(line(1) + line(3, key="bob", ended="client left"))
    (folder / "chat-2026-11-21.77.jsonl").write_text(line(2, messages=[{"role": "user", "content": "Where?\x1b[2J"}]))
    (folder / "chat-2026-11-20.jsonl.gz").write_bytes(gzip.compress(line(time="2026-11-20T23:59:59Z").encode()))
    return folder


def run(*arguments: str | Path, color: bool = False, **environ: str) -> Result:
    """Run `log` with arguments."""
    return CliRunner().invoke(main, ["log", *map(str, arguments)], env=environ, color=color)


def shown(result: Result) -> list[str]:
    """The request ids of what was shown."""
    assert result.exit_code == 0, result.output
    return [row.split()[-1] for row in result.stdout.splitlines() if row.startswith("2026")]


def test_show(folder: Path) -> None:
    """All conversations in the order of their times; no control character, and no colours where no terminal is."""
    result = run("show", "--dir", folder)

    assert shown(result) == ["req-0", "req-1", "req-2", "req-3"]
    assert "  user: Where?\\x1b[2J\n" in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stdout.endswith("  ended: client left\n\n")
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        pytest.param(("--key", "bob"), ["req-3"], id="key"),
        pytest.param(("--grep", "^user: Where"), ["req-2"], id="grep-of-a-role"),
        pytest.param(("--grep", "(?im)^user: where"), ["req-2"], id="grep"),
        pytest.param(("--grep", "client left"), ["req-3"], id="grep-of-endings"),
        pytest.param(("--since", "2026-11-21T10:00:02"), ["req-2", "req-3"], id="since"),
        pytest.param(("--until", "2026-11-20"), ["req-0"], id="until-a-day"),
        pytest.param(("--last", "2"), ["req-2", "req-3"], id="last"),
        pytest.param(("-n", "1", "--key", "alice"), ["req-2"], id="last-of-a-key"),
        pytest.param(("-n", "0"), [], id="none"),
    ],
)
def test_show_some(folder: Path, options: tuple[str, ...], ids: list[str]) -> None:
    """Only what is asked for."""
    assert shown(run("show", "--dir", folder, *options)) == ids


def test_show_files(folder: Path) -> None:
    """Files that are named, and nothing else."""
    assert shown(run("show", folder / "chat-2026-11-21.77.jsonl", folder / "chat-2026-11-20.jsonl.gz")) == [
        "req-0",
        "req-2",
    ]


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_colours(folder: Path, no_color: str, is_coloured: bool) -> None:
    """Roles are painted at a terminal, unless NO_COLOR is set."""
    result = run("show", "--dir", folder, "-n", "1", color=True, NO_COLOR=no_color)

    assert ("\x1b[36muser:\x1b[0m Hello?" in result.output) is is_coloured
    assert ("\x1b" in result.output) is is_coloured


def test_openai_forwards_log_is_shown(tmp_path: Path) -> None:
    """In its own folder, as it stands."""
    (tmp_path / "chat.log").write_text(asked_line("u") + answer_line("u"))

    assert "  user: hi\n  answer: Hello!\n" in run("show", tmp_path).stdout


def test_torn_lines_are_told_and_counted(folder: Path) -> None:
    """File and line number, and how many there were, on standard error; the rest is shown."""
    with (folder / "chat-2026-11-21.jsonl").open("a") as out:
        out.write(line(4)[:50])
    result = run("show", "--dir", folder)

    assert len(shown(result)) == 4
    assert result.stderr == (
        f"{folder}/chat-2026-11-21.jsonl:3: it is no JSON; it may be torn; skipped\nSkipped: 1; read: 4.\n"
    )


def test_answers_without_requests_are_counted(tmp_path: Path) -> None:
    """Their requests may stand in a file that is gone."""
    (tmp_path / "chat.log").write_text(asked_line("u") + answer_line("u") + answer_line("gone"))

    assert run("show", tmp_path).stderr == "Answers to what is not in these files: 1.\n"


@pytest.mark.parametrize("command", [("show",), ("convert",)])
def test_nothing_could_be_read(tmp_path: Path, command: tuple[str]) -> None:
    """No log, a file that is not there, one with nothing readable: exit code 1. An empty file is read."""
    none = run(*command, "--dir", tmp_path / "none")
    missing = run(*command, tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text("{\n")
    (tmp_path / "empty.jsonl").touch()

    assert none.exit_code == 1
    assert none.stderr == f"There is no conversation log in {tmp_path}/none: No such file or directory. See --dir.\n"
    assert "There is no conversation log in" in run(*command, "--dir", tmp_path).stderr
    assert (missing.exit_code, missing.stderr) == (
        1,
        f"{tmp_path}/none.jsonl: No such file or directory; skipped\nSkipped: 1; read: 0.\n",
    )
    assert run(*command, tmp_path / "bad.jsonl").exit_code == 1
    assert run(*command, tmp_path / "empty.jsonl").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("show", "--since", "soon"), '--since: "soon": it takes a day or a time', id="since"),
        pytest.param(("convert", "--until", "1x"), '--until: "1x": it takes a day or a time', id="until"),
        pytest.param(("show", "--grep", "("), "--grep: it is no regular expression", id="grep"),
        pytest.param(("convert", "--format", "xml"), "'xml' is not one of", id="format"),
        pytest.param(("convert", "-o", "none/chat.json"), "--output: there is no folder none", id="folder"),
        pytest.param(("convert", "-o", "/dev/null", "--force"), "--output: /dev/null is no file", id="device"),
    ],
)
def test_wrong_options(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    """The option is named, and what it takes; exit code 2, as for every command."""
    result = run(*arguments, "--dir", folder)

    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("form", FORMS)
def test_convert(folder: Path, form: str) -> None:
    """Each form has every conversation, on standard output without a word else."""
    result = run("convert", "--dir", folder, "--format", form)

    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.count("Be brief.") == 3


def test_json_is_the_default(folder: Path) -> None:
    """A list of the records, chosen as for show."""
    result = run("convert", "--dir", folder, "--key", "bob")

    assert [item["request_id"] for item in json.loads(result.stdout)] == ["req-3"]


def test_what_a_form_has_no_place_for_is_counted(folder: Path) -> None:
    """openai-forward's has whole chats only."""
    (folder / "chat-2026-11-22.jsonl").write_text(line(9, messages=None))
    result = run("convert", "--dir", folder, "--format", "openai-forward")

    assert len(json.loads(result.stdout)) == 4
    assert result.stderr == "Left out: 1, for openai-forward has whole chats only.\n"


def test_a_file_comes_about_whole_and_for_its_owner(folder: Path, tmp_path: Path) -> None:
    """Mode 0600 whatever the umask; one that is there is not touched without --force."""
    target = tmp_path / "chat.json"
    arguments = ("convert", "--dir", folder, "-o", target)
    assert run(*arguments).exit_code == 0
    first = target.read_bytes()
    again = run(*arguments, "--format", "csv")
    replaced = run(*arguments, "--format", "csv", "--force")

    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert len(json.loads(first)) == 4
    assert (again.exit_code, replaced.exit_code) == (2, 0)
    assert "--force" in again.stderr
    assert target.read_text().startswith("time,")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chat.json", "logs"]


def test_nothing_read_replaces_no_file(tmp_path: Path) -> None:
    """A wrong name costs nothing that was there, not even with --force."""
    target = tmp_path / "chat.json"
    target.write_text("theirs")
    result = run("convert", tmp_path / "none.jsonl", "-o", target, "--force")

    assert (result.exit_code, target.read_text()) == (1, "theirs")
    assert list(tmp_path.iterdir()) == [target]


def test_a_log_may_become_itself(folder: Path) -> None:
    """It is read to its end before anything takes its place."""
    path = folder / "chat-2026-11-21.jsonl"
    before = path.read_text()

    assert run("convert", path, "--format", "jsonl", "-o", path, "--force").exit_code == 0
    assert path.read_text() == before


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_of_what_was_not_ended(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[BaseException]
) -> None:
    """Interrupted or failed, it takes its beginning away again; Ctrl-C is exit code 130."""

    def broken(*arguments: object) -> None:
        raise fault

    monkeypatch.setattr(os, "fsync", broken)
    result = run("convert", "--dir", folder, "-o", tmp_path / "chat.json")

    assert result.exit_code == (130 if fault is KeyboardInterrupt else 1)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_file_that_comes_about_meanwhile_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever else wrote it has it."""
    target = tmp_path / "chat.json"
    monkeypatch.setattr(os, "fsync", lambda descriptor: target.write_text("theirs"))
    result = run("convert", "--dir", folder, "-o", target)

    assert result.exit_code == 1
    assert target.read_text() == "theirs"


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    """One clear line."""
    result = run("convert", "--dir", folder, "-o", "/proc/chat.json")

    assert result.exit_code == 1
    assert "/proc/chat.json" in result.stderr


def test_without_options_it_is_the_logs_own_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """One function says where that is."""
    monkeypatch.setattr(log_command, "default_folder", lambda: folder)

    assert len(shown(run("show"))) == 4
    assert len(json.loads(run("convert").stdout)) == 4


def test_the_logs_own_folder_is_that_of_the_settings(tmp_path: Path, folder: Path) -> None:
    """LOG_DIR says it; settings that cannot be used matter only where nothing else says it."""
    assert len(shown(run("show", LOG_DIR=str(folder)))) == 4
    assert len(shown(run("show", "--dir", folder, LOG_LEVEL="soft"))) == 4
    assert len(shown(run("show", folder, LOG_LEVEL="soft"))) == 4
    assert run("show", LOG_LEVEL="soft").exit_code == 3
    result = run("convert", LOG_DIR=str(tmp_path / "none"))
    assert (result.exit_code, str(tmp_path / "none") in result.stderr) == (1, True)


def test_following(folder: Path) -> None:
    """A process of its own goes on over rotation and a new day, and ends with Ctrl-C."""
    today = folder / "chat-2026-11-21.jsonl"
    with process(
        CLI,
        "log",
        "show",
        "--follow",
        "--dir",
        str(folder),
        "--last",
        "1",
    ) as command:
        command.wait_for("req-3\n(.*\n)*\n")
        with today.open("a") as out:
            out.write(line(5))
        command.wait_for("req-5\n")
        today.rename(folder / "chat-2026-11-21.1.jsonl")
        today.write_text(line(6))
        command.wait_for("req-6\n")
        (folder / "chat-2026-11-22.jsonl").write_text(line(7))
        command.wait_for("req-7\n")
        command.signal(signal.SIGINT)
        code = command.wait()

    assert code == 0
    assert [row.split()[-1] for row in command.output.splitlines() if row.startswith("2026")] == [
        "req-3",
        "req-5",
        "req-6",
        "req-7",
    ]
    assert "Traceback" not in command.output


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal."""
    ends = pty.openpty()
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


def at_terminal(*arguments: str | Path, output: int | None = None) -> str:
    """What a command of its own prints at a terminal; its standard output goes elsewhere if that is said."""
    with terminal() as (ours, theirs):
        done = subprocess.Popen(
            [CLI, "log", *map(str, arguments)], stdin=theirs, stdout=theirs if output is None else output, stderr=theirs
        )
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # how a terminal says that there is nobody at its other end
            while piece := os.read(ours, 65_536):
                seen += piece
        assert done.wait(20) == 0
    return seen.decode()


def test_at_a_terminal(folder: Path, tmp_path: Path) -> None:
    """Colours, and a bar where a file is written; lines that are skipped have their own line."""
    with (folder / "chat-2026-11-21.jsonl").open("a") as out:
        out.write(line(4)[:50])
    coloured = at_terminal("show", "--dir", folder, "-n", "1")
    converting = at_terminal("convert", "--dir", folder, "-o", tmp_path / "chat.json")
    printing = at_terminal("convert", "--dir", folder, "--format", "jsonl")

    assert "\x1b[1m2026-11-21 10:00:03 UTC\x1b[0m" in coloured
    assert "Reading" in converting
    assert "100%" in converting
    assert "\x1b[K" + str(folder) in converting
    assert "Reading" not in printing


def test_no_bar_elsewhere(folder: Path, tmp_path: Path) -> None:
    """Standard error of a program has no bar in it."""
    done = subprocess.run(
        [CLI, "log", "convert", "--dir", folder, "-o", tmp_path / "chat.json"], capture_output=True, check=True
    )

    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize("command", [("show",), ("show", "--follow", "-n", "5000"), ("convert",)])
def test_a_reader_that_has_read_enough(tmp_path: Path, command: tuple[str, ...]) -> None:
    """`| head` ends it without a word."""
    (tmp_path / "chat-2026-11-21.jsonl").write_text("".join(line(number % 3_000) for number in range(5_000)))
    done = subprocess.Popen(
        [CLI, "log", *command, "--dir", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert done.stdout is not None
    done.stdout.readline()
    done.stdout.close()
    assert done.stderr is not None
    with done.stderr:
        assert done.stderr.read() == b""
    assert done.wait(20) == 0


def test_words_of_any_language_come_out_of_any_terminal(folder: Path) -> None:
    """Where standard output cannot say them they are spelled out."""
    (folder / "chat-2026-11-22.jsonl").write_text(line(9, messages=[{"role": "user", "content": "中文"}]))
    done = subprocess.run(
        [CLI, "log", "show", "--dir", folder, "-n", "1"],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )

    assert b"user: \\u4e2d\\u6587\n" in done.stdout
