"""`chat-api keys`: a new key and its entry, the table of keys, and what several processes are told."""

import re
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from chat_api import settings as settings_module
from chat_api.callers import KEY_PREFIX, digest_of, new_key
from chat_api.cli import main
from chat_api.config_file import read_config
from chat_api.keys_command import entry_text, listing
from chat_api.loading import shown
from chat_api.settings import load

Run = Callable[..., Result]
ALL = (
    *("--model", "gpt-4o", "--models", "gpt-4o-mini, 'odd: #1'", "--requests", "100/minute; 1000/day"),
    *("--tokens", "100000/minute", "--max-parallel", "10", "--expires", "2027-01-31T12:00:00Z"),
    *("--address", "10.0.0.0/8", "--address", "::1", "--budget", "2.50"),
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command with an environment, beside no `.env`."""
    load = settings_module.load
    monkeypatch.setattr(
        settings_module, "load", lambda environ=None, overrides=None: load(environ, tmp_path / ".env", overrides)
    )

    def run(*words: str, **environ: str) -> Result:
        return CliRunner().invoke(main, words, env=dict(environ))

    return run


def printed(result: Result) -> tuple[str, str]:
    """The key that was printed, and the YAML below it."""
    assert result.exit_code == 0, result.output
    remark, key, second, entry = result.stdout.split("\n", 3)
    assert remark.startswith("# The key,")
    assert second.startswith("# What to add")
    return key, entry


@pytest.mark.parametrize("options", [(), ALL], ids=["nothing-more", "all"])
def test_new_key_and_its_entry(run: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    """What is printed can be added to the file as it stands, and there the key is known by its digest alone."""
    key, entry = printed(run("keys", "new", "alice", *options))
    path = tmp_path / "new.yaml"
    path.write_text(f"client_keys:\n{entry}prices: {{gpt-4o: {{prompt: 1, completion: 1}}}}\n")
    (known,) = read_config(path).client_keys

    assert re.fullmatch(r"sk-chat-[\w-]{43}", key, re.ASCII)
    assert key not in entry
    assert (known.name, known.digest) == ("alice", digest_of(key))
    assert (known.models, known.budget) == (
        (frozenset({"gpt-4o", "gpt-4o-mini", "odd: #1"}), 2_500_000) if options else (None, None)
    )
    assert len(known.networks) == (2 if options else 0)


def test_keys_differ() -> None:
    """No two keys are the same, and each is as long as a key of 256 bits is."""
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {len(KEY_PREFIX) + 43}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(("a b",), 'name is "a b" (no name of a key)', id="name"),
        pytest.param(("a", "--requests", "100"), 'requests is "100"', id="limit"),
        pytest.param(("a", "--expires", "soon"), 'expires is "soon" (no date and no time)', id="expiry"),
        pytest.param(("a", "--max-parallel", "0"), 'max_parallel is "0" (too small)', id="parallel"),
        pytest.param(("a", "--address", "here"), "addresses cannot be used", id="address"),
    ],
)
def test_key_that_cannot_be_made(run: Run, words: tuple[str, ...], told: str) -> None:
    """What the file would not take makes no key."""
    result = run("keys", "new", *words)
    assert result.exit_code == 2
    assert told in result.stderr
    assert KEY_PREFIX not in result.output


@pytest.mark.parametrize(
    "text", ["gpt-4o", "no", "a: b", "a #b", "#a", "- a", "*", "", "é", "a, b", "[a]", '"a"', "x;y", "a ", "\U0001f600"]
)
def test_any_text_is_read_back(text: str) -> None:
    """Whatever a model is called, the entry says that."""
    read = yaml.load(entry_text({"name": text, "models": [text, "b"]}), yaml.BaseLoader)
    assert read == [{"name": text, "models": [text, "b"]}]


CONFIG = f"""\
client_keys:
  - name: alice
    sha256: {digest_of("sk-1").hex()}
    models: [gpt-4o-mini, gpt-4o]
    requests: 100/60seconds
    tokens: {{"*": inf, gpt-4o: 20000/minute}}
    max_parallel: 10
    expires: 2027-01-31
    addresses: [10.0.0.0/8]
    budget: 50
  - {{name: bob, sha256: {digest_of("sk-2").hex()}, expires: 2026-11-01T12:30}}
prices: {{gpt-4o: {{prompt: 1, completion: 1}}, gpt-4o-mini: {{prompt: 1, completion: 1}}}}
currency: EUR
"""
TABLE = """\
name          models               requests    tokens                     max_parallel  budget     expires                         addresses
key-2bd806c9  -                    -           -                          -             -          -                               -
alice         gpt-4o, gpt-4o-mini  100/minute  inf, gpt-4o: 20000/minute  10            50.00 EUR  2027-01-31                      10.0.0.0/8
bob           -                    -           -                          -             -          2026-11-01 12:30 UTC (expired)  -
# What a key leaves out: GLOBAL_RATE_LIMIT=60/minute, CALLER_MAX_PARALLEL=2.\
"""  # noqa: E501


def test_table_of_keys(tmp_path: Path) -> None:
    """Every key is listed by its name with what is its own, and what goes for the rest stands below; no digest does."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    values = {"CLIENT_KEYS": "alice", "GLOBAL_RATE_LIMIT": "60/minute", "CALLER_MAX_PARALLEL": "2"}
    settings = load(values, tmp_path / ".env")

    assert "\n".join(listing(settings, now=1_795_000_000)) == TABLE
    assert digest_of("sk-1").hex()[:8] not in TABLE


def test_listing_keys(run: Run, tmp_path: Path) -> None:
    """The command lists the keys of a file that is named, and says where there are none."""
    path = tmp_path / "callers.yaml"
    path.write_text(CONFIG)

    assert run("keys", "list").stdout == "There are no client keys: chat-api keys new NAME makes one.\n"
    assert run("keys", "list", CLIENT_KEYS="a").stdout.split() == ["name", "key-ca978112"]
    assert run("keys", "list", "-c", str(path)).stdout.startswith("name   models ")
    assert run("keys", "list", "-c", "/none.yaml").exit_code == 3


@pytest.mark.parametrize(
    ("environ", "workers", "is_warned"),
    [
        pytest.param({"GLOBAL_RATE_LIMIT": "60/minute"}, "2", True, id="workers"),
        pytest.param({"GLOBAL_RATE_LIMIT": "60/minute", "NODE_APP_INSTANCE": "1"}, "1", True, id="pm2"),
        pytest.param({"GLOBAL_RATE_LIMIT": "60/minute"}, "1", False, id="one"),
        pytest.param({"GLOBAL_RATE_LIMIT": "60/minute", "STORE_URL": "redis://r"}, "2", False, id="store"),
        pytest.param({}, "2", False, id="no-limit"),
    ],
)
def test_several_processes_are_warned_of(run: Run, environ: dict[str, str], workers: str, is_warned: bool) -> None:
    """Who has limits counted by each process alone is told so at the start."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:  # so that nothing is served
        result = run("serve", "--workers", workers, "--port", str(taken.getsockname()[1]), **environ)

    assert result.exit_code == 1
    assert ("processes serve, and each counts by itself" in result.stderr) is is_warned


@pytest.mark.parametrize(
    ("environ", "name", "expected"),
    [
        pytest.param({"CLIENT_KEYS": "SECRET,b"}, "CLIENT_KEYS", "***,***", id="client-keys"),
        pytest.param({"STORE_URL": "redis://:SECRET@r"}, "STORE_URL", "***", id="store"),
        pytest.param({}, "STORE_URL", "", id="no-store"),
        pytest.param(
            {"REQ_RATE_LIMIT": '{"/a/": "60/60seconds"}'}, "REQ_RATE_LIMIT", '{"/a":"60/minute"}', id="routes"
        ),
        pytest.param({"GLOBAL_RATE_LIMIT": "1 per hour, 2/day"}, "GLOBAL_RATE_LIMIT", "1/hour;2/day", id="rates"),
        pytest.param({}, "GLOBAL_RATE_LIMIT", "", id="no-rate"),
        pytest.param({"CALLER_TOKEN_LIMIT": "5/day"}, "CALLER_TOKEN_LIMIT", "5/day", id="tokens"),
        pytest.param({"MODEL_TOKEN_LIMIT": "{}"}, "MODEL_TOKEN_LIMIT", "", id="no-model"),
        pytest.param({"TOKEN_RATE_LIMIT": "60/second"}, "TOKEN_RATE_LIMIT", "60/second", id="pace"),
        pytest.param({}, "USAGE_FILE", "/none/usage.json", id="usage-file"),
        pytest.param({"USAGE_FILE": "NONE"}, "USAGE_FILE", "none", id="no-usage-file"),
        pytest.param({"FORWARDED_ALLOW_IPS": "10.0.0.1,*"}, "FORWARDED_ALLOW_IPS", "*", id="forwarders"),
    ],
)
def test_check_shows_limits(environ: dict[str, str], name: str, expected: str) -> None:
    """A limit is shown as it is used, in the words of a `.env` file; of a key or a password that it is there."""
    assert shown(load(environ, Path("/none/.env")), name) == expected
