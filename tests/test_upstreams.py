"""The settings made into tables: who answers at /v1 and under each path prefix, with whose key."""

from pathlib import Path

import pytest

from chat_api.settings import load
from chat_api.types import Deployment, Secret
from chat_api.upstreams import MAIN, upstreams

NO_FILE = Path("/nonexistent/.env")
AZURE = "https://r.openai.azure.com"
EMULATOR = Deployment("gpt-4o", "http://127.0.0.1:1", "2024-10-21", Secret("e"))


def deployment(name: str, base_url: str = AZURE, version: str = "2024-10-21", key: str | None = "k") -> Deployment:
    """A deployment at Azure."""
    return Deployment(name, base_url, version, Secret(key) if key else None)


def server(root: str, key: str | None = None, version: str = "v1", name: str = "") -> Deployment:
    """An OpenAI-compatible server under one key."""
    return Deployment(name, root, version, Secret(key) if key else None, "openai")


@pytest.mark.parametrize(
    ("environ", "model", "expected"),
    [
        pytest.param({"DEPLOYMENT_NAME": "d"}, None, [deployment("d")], id="default"),
        pytest.param({"DEPLOYMENT_NAME": "d"}, "e", [deployment("e")], id="another"),
        pytest.param({}, "e", [deployment("e")], id="no-default"),
        pytest.param({"API_VERSION": "v1"}, "e", [deployment("e", version="v1")], id="v1"),
        pytest.param({"KEY": ""}, "e", [deployment("e", key=None)], id="no-key"),
        pytest.param({"MODEL_MAPPER": "gpt=east,x=y"}, "gpt", [deployment("east")], id="mapped"),
        pytest.param({"MODEL_MAPPER": "gpt=east,x=y"}, "east", [deployment("east")], id="mapped-by-its-own-name"),
        pytest.param(
            {"MODEL_MAPPER": "d=east", "DEPLOYMENT_NAME": "d"}, None, [deployment("east")], id="mapped-default"
        ),
        pytest.param(
            {"UNKNOWN_MODEL": "default", "DEPLOYMENT_NAME": "d"}, "e", [deployment("d")], id="unknown-is-the-default"
        ),
    ],
)
def test_azure(environ: dict[str, str], model: str | None, expected: list[Deployment]) -> None:
    """ENDPOINT's deployments answer, mapped or by their own names."""
    tables = upstreams(load({"ENDPOINT": AZURE, "KEY": "k", **environ}, NO_FILE))
    assert list(tables) == [MAIN]
    assert list(tables[MAIN].group(model)) == expected


FAR = "https://far.openai.azure.com"
BOTH = {"ENDPOINT": f"{AZURE},{FAR}", "KEY": "k1,k2"}


def at_both(name: str, keys: tuple[str | None, str | None] = ("k1", "k2"), version: str = "2024-10-21") -> object:
    """A deployment's name at both of the endpoints."""
    return [deployment(name, AZURE, version, keys[0]), deployment(name, FAR, version, keys[1])]


@pytest.mark.parametrize(
    ("environ", "model", "expected"),
    [
        pytest.param({"DEPLOYMENT_NAME": "d"}, None, at_both("d"), id="default"),
        pytest.param({"DEPLOYMENT_NAME": "d"}, "d", at_both("d"), id="default-by-its-name"),
        pytest.param({}, "e", at_both("e"), id="unmapped"),
        pytest.param({"KEY": "k"}, "e", at_both("e", ("k", "k")), id="one-key"),
        pytest.param({"KEY": ""}, "e", at_both("e", (None, None)), id="no-key"),
        pytest.param({"MODEL_MAPPER": "gpt=x", "API_VERSION": "v1"}, "gpt", at_both("x", version="v1"), id="mapped"),
        pytest.param(
            {"UNKNOWN_MODEL": "default", "DEPLOYMENT_NAME": "d"}, "e", at_both("d"), id="unknown-is-the-default"
        ),
        pytest.param(
            {"ENDPOINT": f"{AZURE}/openai/deployments/a/x?api-version=2024-06-01,{FAR}/openai/v1?model=b"},
            None,
            [deployment("a", AZURE, "2024-06-01", "k1"), deployment("b", FAR, "v1", "k2")],
            id="each-its-own-deployment-and-version",
        ),
    ],
)
def test_several_endpoints(environ: dict[str, str], model: str | None, expected: object) -> None:
    """All of ENDPOINT's answer in each other's place, each with its own key."""
    table = upstreams(load({**BOTH, **environ}, NO_FILE))[MAIN]
    assert list(table.group(model)) == expected


