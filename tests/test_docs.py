"""The documentation is true: tables against the code, commands by running them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_api import __version__, trail
from chat_api.cache_parsers import BACKENDS
from chat_api.config_cache import ROUTES
from chat_api.conversation import OWN_WORDS
from chat_api.conversation_forms import COLUMNS, FORMS
from chat_api.fields import FIELDS
from chat_api.log_command import log
from chat_api.settings import load
from chat_api.settings_cache import CACHE
from chat_api.settings_log import CONVERSATIONS
from chat_api.settings_table import GROUPS, TABLE
from tests.processes import CLI, ROOT, process

README = (ROOT / "README.md").read_text()
SAMPLE = (ROOT / "sample.env").read_text()
COMMAND = re.compile(r"^\$ (curl.*|printf.*)\n((?:(?!\$ |```).*\n)*)", re.MULTILINE)
KEPT = "x-chat-api-cache"  # in what has to be run with CACHE_CHAT_COMPLETION
COMMANDS = [(match[1], match[2]) for match in COMMAND.finditer(README) if KEPT not in match[0]]


def test_readme_table_is_the_settings_table() -> None:
    """The README lists every setting with its default and meaning, in the code's order and groups."""
    rows = re.findall(r"^\| (?:\*\*(.+?)\*\*|`(\w+)`) \| (.*?) ?\| (.*?) ?\|$", README, re.MULTILINE)
    expected = []
    for group, settings in GROUPS.items():
        expected.append((group, "", "", ""))
        for row in settings:
            expected.append(("", row.name, f"`{row.default_text}`" if row.default_text else "\N{EN DASH}", row.meaning))
    start = rows.index(expected[0])

    assert rows[start:] == expected


def test_sample_env_is_the_settings_table() -> None:
    """sample.env has every setting with its default, in the code's order, under what it means and accepts."""
    blocks = re.findall(r"((?:^# .*\n)+)^(\w+)=(.*)$", SAMPLE, re.MULTILINE)

    assert [(name, value) for _, name, value in blocks] == [(row.name, row.default_text) for row in TABLE]
    for (comment, _, _), row in zip(blocks, TABLE, strict=True):
        text = " ".join(comment.replace("# ", "").split())
        assert text == f"{row.meaning.replace('`', '')} Takes {row.accepts}."


def test_sample_env_changes_nothing_as_it_is(tmp_path: Path) -> None:
    """A copy of sample.env is the defaults."""
    (tmp_path / ".env").write_text(SAMPLE)

    assert load({}, tmp_path / ".env") == load({}, tmp_path / "none")


def test_readme_names_every_field() -> None:
    """Each field of the endpoint is in the README's table of fields."""
    table = README[README.index("| Field |") : README.index("Null and empty mean unset")]

    assert set(re.findall(r"`(\w+)`", table)) - {"true", "DEPLOYMENT_NAME"} == set(FIELDS)


@pytest.fixture(scope="module")
def served() -> Iterator[int]:
    """The port of a gateway that was started by the README's own command."""
    with process("scripts/serve") as server:
        yield int(server.wait_for(r"listens at http://127\.0\.0\.1:(\d+)")[1])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("command", "answer"), COMMANDS, ids=[str(number) for number in range(len(COMMANDS))])
