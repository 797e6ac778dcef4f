"""The command `usage`: what it prints of what is kept, and what it says where it cannot."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chat_api.cli import main
from chat_api.counting import Amounts, Used
from chat_api.stores.usage_file import UsageFile
from tests.processes import CLI, process
from tests.proxies import free_port

ROWS = {
    Used("2026-11-20", "alice", "gpt-4o", "gpt-4o@east"): Amounts(2, 1_000, 200, 0, 0, 4_500_000),
    Used("2026-11-21", "alice", "gpt-4o-mini", "mini@east"): Amounts(1, 10, 5, 0, 1, 1),
    Used("2026-11-21", "bob", "gpt-4o", "gpt-4o@east"): Amounts(1, 100, 20, 0, 0, 450_000),
}
NOVEMBER = ("--since", "2026-11-01", "--until", "2026-11-30")
CONFIG = """
prices:
  gpt-4o: {prompt: 2.5, completion: 10}
currency: EUR
"""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A file with usage in it."""
    asyncio.run(UsageFile(tmp_path / "usage.json").add(ROWS))
    return tmp_path / "usage.json"


def run(kept: Path | str, *arguments: str, **environ: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["usage", *arguments], env={"CLIENT_KEYS": "k", "USAGE_FILE": str(kept), **environ})


def test_a_table(kept: Path) -> None:
    """By key, of the days that were asked for."""
    result = run(kept, *NOVEMBER)

    assert result.exit_code == 0
    assert result.output == (
        "Usage from 2026-11-01 to 2026-11-30 (UTC)\n"
        "\n"
        "key    requests  errors  prompt  cached  completion  tokens\n"
        "-----  --------  ------  ------  ------  ----------  ------\n"
        "alice         3       1   1,010       0         205   1,215\n"
        "bob           1       0     100       0          20     120\n"
        "-----  --------  ------  ------  ------  ----------  ------\n"
        "total         4       1   1,110       0         225   1,335\n"
    )


@pytest.mark.parametrize(
    "by", [("--by", "day", "--by", "key"), ("--by", "day,key")], ids=["repeated", "separated-by-commas"]
)
def test_by_several(kept: Path, by: tuple[str, ...]) -> None:
    """What is summed up together may be said either way."""
    read = json.loads(run(kept, *NOVEMBER, *by, "--json").output)

    assert read["by"] == ["day", "key"]
    assert [(row["day"], row["key"], row["requests"]) for row in read["rows"]] == [
        ("2026-11-20", "alice", 2),
        ("2026-11-21", "alice", 1),
        ("2026-11-21", "bob", 1),
    ]


def test_prices_of_the_config_file(kept: Path, tmp_path: Path) -> None:
    """With prices there is money, in their currency; the file may be named as for serve."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    result = run(kept, *NOVEMBER, "--csv", "-c", str(tmp_path / "config.yaml"))

    assert result.output.splitlines()[1] == "alice,3,1,1010,0,205,1215,4.500001,EUR"


def test_no_rows(kept: Path) -> None:
    """Days on which nobody called; a program gets its form all the same."""
    assert run(kept, "--since", "2026-10-01", "--until", "2026-10-31").output == (
        "No usage from 2026-10-01 to 2026-10-31 (UTC).\n"
    )
    assert run(kept.with_name("none.json"), *NOVEMBER).output == "No usage from 2026-11-01 to 2026-11-30 (UTC).\n"
    assert json.loads(run(kept.with_name("none.json"), *NOVEMBER, "--json").output)["rows"] == []


def test_where_nothing_is_counted(kept: Path) -> None:
    """It says what switches that on, beside what may be kept from before."""
    result = run(kept, *NOVEMBER, "--json", CLIENT_KEYS="")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["total"]["requests"] == 4
    assert result.stderr == (
        "Note: usage is not counted: client keys (CLIENT_KEYS, or client_keys in CONFIG_FILE), a token limit, prices "
        "in CONFIG_FILE or STORE_URL switch that on.\n"
    )


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """One clear line, and exit code 1."""
    broken = tmp_path / "usage.json"
    broken.write_text("{")
    result = run(broken)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"The usage cannot be read: {broken} (USAGE_FILE) is broken")
    assert result.stderr.count("\n") == 1


def test_a_store_that_does_not_answer() -> None:
    """The setting is named, its password is not."""
    result = run("", STORE_URL=f"redis://:canary-store@127.0.0.1:{free_port()}/0")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "The usage cannot be read: The store that keeps usage does not answer" in result.stderr
    assert "See STORE_URL." in result.stderr
    assert "canary" not in result.stderr


def test_what_is_in_memory_only() -> None:
    """With no file and no store there is nothing to read; it says who has it."""
    result = run("none")

    assert result.exit_code == 1
    assert "GET /usage" in result.stderr
    assert "USAGE_FILE" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("--by", "user"), "it takes one or more of key, model, deployment and day", id="by"),
        pytest.param(("--since", "yesterday"), "it takes a day such as 2026-11-21", id="since"),
        pytest.param(("--until", "2026-11-31"), "it takes a day such as 2026-11-21", id="until"),
        pytest.param(("--since", "2026-11-02", "--until", "2026-11-01"), "is after", id="swapped"),
    ],
)
def test_wrong_options(kept: Path, arguments: tuple[str, ...], message: str) -> None:
    """The option is named, and what it takes; exit code 2, as for every command."""
    result = run(kept, *arguments)

    assert result.exit_code == 2
    assert f"Invalid value for {arguments[0]}" in result.stderr
    assert message in result.stderr


def test_settings_that_cannot_be_used(kept: Path) -> None:
    """Exit code 3, as for every command."""
    assert run(kept, HTTP_PORT="none").exit_code == 3


def test_the_command_itself(kept: Path) -> None:
    """A process of its own reads the file while a server may write it."""
    with process(CLI, "usage", *NOVEMBER, "--by", "model", CLIENT_KEYS="k", USAGE_FILE=str(kept)) as command:
        code = command.wait()

    assert code == 0
    assert [line.split()[:2] for line in command.output.splitlines()[4:6]] == [["gpt-4o", "3"], ["gpt-4o-mini", "1"]]