def test_emulator() -> None:
    """Without an upstream the emulator answers, and lists what it has."""
    tables = upstreams(load({}, NO_FILE), EMULATOR, ["gpt-4o", "embed"])
    assert tables[MAIN].names == ["gpt-4o", "embed"]
    assert [one.name for one in tables[MAIN].group("embed")] == ["embed"]
    assert list(tables[MAIN].group(None)) == [EMULATOR]


@pytest.mark.parametrize(
    ("environ", "model", "expected"),
    [
        pytest.param({"OPENAI_API_KEY": "k"}, None, [server("https://api.openai.com", "k")], id="openai"),
        pytest.param(
            {"OPENAI_API_KEY": "k"}, "m", [server("https://api.openai.com", "k", name="m")], id="openai-model"
        ),
        pytest.param({"OPENAI_BASE_URL": "http://localhost:8000/v1"}, None, [server("http://localhost:8000")], id="v1"),
        pytest.param(
            {"OPENAI_BASE_URL": "http://h:1/api/v3"}, None, [server("http://h:1/api/v3", version="")], id="v3"
        ),
        pytest.param(
            {"OPENAI_BASE_URL": "http://h:1", "OPENAI_API_KEY": "k1,k2"},
            None,
            [server("http://h:1", "k1"), server("http://h:1", "k2")],
            id="two-keys",
        ),
        pytest.param(
            {"OPENAI_BASE_URL": "http://h:1", "DEPLOYMENT_NAME": "llama"},
            None,
            [server("http://h:1", name="llama")],
            id="default-model",
        ),
        pytest.param(
            {"OPENAI_BASE_URL": "http://h:1", "OPENAI_API_KEY": "k1,k2", "MODEL_MAPPER": "gpt=llama"},
            "gpt",
            [server("http://h:1", "k1", name="llama"), server("http://h:1", "k2", name="llama")],
            id="mapped-under-each-key",
        ),
    ],
)
def test_openai(environ: dict[str, str], model: str | None, expected: list[Deployment]) -> None:
    """An OpenAI-compatible server answers once for each of its keys."""
    tables = upstreams(load({"UPSTREAM": "openai", **environ}, NO_FILE))
    assert list(tables[MAIN].group(model)) == expected


def test_prefixes() -> None:
    """Each server has a table under its prefix: OPENAI's with our keys, the extra ones with the callers' only."""
    environ = {
        "ENDPOINT": AZURE,
        "KEY": "k",
        "OPENAI_BASE_URL": "http://h:1,http://h:2",
        "OPENAI_ROUTE_PREFIX": "/one,/two",
        "OPENAI_API_KEY": "o",
        "EXTRA_BASE_URL": "http://h:3/v1",
        "EXTRA_ROUTE_PREFIX": "/three/deep",
    }
    tables = upstreams(load(environ, NO_FILE))
    assert {route: list(table.resource()) for route, table in tables.items()} == {
        "/one": [server("http://h:1", "o")],
        "/two": [server("http://h:2", "o")],
        "/three/deep": [server("http://h:3")],
        MAIN: [deployment("")],
    }


CONFIG = """
deployments:
  - name: east
    models: [gpt-4o, gpt-4]
    endpoint: https://east.openai.azure.com
    key: ke
    api_version: v1
  - name: west
    model: gpt-4o
    endpoint: https://west.openai.azure.com
    key: kw
  - name: local
    kind: openai
    model: llama
    endpoint: http://localhost:8000/v1
"""
EAST = deployment("east", "https://east.openai.azure.com", "v1", "ke")
WEST = deployment("west", "https://west.openai.azure.com", key="kw")
LOCAL = server("http://localhost:8000", name="local")


