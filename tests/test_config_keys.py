"""The client keys of the config file, and what tokens cost: what may be said, and what is told of the rest."""

import dataclasses
import ipaddress
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chat_api.callers import ANY_MODEL, ClientKey, digest_of, unnamed_key
from chat_api.config_file import Config, read_config
from chat_api.counting import Price, Rate
from chat_api.settings import SettingsError, load
from tests.processes import ROOT

DIGEST = digest_of("sk-1").hex()
OTHER = digest_of("sk-2").hex()
PRICES = "prices: {gpt-4o: {prompt: 2.50, completion: 10.00, cached: 1.25}}"
NAME_FORM = "up to 64 letters, digits, dots, dashes and underscores"
DIGEST_FORM = "the sha256 that chat-api keys new NAME prints"
RATES_FORM = "limits such as 100/minute; 1000/day, or inf"
TOKENS_FORM = f"{RATES_FORM}; or a mapping of models to limits, * for all of them together"
EXPIRY_FORM = "a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z"
MODELS_FORM = "names of models, as a list or separated by commas"
NETWORKS_FORM = "IP addresses and networks, as a list or separated by commas"
PRICE_FORM = "money per million tokens, such as 2.50, or 0"

Read = Callable[[str], Config]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a file with this content."""

    def read(content: str) -> Config:
        (tmp_path / "config.yaml").write_text(content)
        return read_config(tmp_path / "config.yaml")

    return read


@pytest.fixture
def refused(read: Read) -> Callable[[str], str]:
    """What is said of a file that cannot be used."""

    def refused(content: str) -> str:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is looked at
            read(content)
        return str(caught.value)

    return refused


Refused = Callable[[str], str]


def entry(more: str, name: str = "alice", digest: str = DIGEST) -> str:
    """An entry of a key, with more in it, as YAML."""
    return f"{{name: {name}, sha256: {digest}{', ' if more else ''}{more}}}"


def test_key_that_says_it_all(read: Read) -> None:
    """Every name of an entry reaches its field, in its type."""
    (key,) = read(
        f"""\