def test_readme_commands_answer_as_it_says(served: int, command: str, answer: str) -> None:
    """Every curl in the README, run as it stands, prints what stands under it."""
    there = command.replace("localhost:8080", f"localhost:{served}")
    done = subprocess.run(there, shell=True, capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.rstrip("\n") == answer.rstrip("\n")


def test_readme_shows_all_ways() -> None:
    """JSON, stream, text, the four ways to send a prompt, OpenAI's API and errors are all among what is run."""
    assert len(COMMANDS) == 11


def test_versions_agree() -> None:
    """The changelog's newest version is the package's."""
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert newest is not None
    assert newest[1] == __version__


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the project has its file."""
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_page_on_several_deployments_names_what_there_is() -> None:
    """Each of their settings, what an entry of the config file may say, and each header that tells of them is there."""
    page = (ROOT / "docs" / "balancing.md").read_text()
    settings = [row.name for row in GROUPS["Several deployments"]]
    names = [*settings, "MODEL_FALLBACK", "OPERATOR_KEY", "priority", "weight", "max_in_flight", "fallbacks"]
    headers = [name.decode() for name in (trail.DEPLOYMENT, trail.ATTEMPTS, trail.FALLBACK, trail.SERVER_TIMING)]

    assert [name for name in (*names, *headers) if name not in page] == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("page", "count"), [("README.md", 1), ("docs/caching.md", 4)])
def test_kept_answers_are_given_as_it_says(page: str, count: int) -> None:
    """With CACHE_CHAT_COMPLETION, as they say, their commands print what stands under them, one after the other."""
    found = [match for match in COMMAND.findall((ROOT / page).read_text()) if KEPT in match[0]]
    with process(CLI, "serve", CACHE_CHAT_COMPLETION="true") as server:
        port = server.wait_for(r"listens at http://127\.0\.0\.1:(\d+)")[1]
        for command, answer in found:
            there = command.replace("localhost:8080", f"localhost:{port}")
            done = subprocess.run(there, shell=True, capture_output=True, text=True, check=True)
            assert (command, done.stdout.rstrip("\n")) == (command, answer.rstrip("\n"))

    assert len(found) == count


def test_page_on_kept_answers_names_what_there_is() -> None:
    """Each of its settings, each route of which answers are kept, what headers say, and what is counted."""
    page = (ROOT / "docs" / "caching.md").read_text()
    words = ["x-chat-api-cache", "Age", "hit", "miss", "shared", "bypass", "no-cache", "no-store", "max-age=60"]
    names = [*(row.name for row in CACHE), *ROUTES, *BACKENDS, *words]

    assert [name for name in names if name not in page] == []


def test_page_on_the_conversation_log_does_what_it_says(tmp_path: Path) -> None:
    """Its commands, run over the record and openai-forward's lines in it, print what stands under them."""
    page = (ROOT / "docs" / "conversation-log.md").read_text()
    blocks = dict(re.findall(r"^```(json|text)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    for path, text in {
        "logs/chat-2026-11-21.jsonl": blocks["json"],
        "Log/openai/chat/chat.log": blocks["text"],
    }.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    environ = {**os.environ, "LOG_DIR": str(tmp_path / "logs")}
    commands = re.findall(r"^\$ (chat-api .*)\n((?:(?!\$ |```).*\n)*)", page, re.MULTILINE)
    for command, expected in commands:
        words = [CLI, *command.split()[1:]]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env=environ)
        assert (done.stdout.rstrip("\n"), done.stderr) == (expected.rstrip("\n"), "")

    assert len(commands) == 3
    assert (tmp_path / "alice.csv").read_text().count("alice") == 1


def test_page_on_the_conversation_log_names_what_there_is() -> None:
    """Each option of its commands, each form, and the columns of CSV in their order."""
    page = (ROOT / "docs" / "conversation-log.md").read_text()
    options = {name for command in log.commands.values() for option in command.params for name in option.opts}
    columns = re.findall(r"`(\w+)`", page[page.index("The columns: ") :])
    settings = [row.name for row in CONVERSATIONS]

    assert [name for name in (*options - {"files"}, *FORMS) if f"`{name}`" not in page] == []
    assert [name for name in (*settings, *OWN_WORDS, "log_chat", "dropped", "failing") if f"`{name}" not in page] == []
    assert columns[: len(COLUMNS)] == list(COLUMNS)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_lock_files_pin_everything_with_hashes_and_hold_no_address(lock: str) -> None:
    """Each package is pinned to one version with hashes; nothing says where it is fetched from."""
    text = (ROOT / lock).read_text()
    packages = re.findall(r"^[\w-]+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)

    assert len(packages) == len(re.findall(r"^\S", text, re.MULTILINE)) > 15
    assert "://" not in text
    assert "index-url" not in text


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").iterdir()), ids=lambda script: script.name)
def test_scripts_are_short_and_executable(script: Path) -> None:
    """A script is read at a glance."""
    assert script.stat().st_mode & 0o111
    assert script.read_text().count("\n") <= 20
