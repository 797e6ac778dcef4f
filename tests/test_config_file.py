"""The YAML file of deployments: both forms, and what is said of one that cannot be used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chat_api.azure_url import Endpoint
from chat_api.config_file import Config, ConfiguredDeployment, read_config
from chat_api.settings import SettingsError, load
from chat_api.types import Secret
from chat_api.upstreams import upstreams
from tests.processes import ROOT

EAST = "https://east.openai.azure.com"
TARGET = f"{EAST}/openai/deployments/d/chat/completions?api-version=2024-06-01"
KEY_FORM = "a key of visible ASCII characters without spaces"
URL_FORM = "an http(s) URL such as https://my-resource.openai.azure.com"
SERVER_FORM = "an http(s) URL such as http://127.0.0.1:8000/v1"
VERSION_FORM = "a date such as 2024-10-21 or 2025-04-01-preview, or v1"
OURS = "api_version, endpoint, key, kind, max_in_flight, model, models, name, priority, weight"

Read = Callable[[str | bytes], Config]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a file with this content."""

    def read(content: str | bytes) -> Config:
        path = tmp_path / "config.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_config(path)

    return read


def test_form_of_azure_openai_proxy(read: Read) -> None:
    """A file of azure-openai-proxy is read as it is."""
    assert read(
        """\
api_base: "/openai"
deployment_config:
  - deployment_name: "xxx"
    model_name: "text-davinci-003"
    endpoint: "https://east.openai.azure.com/"
    api_key: "11111111111"
    api_version: "2024-02-01"
  - deployment_name: "yyy"
    model_name: "gpt-3.5-turbo"
    endpoint: "https://west.openai.azure.com/"
    api_key: "22222222222"
    api_version: "2023-05-15"
"""
    ) == Config(
        (
            ConfiguredDeployment(
                "xxx", ("text-davinci-003",), Endpoint(EAST), Secret("11111111111"), "2024-02-01", "azure"
            ),
            ConfiguredDeployment(
                "yyy",
                ("gpt-3.5-turbo",),
                Endpoint("https://west.openai.azure.com"),
                Secret("22222222222"),
                "2023-05-15",
                "azure",
            ),
        ),
        "/openai",
        listens_everywhere=True,
    )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param("name: a", ConfiguredDeployment("a", ("a",)), id="name-alone"),
        pytest.param("name: a, model: m", ConfiguredDeployment("a", ("m",)), id="model"),
        pytest.param("name: a, models: m", ConfiguredDeployment("a", ("m",)), id="models-of-one"),
        pytest.param("name: a, models: [m, n], model: o", ConfiguredDeployment("a", ("m", "n", "o")), id="models"),
        pytest.param("name: a, models: []", ConfiguredDeployment("a", ("a",)), id="no-models"),
        pytest.param("name: a, key: 0123", ConfiguredDeployment("a", ("a",), key=Secret("0123")), id="key-of-digits"),
        pytest.param("name: 4, model: 3.5", ConfiguredDeployment("4", ("3.5",)), id="numbers-are-text"),
        pytest.param("name: on, model: no", ConfiguredDeployment("on", ("no",)), id="flags-are-text"),
        pytest.param(
            "name: a, api_version: 2024-02-01",
            ConfiguredDeployment("a", ("a",), api_version="2024-02-01"),
            id="date-without-quotes",
        ),
        pytest.param(
            "name: a, api_version: 2025-04-01-preview",
            ConfiguredDeployment("a", ("a",), api_version="2025-04-01-preview"),
            id="preview",
        ),
        pytest.param(
            f"endpoint: '{TARGET}'",
            ConfiguredDeployment("d", ("d",), Endpoint(EAST, "d", "2024-06-01"), api_version="2024-06-01"),
            id="all-in-the-url",
        ),
        pytest.param(
            f"endpoint: '{TARGET}', name: a, api_version: v1",
            ConfiguredDeployment("a", ("a",), Endpoint(EAST, "d", "2024-06-01"), api_version="v1"),
            id="own-words-beat-the-url",
        ),
        pytest.param(
            "name: llama, kind: OpenAI, endpoint: 'http://127.0.0.1:8000/v1/'",
            ConfiguredDeployment("llama", ("llama",), Endpoint("http://127.0.0.1:8000"), kind="openai"),
            id="openai",
        ),
        pytest.param(
            "name: a, priority: 1, weight: 0.5, max_in_flight: 8",
            ConfiguredDeployment("a", ("a",), priority=1, weight=0.5, max_in_flight=8),
            id="share",
        ),
        pytest.param(
            "name: a, priority: 0, weight: '3', max_in_flight: 1",
            ConfiguredDeployment("a", ("a",), priority=0, weight=3.0, max_in_flight=1),
            id="share-least",
        ),
        pytest.param(
            "name: a, priority: , weight: '', max_in_flight: ", ConfiguredDeployment("a", ("a",)), id="share-blank"
        ),
        pytest.param("name: a, key: , endpoint: ''", ConfiguredDeployment("a", ("a",)), id="blank-is-unset"),
    ],
)
def test_our_form(read: Read, entry: str, expected: ConfiguredDeployment) -> None:
    """An entry says what it wants to; the rest is left to the settings, or stands in its URL."""
    assert read(f"deployments: [{{{entry}}}]") == Config((expected,))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("# nothing yet\n", id="remarks"),
        pytest.param("---\n", id="document-start"),
        pytest.param("deployments:\n", id="section-without-entries"),
        pytest.param("\ufeff", id="byte-order-mark"),
        pytest.param("{}", id="no-names"),
    ],
)
def test_file_that_says_nothing(read: Read, content: str) -> None:
    """An empty file is as good as none."""
    assert read(content) == Config((), "/v1")


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        pytest.param("/v1", "/v1", id="default"),
        pytest.param("openai/v1/", "/openai/v1", id="slashes"),
        pytest.param("''", "/v1", id="blank"),
        pytest.param("/", "/", id="root"),
    ],
)
def test_api_base(read: Read, base: str, expected: str) -> None:
    """The path of the API is written as people write paths."""
    assert read(f"api_base: {base}").api_base == expected