client_keys:
  - name: alice
    sha256: {DIGEST.upper()}
    models: [gpt-4o, gpt-4o-mini]
    requests: 100/minute; 1000/day
    tokens: {{"*": 100000/minute, gpt-4o: 20000/minute;1/day}}
    max_parallel: 10
    expires: 2027-01-31
    addresses: [10.0.0.0/8, "::1"]
    budget: 50
    log_chat: meta
{PRICES}
"""
    ).client_keys

    assert key == ClientKey(
        name="alice",
        digest=digest_of("sk-1"),
        models=frozenset({"gpt-4o", "gpt-4o-mini"}),
        requests=(Rate(100, 60), Rate(1000, 86400)),
        tokens={ANY_MODEL: (Rate(100000, 60),), "gpt-4o": (Rate(20000, 60), Rate(1, 86400))},
        max_parallel=10,
        expires=datetime(2027, 2, 1, tzinfo=UTC).timestamp(),
        networks=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1")),
        budget=50_000_000,
        log_chat="meta",
    )
    assert hash(key)


@pytest.mark.parametrize(
    ("more", "fields"),
    [
        pytest.param("", {}, id="nothing-more"),
        pytest.param("models: , requests: , tokens: '', expires: , addresses: , budget: ", {}, id="blank-is-unset"),
        pytest.param("models: 'a, b'", {"models": frozenset("ab")}, id="models-as-text"),
        pytest.param("models: a", {"models": frozenset("a")}, id="one-model"),
        pytest.param("models: '*'", {}, id="any-model"),
        pytest.param("models: [a, '*']", {}, id="any-model-among-others"),
        pytest.param("requests: inf", {"requests": ()}, id="requests-without-limit"),
        pytest.param("tokens: 5/day", {"tokens": {ANY_MODEL: (Rate(5, 86400),)}}, id="tokens-of-all-models"),
        pytest.param("tokens: inf", {"tokens": {ANY_MODEL: ()}}, id="tokens-without-limit"),
        pytest.param("tokens: {m: inf}", {"tokens": {"m": ()}}, id="tokens-of-a-model"),
        pytest.param("tokens: {}", {}, id="tokens-of-none"),
        pytest.param("expires: 2027-01-31T12:00:00Z", {"expires": datetime(2027, 1, 31, 12, tzinfo=UTC)}, id="time"),
        pytest.param(
            "expires: 2027-01-31T12:00:00+01:00", {"expires": datetime(2027, 1, 31, 11, tzinfo=UTC)}, id="time-zone"
        ),
        pytest.param("expires: 2027-01-31 12:00", {"expires": datetime(2027, 1, 31, 12, tzinfo=UTC)}, id="time-is-utc"),
        pytest.param(
            "addresses: '10.0.0.7, 10.1.2.3/16'",
            {"networks": (ipaddress.ip_network("10.0.0.7"), ipaddress.ip_network("10.1.0.0/16"))},
            id="addresses-as-text",
        ),
    ],
)
def test_key(read: Read, more: str, fields: dict[str, Any]) -> None:
    """What an entry leaves out is left to the settings; lists may be written as text, and limits be lifted."""
    if "expires" in fields:
        fields = {"expires": fields["expires"].timestamp()}
    (key,) = read(f"client_keys: [{entry(more)}]").client_keys
    assert key == ClientKey("alice", digest_of("sk-1"), **fields)


@pytest.mark.parametrize(("text", "budget"), [("0.25", 250_000), ("0.000001", 1), ("999999999", 999_999_999_000_000)])
def test_budget_is_in_millionths(read: Read, text: str, budget: int) -> None:
    """Money is counted in whole numbers, exactly."""
    (key,) = read(f"client_keys: [{entry(f'budget: {text}')}]\n{PRICES}").client_keys
    assert key.budget == budget


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        pytest.param("models: {a: b}", f"models takes {MODELS_FORM}", id="models-mapping"),
        pytest.param("models: []", f"models cannot be used (it lists nothing); it takes {MODELS_FORM}", id="no-model"),
        pytest.param("models: ','", f'models is "," (it lists nothing); it takes {MODELS_FORM}', id="models-comma"),
        pytest.param(
            "models: [a, [b]]",
            f"models cannot be used (not all of it is text); it takes {MODELS_FORM}",
            id="deep",
        ),
        pytest.param(
            "requests: 100",
            f'requests is "100" ("100" is no limit such as 100/minute); it takes {RATES_FORM}',
            id="requests-without-time",
        ),
        pytest.param("requests: [1/day]", f"requests takes {RATES_FORM}", id="requests-list"),
        pytest.param(
            "tokens: 1000000",
            f'tokens is "1000000" ("1000000" is no limit such as 100/minute); it takes {TOKENS_FORM}',
            id="tokens-without-time",
        ),
        pytest.param(
            "tokens: {gpt-4o: many}",
            f'tokens cannot be used ("gpt-4o": "many" is no limit such as 100/minute); it takes {TOKENS_FORM}',
            id="tokens-of-a-model",
        ),
        pytest.param(
            "tokens: {gpt-4o: }",
            f'tokens cannot be used ("gpt-4o" has no limit such as 100000/minute); it takes {TOKENS_FORM}',
            id="tokens-blank",
        ),
        pytest.param(
            "tokens: {a: 1/day, A: 2/day}",
            f'tokens cannot be used ("A" is given twice); it takes {TOKENS_FORM}',
            id="tokens-twice",
        ),
        pytest.param("tokens: [1/day]", f"tokens takes {TOKENS_FORM}", id="tokens-list"),
        pytest.param(
            "max_parallel: 0", 'max_parallel is "0" (too small); it takes a whole number from 1', id="parallel-none"
        ),
        pytest.param(
            "expires: 2027-02-30", f'expires is "2027-02-30" (no date and no time); it takes {EXPIRY_FORM}', id="no-day"
        ),
        pytest.param(
            "expires: 20270131", f'expires is "20270131" (no date and no time); it takes {EXPIRY_FORM}', id="short-date"
        ),
        pytest.param(
            "expires: 9999-12-31",
            f'expires is "9999-12-31" (no date and no time); it takes {EXPIRY_FORM}',
            id="last-day",
        ),
        pytest.param(
            "addresses: [10.0.0.0/33]",
            "addresses cannot be used ('10.0.0.0/33' does not appear to be an IPv4 or IPv6 network); "
            f"it takes {NETWORKS_FORM}",
            id="address",
        ),
        pytest.param(
            "addresses: []", f"addresses cannot be used (it lists nothing); it takes {NETWORKS_FORM}", id="none"
        ),
        pytest.param(
            "budget: 0",
            'budget is "0" (not above 0); it takes an amount of money above 0, such as 50 or 0.25',
            id="budget-0",
        ),
        pytest.param(
            "budget: 50 EUR",
            'budget is "50 EUR" (no amount of money); it takes an amount of money above 0, such as 50 or 0.25',
            id="budget-word",
        ),
        pytest.param(
            "budget: 50", "budget is money, and the file has no prices; config.example.yaml shows some", id="no-prices"
        ),
    ],
)
def test_key_that_cannot_be_used(refused: Refused, more: str, problem: str) -> None:
    """What is wrong is said with the entry, the field, what it got and what it takes."""
    assert refused(f"client_keys: [{entry(more)}]") == f"client_keys entry 1: {problem}"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param("alice", "client_keys is no list", id="text"),
        pytest.param("{name: alice}", "client_keys is no list", id="mapping"),
        pytest.param("[alice]", "client_keys entry 1 is no mapping of names to values", id="entry-text"),
        pytest.param("[{name: a}]", f"client_keys entry 1 has no sha256; it takes {DIGEST_FORM}", id="no-digest"),
        pytest.param(f"[{{sha256: {DIGEST}}}]", f"client_keys entry 1 has no name; it takes {NAME_FORM}", id="no-name"),
        pytest.param(
            f"[{entry('', 'a b')}]",
            f'client_keys entry 1: name is "a b" (no name of a key); it takes {NAME_FORM}',
            id="name",
        ),
        pytest.param(
            f"[{entry('', 'a' * 65)}]",
            f'client_keys entry 1: name is "***" (no name of a key); it takes {NAME_FORM}',
            id="long-name",
        ),
        pytest.param(
            f"[{entry('model: a')}]",
            'client_keys entry 1 has an unknown name "model"; did you mean models?',
            id="unknown-name",
        ),
        pytest.param(
            f"[{entry('colour: red')}]",
            'client_keys entry 1 has an unknown name "colour"; it takes addresses, budget, expires, log_chat, '
            "max_parallel, models, name, requests, sha256, tokens",
            id="unknown-name-like-nothing",
        ),
        pytest.param(
            f"[{entry('')}, {entry('', 'bob')}]",
            "client_keys entry 2 (bob): sha256 is that of client_keys entry 1 (alice)",
            id="same-key",
        ),
        pytest.param(
            f"[{entry('')}, {entry('', 'alice', OTHER)}]",
            'client_keys entry 2: name "alice" is that of client_keys entry 1; each key has one of its own',
            id="same-name",
        ),
    ],
)
def test_keys_that_cannot_be_used(refused: Refused, content: str, problem: str) -> None:
    """A key has a name and a digest, each its own."""
    assert refused(f"client_keys: {content}") == problem


def test_all_problems_at_once(refused: Refused) -> None:
    """Every field of every entry that cannot be used is told, and the prices that cannot."""
    told = refused(
        "client_keys: [{name: 'a b', max_parallel: x}, {name: b, sha256: y}]\nprices: {m: 1}\ncurrency: US dollars"
    )
    assert told.split("; ") == [
        'client_keys entry 1: name is "a b" (no name of a key)',
        f"it takes {NAME_FORM}",
        "client_keys entry 1 has no sha256",
        f"it takes {DIGEST_FORM}",
        'client_keys entry 1: max_parallel is "x" (no whole number)',
        "it takes a whole number from 1",
        "client_keys entry 2: sha256 cannot be used (it is not 64 hexadecimal digits",
        "run chat-api keys new NAME)",
        f"it takes {DIGEST_FORM}",
        "prices of m is no mapping of names to values",
        'the file: currency is "US dollars" (no word)',
        "it takes a word such as EUR",
    ]


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        pytest.param("sha256: sk-chat-SECRET", "run chat-api keys new NAME", id="key-as-digest"),
        pytest.param("sha256: sha256:SECRET", "run chat-api keys new NAME", id="prefix"),
        pytest.param("sha256: [SECRET]", DIGEST_FORM, id="digest-list"),
        pytest.param("key: SECRET", "keys are stored as sha256: run chat-api keys new NAME", id="key"),
        pytest.param("api_key: SECRET", "keys are stored as sha256: run chat-api keys new NAME", id="api-key"),
        pytest.param("token: SECRET", "keys are stored as sha256: run chat-api keys new NAME", id="token"),
        pytest.param("name: sk-chat-SECRET789", "it is a key, and names are no secrets", id="key-as-name"),
    ],
)
def test_plain_key_is_not_repeated(refused: Refused, more: str, hint: str) -> None:
    """A key that stands where its digest should, or a name, is told as what it is, without a word of it."""
    names = [name for name in ("name", "sha256") if not more.startswith(name)]
    told = refused(f"client_keys: [{{{more}, {', '.join(f'{name}: a' for name in names)}}}]")
    assert hint in told
    assert "SECRET" not in told


def test_digest_is_not_shown(read: Read) -> None:
    """What was read shows no digest: a weak key could be guessed from it."""
    shown = repr(read(f"client_keys: [{entry('')}]"))
    assert DIGEST not in shown
    assert repr(digest_of("sk-1")) not in shown


@pytest.mark.parametrize(
    ("content", "prices"),
    [
        pytest.param("{}", {}, id="none"),
        pytest.param("", {}, id="blank"),
        pytest.param("{m: {prompt: 2.50, completion: 10, cached: .5}}", {"m": Price(2.5, 10.0, 0.5)}, id="all"),
        pytest.param("{m: {prompt: 2.50, completion: 0}}", {"m": Price(2.5, 0.0, 2.5)}, id="cached-like-the-prompt"),
        pytest.param("{m: {prompt: 1, completion: 0, cached: 0}}", {"m": Price(1.0, 0.0, 0.0)}, id="cached-free"),
    ],
)
def test_prices(read: Read, content: str, prices: dict[str, Price]) -> None:
    """A model's tokens have a price each; cached ones that of the prompt, unless it is said."""
    assert read(f"prices: {content}").prices == prices


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(
            "[m]",
            "prices is no mapping of models to prices, such as gpt-4o: {prompt: 2.50, completion: 10.00}",
            id="list",
        ),
        pytest.param("{m: 1}", "prices of m is no mapping of names to values", id="number"),
        pytest.param("{m: {completion: 1}}", f"prices of m has no prompt; it takes {PRICE_FORM}", id="no-prompt"),
        pytest.param(
            "{m: {prompt: 1}}", f"prices of m has no completion; it takes {PRICE_FORM} where there is none", id="half"
        ),
        pytest.param(
            "{m: {prompt: -1, completion: 1}}",
            f'prices of m: prompt is "-1" (no amount of money); it takes {PRICE_FORM}',
            id="negative",
        ),
        pytest.param(
            "{m: {prompt: $1, completion: 1}}",
            f'prices of m: prompt is "$1" (no amount of money); it takes {PRICE_FORM}',
            id="with-currency",
        ),
        pytest.param(
            "{m: {prompt: 1, output: 1}}",
            'prices of m has an unknown name "output"; it takes cached, completion, prompt',
            id="name",
        ),
        pytest.param(
            "{m: {prompt: 1, completion: 1}, M: {prompt: 1, completion: 1}}", "prices of M are given twice", id="twice"
        ),
    ],
)
def test_prices_that_cannot_be_used(refused: Refused, content: str, problem: str) -> None:
    """A price that is none is told with its model, and none is guessed."""
    assert refused(f"prices: {content}") == problem