@pytest.mark.parametrize(
    ("environ", "model", "expected"),
    [
        pytest.param({}, "gpt-4o", [EAST, WEST], id="two-for-a-model"),
        pytest.param({}, "gpt-4", [EAST], id="one-for-a-model"),
        pytest.param({}, "llama", [LOCAL], id="server"),
        pytest.param({}, "local", [LOCAL], id="server-by-its-name"),
        pytest.param(
            {}, "other", [deployment("other", "https://east.openai.azure.com", "v1", "ke")], id="first-resource"
        ),
        pytest.param({"DEPLOYMENT_NAME": "west"}, "other", [deployment("other", WEST.base_url, key="kw")], id="named"),
        pytest.param({"DEPLOYMENT_NAME": "gpt-4o"}, None, [EAST, WEST], id="default-model"),
        pytest.param({"DEPLOYMENT_NAME": "llama"}, None, [LOCAL], id="default-server"),
        pytest.param({"MODEL_MAPPER": "x=west"}, "x", [WEST], id="mapped-to-a-deployment"),
        pytest.param(
            {"ENDPOINT": AZURE, "KEY": "k", "DEPLOYMENT_NAME": "d"}, None, [deployment("d")], id="beside-an-endpoint"
        ),
        pytest.param({"ENDPOINT": AZURE, "KEY": "k"}, "gpt-4", [EAST], id="table-beside-an-endpoint"),
        pytest.param({"ENDPOINT": AZURE, "KEY": "k"}, "llama", [LOCAL], id="our-key-is-not-sent-elsewhere"),
    ],
)
def test_config(tmp_path: Path, environ: dict[str, str], model: str | None, expected: list[Deployment]) -> None:
    """The file's deployments answer for their models, each with its own resource, version and key."""
    (tmp_path / "c.yaml").write_text(CONFIG)
    tables = upstreams(load({"CONFIG_FILE": str(tmp_path / "c.yaml"), **environ}, NO_FILE))
    assert list(tables[MAIN].group(model)) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param("{name: x}", deployment("x"), id="all-of-it"),
        pytest.param("{name: x, api_version: v1}", deployment("x", version="v1"), id="version"),
        pytest.param("{name: x, key: own}", deployment("x", key="own"), id="key"),
        pytest.param(
            "{name: x, endpoint: 'https://s.openai.azure.com'}",
            deployment("x", "https://s.openai.azure.com", key=None),
            id="no-key-for-another-resource",
        ),
        pytest.param("{name: x, endpoint: 'https://r.openai.azure.com/'}", deployment("x"), id="the-same-resource"),
    ],
)
def test_what_the_file_leaves_out(tmp_path: Path, row: str, expected: Deployment) -> None:
    """What an entry leaves out is ENDPOINT's; its key only for ENDPOINT's own resource."""
    (tmp_path / "c.yaml").write_text(f"deployments: [{row}]")
    environ = {"ENDPOINT": AZURE, "KEY": "k", "CONFIG_FILE": str(tmp_path / "c.yaml")}
    assert list(upstreams(load(environ, NO_FILE))[MAIN].group("x")) == [expected]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param("{name: x}", at_both("x"), id="all-of-it"),
        pytest.param("{name: x, models: [m, x]}", at_both("x"), id="models"),
        pytest.param("{name: x, api_version: v1, key: own}", at_both("x", ("own", "own"), "v1"), id="own-words"),
        pytest.param(
            f"{{name: x, endpoint: '{FAR}'}}", [deployment("x", FAR, key="k2")], id="one-of-them-with-its-key"
        ),
        pytest.param(
            "{name: x, endpoint: 'https://s.openai.azure.com'}",
            [deployment("x", "https://s.openai.azure.com", key=None)],
            id="another",
        ),
        pytest.param(
            "{name: x, priority: 1, weight: 2, max_in_flight: 3}",
            [
                Deployment("x", AZURE, "2024-10-21", Secret("k1"), "azure", 1, 2.0, 3),
                Deployment("x", FAR, "2024-10-21", Secret("k2"), "azure", 1, 2.0, 3),
            ],
            id="share-applies-to-each",
        ),
    ],
)
def test_entry_beside_several_endpoints(tmp_path: Path, row: str, expected: object) -> None:
    """An entry without an endpoint of its own is at each of ENDPOINT's."""
    (tmp_path / "c.yaml").write_text(f"deployments: [{row}]")
    given = {**BOTH, "CONFIG_FILE": str(tmp_path / "c.yaml"), "MODEL_MAPPER": "mapped=x"}
    table = upstreams(load(given, NO_FILE))[MAIN]
    assert list(table.group("x")) == list(table.group("mapped")) == expected


def test_entry_has_the_version_of_its_endpoint(tmp_path: Path) -> None:
    """An entry at one of ENDPOINT's resources is asked in the version that this one's URL says."""
    (tmp_path / "c.yaml").write_text(f"deployments: [{{name: x, endpoint: '{FAR}'}}, {{name: y}}]")
    given = {"ENDPOINT": f"{AZURE}?api-version=2024-06-01,{FAR}/openai/v1", "CONFIG_FILE": str(tmp_path / "c.yaml")}
    table = upstreams(load(given, NO_FILE))[MAIN]
    assert [one.api_version for one in table.group("x")] == ["v1"]
    assert [one.api_version for one in table.group("y")] == ["2024-06-01", "v1"]