@pytest.mark.parametrize(
    ("content", "fallbacks"),
    [
        pytest.param("fallbacks: {gpt-4o: gpt-4o-mini, 3.5: no}", (("gpt-4o", "gpt-4o-mini"), ("3.5", "no")), id="two"),
        pytest.param("fallbacks:\ndeployments: []", (), id="blank"),
        pytest.param("fallbacks: {}", (), id="none"),
    ],
)
def test_fallbacks(read: Read, content: str, fallbacks: tuple[tuple[str, str], ...]) -> None:
    """Models that answer for others are read in their order; names are text."""
    assert read(content).fallbacks == fallbacks


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param("fallbacks: gpt-4o-mini", "fallbacks is no mapping of models to models", id="text"),
        pytest.param("fallbacks: [a]", "fallbacks is no mapping of models to models", id="list"),
        pytest.param("fallbacks: {a: [b]}", "fallbacks: a takes the name of one model", id="list-of-models"),
        pytest.param("fallbacks: {a: }", 'fallbacks: a is ""; it takes the name of a model', id="blank"),
        pytest.param("fallbacks: {a: ../b}", 'fallbacks: a is "../b"; it takes the name of a model', id="path"),
        pytest.param(
            "fallbacks: {'': b}", 'fallbacks: a model without a name is "b"; it takes the name of a model', id="no-name"
        ),
        pytest.param("fallbacks: {a: b, a: c}", '"a" is given twice', id="twice"),
    ],
)
def test_fallbacks_that_are_none(read: Read, content: str, problem: str) -> None:
    """A fallback that cannot be used is told with its model, its value and what it takes."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the reason is compared
        read(content)
    assert problem in str(caught.value)


WHOLE = "a whole number from"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        pytest.param("priority: -1", f'priority is "-1" (too small); it takes {WHOLE} 0', id="priority-negative"),
        pytest.param("priority: 0.5", f'priority is "0.5" (no whole number); it takes {WHOLE} 0', id="priority-half"),
        pytest.param(
            "priority: first", f'priority is "first" (no whole number); it takes {WHOLE} 0', id="priority-word"
        ),
        pytest.param("priority: [1]", f"priority takes {WHOLE} 0", id="priority-list"),
        pytest.param("weight: 0", 'weight is "0" (not above 0); it takes a number above 0', id="weight-zero"),
        pytest.param("weight: -2.5", 'weight is "-2.5" (not above 0); it takes a number above 0', id="weight-negative"),
        pytest.param("weight: .inf", 'weight is ".inf" (no number); it takes a number above 0', id="weight-infinite"),
        pytest.param("weight: nan", 'weight is "nan" (no number); it takes a number above 0', id="weight-nan"),
        pytest.param("max_in_flight: 0", f'max_in_flight is "0" (too small); it takes {WHOLE} 1', id="in-flight-none"),
        pytest.param(
            "max_in_flight: 1_0", f'max_in_flight is "1_0" (no whole number); it takes {WHOLE} 1', id="in-flight-word"
        ),
    ],
)
def test_share_that_is_none(read: Read, entry: str, problem: str) -> None:
    """Priority, weight and the most in flight are numbers; what is none is told with its entry, name and value."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the reason is compared
        read(f"deployments: [{{name: a, {entry}}}]")
    assert str(caught.value) == f"deployments entry 1: {problem}"