@pytest.mark.parametrize(("text", "currency"), [("EUR", "EUR"), ("€", "€"), ("''", "USD"), ("Taler", "Taler")])
def test_currency(read: Read, text: str, currency: str) -> None:
    """The currency is a word behind amounts, no more."""
    assert read(f"currency: {text}").currency == currency


ENDPOINT = "https://east.openai.azure.com"
KEYS = f"client_keys: [{entry('')}]"


@pytest.mark.parametrize(
    ("content", "is_read"),
    [
        pytest.param(KEYS, True, id="client-keys"),
        pytest.param(f"{{deployments: [], {KEYS}}}", True, id="client-keys-in-one-line"),
        pytest.param(f"\n'client_keys' : [{entry('')}]", True, id="quotes"),
        pytest.param(PRICES, True, id="prices"),
        pytest.param(f"# {KEYS}\ndeployments: [{{name: a}}]", False, id="remark"),
        pytest.param("deployments: [{name: a}]", False, id="deployments-alone"),
    ],
)
def test_keys_beside_an_endpoint_are_not_passed_over(tmp_path: Path, content: str, is_read: bool) -> None:
    """`config.yaml` beside `.env` counts next to an ENDPOINT if it says who may call, or what that costs."""
    (tmp_path / "config.yaml").write_text(content)
    settings = load({"ENDPOINT": ENDPOINT, "KEY": "k", "DEPLOYMENT_NAME": "d"}, tmp_path / ".env")

    assert (settings.config != Config()) is is_read
    assert settings.lends_key is not bool(settings.client_keys)