def test_mapped_to_a_name_at_two_resources(tmp_path: Path) -> None:
    """A model that is mapped to a deployment's name gets all of the file that are called so."""
    (tmp_path / "c.yaml").write_text(f"deployments: [{{name: x, endpoint: '{AZURE}'}}, {{name: x, endpoint: '{FAR}'}}]")
    given = {"CONFIG_FILE": str(tmp_path / "c.yaml"), "KEY": "k", "MODEL_MAPPER": "m=x"}
    assert [one.base_url for one in upstreams(load(given, NO_FILE))[MAIN].group("m")] == [AZURE, FAR]


def test_entry_at_a_server_under_several_keys(tmp_path: Path) -> None:
    """Without an endpoint of its own an entry is at the server once for each key; with a key of its own once."""
    (tmp_path / "c.yaml").write_text("deployments: [{name: x}, {name: y, key: own}]")
    given = {"UPSTREAM": "openai", "OPENAI_BASE_URL": "http://h:1", "OPENAI_API_KEY": "k1,k2"}
    table = upstreams(load({**given, "CONFIG_FILE": str(tmp_path / "c.yaml")}, NO_FILE))[MAIN]
    assert list(table.group("x")) == [server("http://h:1", "k1", name="x"), server("http://h:1", "k2", name="x")]
    assert list(table.group("y")) == [server("http://h:1", "own", name="y")]


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param("", (0, 1.0, None), id="none"),
        pytest.param(", priority: 2, weight: 0.5, max_in_flight: 8", (2, 0.5, 8), id="all"),
    ],
)
@pytest.mark.parametrize("endpoint", ["", ", endpoint: 'https://s.openai.azure.com'"], ids=["shared", "own"])
def test_share(tmp_path: Path, endpoint: str, share: str, expected: tuple[int, float, int | None]) -> None:
    """Priority, weight and the most in flight are those of the entry, for each of its models."""
    (tmp_path / "c.yaml").write_text(f"deployments: [{{name: x, models: [m, n]{endpoint}{share}}}]")
    table = upstreams(load({"ENDPOINT": AZURE, "CONFIG_FILE": str(tmp_path / "c.yaml")}, NO_FILE))[MAIN]
    for model in ("m", "n", "x"):
        (one,) = table.group(model)
        assert (one.priority, one.weight, one.max_in_flight) == expected


def test_share_is_the_entrys_alone(tmp_path: Path) -> None:
    """Another model at the resource of the first entry does not have that entry's share."""
    row = "{name: x, endpoint: 'https://s.openai.azure.com', priority: 2, weight: 3, max_in_flight: 8}"
    (tmp_path / "c.yaml").write_text(f"deployments: [{row}]")
    table = upstreams(load({"CONFIG_FILE": str(tmp_path / "c.yaml")}, NO_FILE))[MAIN]
    assert list(table.group("y")) == [deployment("y", "https://s.openai.azure.com", key=None)]


def test_fallbacks_are_the_main_tables() -> None:
    """Fallbacks belong to the upstream at /v1: a server under a prefix has its own models."""
    local = {"OPENAI_BASE_URL": "http://h:1", "OPENAI_ROUTE_PREFIX": "/local"}
    tables = upstreams(load({"ENDPOINT": AZURE, "MODEL_FALLBACK": "a=b", **local}, NO_FILE))
    assert {route: table.fallback_of("a") for route, table in tables.items()} == {MAIN: "b", "/local": None}


def test_key_of_azure_goes_nowhere_else(tmp_path: Path) -> None:
    """KEY is not lent to an OpenAI-compatible server of the file, whichever entry is the default."""
    file = tmp_path / "config.yaml"
    file.write_text(
        "deployments:\n"
        "- {name: llama, kind: openai, endpoint: 'https://third.example.com/v1'}\n"
        "- {name: gpt, endpoint: 'https://r.openai.azure.com'}\n"
    )
    for name in ("", "llama", "gpt"):
        given = {"CONFIG_FILE": str(file), "KEY": "canary", "DEPLOYMENT_NAME": name}
        tables = upstreams(load(given, NO_FILE))
        for one in tables[MAIN].deployments:
            assert one.key is None or one.base_url == "https://r.openai.azure.com"


def test_entry_without_an_endpoint_is_at_the_default_upstream(tmp_path: Path) -> None:
    """What an entry leaves out is the default upstream's: its kind, its version and its key, not only its URL."""
    file = tmp_path / "config.yaml"
    file.write_text("deployments:\n- {name: big, models: [large]}\n")
    given = {"CONFIG_FILE": str(file), "UPSTREAM": "openai", "OPENAI_BASE_URL": "https://x.example.com/v1"}
    (one,) = upstreams(load({**given, "OPENAI_API_KEY": "sk"}, NO_FILE))[MAIN].group("large")
    assert (one.kind, one.base_url, one.api_version, one.key) == ("openai", "https://x.example.com", "v1", Secret("sk"))