@pytest.mark.parametrize("name", ["priority", "weight", "max_in_flight"])
def test_other_form_has_no_shares(read: Read, name: str) -> None:
    """A file of azure-openai-proxy cannot say how calls are shared out: its own form knows no such name."""
    with pytest.raises(ValueError, match=f'deployment_config entry 1 has an unknown name "{name}"'):
        read(f"deployment_config: [{{deployment_name: a, {name}: 1}}]")


def test_all_problems_of_the_file_at_once(read: Read) -> None:
    """Fallbacks that cannot be used are told beside the entries that cannot."""
    with pytest.raises(ValueError, match=r"^deployments entry 1: weight is .*; fallbacks is no mapping"):
        read("{deployments: [{name: a, weight: x}], fallbacks: x}")


def test_anchors(read: Read) -> None:
    """What several entries have in common may be written once."""
    text = (
        f"deployments:\n- {{name: a, endpoint: &east {EAST}, key: &key k}}\n- {{name: b, endpoint: *east, key: *key}}"
    )
    first, second = read(text).deployments

    assert (second.endpoint, second.key) == (first.endpoint, first.key) == (Endpoint(EAST), Secret("k"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(
            "deployment: []", 'the file has an unknown name "deployment"; did you mean deployments?', id="top"
        ),
        pytest.param(
            "servers: []",
            'the file has an unknown name "servers"; '
            "it takes api_base, cache, client_keys, currency, deployment_config, deployments, fallbacks, log, prices",
            id="top-like-nothing",
        ),
        pytest.param(
            "deployments: [{name: a}, {nmae: b}]",
            'deployments entry 2 has an unknown name "nmae"; did you mean name?',
            id="entry",
        ),
        pytest.param(
            "deployments: [{colour: red}]",
            f'deployments entry 1 has an unknown name "colour"; it takes {OURS}',
            id="entry-like-nothing",
        ),
        pytest.param(
            "deployment_config: [{deployment_name: a, apikey: b}]",
            'deployment_config entry 1 has an unknown name "apikey"; did you mean api_key?',
            id="other-form",
        ),
        pytest.param(
            "deployments: [{api_key: b}]",
            'deployments entry 1 has an unknown name "api_key"; did you mean key?',
            id="forms-mixed",
        ),
        pytest.param("- a", "the file is no mapping of names to values", id="list"),
        pytest.param("some text", "the file is no mapping of names to values", id="text"),
        pytest.param("deployments: a", "deployments is no list", id="deployments-text"),
        pytest.param("deployments: {name: a}", "deployments is no list", id="deployments-mapping"),
        pytest.param("deployments: [a]", "deployments entry 1 is no mapping of names to values", id="entry-text"),
        pytest.param("deployments:\n-\n", "deployments entry 1 is no mapping of names to values", id="entry-empty"),
        pytest.param(
            "deployments: [{}]", "deployments entry 1 has no name; it takes the name of a deployment", id="{}"
        ),
        pytest.param(
            "deployments: [{name: [a]}]", "deployments entry 1: name takes the name of a deployment", id="name-list"
        ),
        pytest.param(
            "deployments: [{name: a, key: {}}]", f"deployments entry 1: key takes {KEY_FORM}", id="key-mapping"
        ),
        pytest.param(
            "deployments: [{name: a, models: {m: n}}]", "deployments entry 1: models takes a list of names", id="models"
        ),
        pytest.param(
            "deployments: [{name: a, model: [m]}]", "deployments entry 1: models takes a list of names", id="model-list"
        ),
        pytest.param(
            "deployments: [{name: a, models: [m, '']}]",
            "deployments entry 1: models takes a list of names",
            id="model-blank",
        ),
        pytest.param(
            "deployments: [{name: a/../b}]",
            'deployments entry 1: name is "a/../b" (no deployment is called so); it takes the name of a deployment',
            id="name",
        ),
        pytest.param(
            "deployments: [{name: a, api_version: 2024}]",
            f'deployments entry 1: api_version is "2024" ("2024" is not an api-version); it takes {VERSION_FORM}',
            id="version",
        ),
        pytest.param(
            "deployments: [{name: a, endpoint: my-resource}]",
            f'deployments entry 1: endpoint is "my-resource" (a resource\'s name, not its URL); it takes {URL_FORM}',
            id="endpoint",
        ),
        pytest.param(
            "deployments: [{name: a, kind: bing}]",
            'deployments entry 1: kind is "bing" (none of them); it takes azure or openai',
            id="kind",
        ),
        pytest.param(
            "deployments: [{name: a, kind: openai}]",
            f"deployments entry 1 has no endpoint; it takes {SERVER_FORM}",
            id="openai-without-endpoint",
        ),
        pytest.param("api_base: '/a b'", '"/a b" is no path prefix', id="api-base"),
        pytest.param("api_base: [v1]", "\"/['v1']\" is no path prefix", id="api-base-list"),
        pytest.param("api_base: ','", "it lists nothing", id="api-base-of-nothing"),
        pytest.param("deployments: []\ndeployments: []", 'line 2: "deployments" is given twice', id="twice"),
        pytest.param("deployments:\n- name: a\n  name: b", 'line 3: "name" is given twice', id="twice-in-entry"),
        pytest.param("? [a, b]\n: c", "line 1: a name is no text", id="name-of-many"),
        pytest.param("deployments:\n- name: [a\n", "line 3: expected ',' or ']', but got '<stream end>'", id="bracket"),
        pytest.param("api_base: '/v1\n", "line 2: found unexpected end of stream", id="quote"),
        pytest.param(
            "deployments:\n\t- name: a", "line 2: found character '\\t' that cannot start any token", id="tab"
        ),
        pytest.param("a: b: c", "line 1: mapping values are not allowed here", id="two-colons"),
        pytest.param("--- {}\n--- {}", "line 2: but found another document", id="two-documents"),
        pytest.param("a: \x07", "unacceptable character #x0007: special characters are not allowed", id="bell"),
        pytest.param("api_base: é".encode("latin-1"), "it is not UTF-8 (byte 10)", id="not-utf-8"),
    ],
)
def test_file_that_cannot_be_used(read: Read, content: str | bytes, problem: str) -> None:
    """What is wrong is said in one sentence, with the entry or the line, and what would be right."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        read(content)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("deployments: [{name: a, key: SECRET key}]", id="key"),
        pytest.param("deployments: [{name: a, key: 'https://SECRET.example.com'}]", id="key-is-a-url"),
        pytest.param("deployment_config: [{deployment_name: a, api_key: SECRETé}]", id="other-form"),
        pytest.param("deployments: [{name: a, endpoint: 'https://u:SECRET@r.example.com'}]", id="password"),
        pytest.param("deployments: [{name: a, endpoint: 'https://u:[SECRET]@r.example.com'}]", id="brackets"),
        pytest.param("deployments: [{name: a, endpoint: 'https://u:SECRET℀@r.example.com'}]", id="not-normal"),
        pytest.param("deployments: [{name: a, endpoint: 'https://r?api-key=SECRET'}]", id="query"),
        pytest.param("deployments: [{name: a, endpoint: SECRET456789abcdef0123456789abcdef}]", id="swapped"),
        pytest.param("deployments: [{name: a, kind: openai, endpoint: 'https://r.example.com?k=SECRET'}]", id="server"),
        pytest.param("deployments: [{name: a, key: *SECRET}]", id="alias"),
        pytest.param("deployments: [{name: a, key: {SECRET: x}}]", id="mapping"),
        pytest.param("deployments:\n- name: a\n  key: SECRET: x\n", id="colon"),
        pytest.param("deployments:\n- name: a\n  key: %SECRET\n", id="percent"),
        pytest.param("deployments:\n- name: a\n  key: 'SECRET\n", id="open-quote"),
        pytest.param("deployments:\n- name: a\n  key:SECRET\n", id="no-space"),
    ],
)
def test_secrets_are_not_repeated(read: Read, content: str) -> None:
    """No message about the file has a key or a password in it."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it does not say is the point
        read(content)
    assert "SECRET" not in str(caught.value)