def test_keys_that_cannot_be_used_do_not_open_the_server(tmp_path: Path) -> None:
    """A slip in the keys stops the start, beside an ENDPOINT too, even where the file is not YAML."""
    for content in ("client_keys: [{name: a}]", "client_keys: [", "client_keys:\n\t- name: a"):
        (tmp_path / "config.yaml").write_text(content)
        with pytest.raises(SettingsError, match="CONFIG_FILE is "):
            load({"ENDPOINT": ENDPOINT, "KEY": "k", "HOST": "0.0.0.0"}, tmp_path / ".env")


@pytest.mark.parametrize("content", [KEYS, PRICES, "client_keys: []", "currency: EUR"])
def test_file_without_deployments(tmp_path: Path, content: str) -> None:
    """A file that is named may have keys or prices and nothing else; one that has nothing is not the one meant."""
    path = tmp_path / "callers.yaml"
    path.write_text(content)
    if content in (KEYS, PRICES):
        assert load({"CONFIG_FILE": str(path)}, tmp_path / ".env").upstream == "emulator"
        return
    with pytest.raises(SettingsError, match="it has no deployments"):
        load({"CONFIG_FILE": str(path)}, tmp_path / ".env")


def test_all_client_keys(tmp_path: Path) -> None:
    """CLIENT_KEYS and the file's keys are one list; a key that CLIENT_KEYS has twice is there once."""
    (tmp_path / "config.yaml").write_text(KEYS)
    settings = load({"CLIENT_KEYS": "a, b, a"}, tmp_path / ".env")

    assert settings.client_keys == (
        unnamed_key("a"),
        unnamed_key("b"),
        ClientKey("alice", digest_of("sk-1")),
    )
    assert not settings.lends_key


def test_example_has_every_name(read: Read) -> None:
    """What config.example.yaml shows of keys and prices has every name, and can be used once its marks are off."""
    example = (ROOT / "config.example.yaml").read_text()
    lines = re.findall(r"^# ( *(?:- )?[\w.-]+:(?: .*)?)$", example, re.MULTILINE)
    config = read("\n".join(lines))
    (key,) = config.client_keys

    assert all(getattr(key, field.name) for field in dataclasses.fields(key))
    assert config.prices["gpt-4o"] == Price(2.5, 10.0, 1.25)
    assert (len(config.prices), config.currency) == (2, "EUR")