def test_repr_hides_the_keys(read: Read) -> None:
    """What was read shows no key."""
    assert "SECRET" not in repr(read("deployments: [{name: a, key: SECRET}]"))


@pytest.mark.parametrize(
    ("environ", "counts"),
    [
        pytest.param({}, True, id="no-endpoint"),
        pytest.param({"ENDPOINT": " "}, True, id="blank-endpoint"),
        pytest.param({"ENDPOINT": EAST}, False, id="endpoint"),
        pytest.param({"AZURE_OPENAI_ENDPOINT": EAST}, False, id="endpoint-alias"),
    ],
)
def test_config_yaml_beside_env_counts_without_an_endpoint(
    tmp_path: Path, environ: dict[str, str], counts: bool
) -> None:
    """`config.yaml` beside `.env` is read where no ENDPOINT is set, and ignored where one is."""
    (tmp_path / "config.yaml").write_text(f"deployments: [{{name: a, endpoint: {EAST}, key: k}}]")
    settings = load(environ, tmp_path / ".env")

    assert bool(settings.config.deployments) is counts
    assert (settings.upstream, settings.lends_key) == ("azure", counts)


def test_config_file_that_is_named_counts_beside_an_endpoint(tmp_path: Path) -> None:
    """CONFIG_FILE is read in any case; what its entries leave out is what the settings say."""
    path = tmp_path / "mine.yml"
    path.write_text("deployments: [{name: a, models: [m]}]")
    settings = load({"CONFIG_FILE": str(path), "ENDPOINT": EAST, "KEY": "k", "API_VERSION": "v1"}, tmp_path / ".env")
    (deployment,) = upstreams(settings)[""].group("m")

    assert (deployment.name, deployment.base_url, deployment.api_version) == ("a", EAST, "v1")
    assert deployment.key == Secret("k")


def test_problem_with_the_file_is_a_problem_with_the_settings(tmp_path: Path) -> None:
    """A file that cannot be used is told with its path, among all other problems."""
    path = tmp_path / "config.yaml"
    path.write_text("deployments: [{nmae: a}]")
    with pytest.raises(SettingsError) as caught:
        load({"n": "0"}, tmp_path / ".env")

    assert caught.value.problems == (
        'n is "0"; it takes a whole number from 1 to 128',
        f'CONFIG_FILE is {path}: deployments entry 1 has an unknown name "nmae"; did you mean name?',
    )


def test_deployments_that_are_nowhere(tmp_path: Path) -> None:
    """Where no entry has an endpoint and none is set, nobody could answer."""
    (tmp_path / "config.yaml").write_text("deployments: [{name: a}]")
    with pytest.raises(SettingsError) as caught:
        load({}, tmp_path / ".env")

    assert caught.value.problems == (
        "ENDPOINT is not set, and no deployment of the config file has an endpoint; "
        "it takes http(s) URLs such as https://my-resource.openai.azure.com, without user name or password, "
        "separated by commas",
    )


def test_example_is_our_form(tmp_path: Path) -> None:
    """config.example.yaml can be used as it is: two places for one model, a server of another kind."""
    (tmp_path / "config.yaml").write_text((ROOT / "config.example.yaml").read_text())
    settings = load({}, tmp_path / ".env")
    table = upstreams(settings)[""]

    assert settings.upstream == "azure"
    assert table.names == ["gpt-4o", "gpt-4", "text-embedding-3-small", "llama"]
    assert [one.name for one in table.group("gpt-4o")] == ["my-gpt-4o", "my-gpt-4o-west"]
    assert [(one.kind, one.base_url, one.key) for one in table.group("llama")] == [
        ("openai", "http://127.0.0.1:8000", None)
    ]
    assert settings.config.api_base == "/v1"
    assert settings.config.fallbacks == (("gpt-4o", "llama"),)


def test_example_shows_every_name() -> None:
    """config.example.yaml has each name of our form."""
    text = (ROOT / "config.example.yaml").read_text()
    assert [name for name in (*OURS.split(", "), "api_base") if f"{name}: " not in text] == []
    assert "\ndeployments:\n" in text
    assert "\nfallbacks:\n" in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({}, "", id="nothing-said"),
        pytest.param({"priority": 1}, ", priority 1", id="priority"),
        pytest.param({"weight": 2.5, "max_in_flight": 8}, ", weight 2.5, max_in_flight 8", id="weight-and-most"),
    ],
)
def test_share_in_words(fields: dict[str, Any], words: str) -> None:
    """The banner says of a deployment's share what its entry says, and no more."""
    assert ConfiguredDeployment("d", ("m",), **fields).share == words
