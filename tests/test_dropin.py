"""Files of four other gateways start this server, and it behaves as its users expect: docs/migrating.md."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from chat_api import dropin
from chat_api.callers import unnamed_key
from chat_api.cli import overrides
from chat_api.counting import Rate
from chat_api.settings import Server, Settings, SettingsError, load
from chat_api.settings_table import TABLE
from chat_api.types import Proxies, Secret
from chat_api.upstreams import MAIN, upstreams
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "migrating.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \| (.+?) \| .*\|$", PAGE, re.MULTILINE)
EAST = "https://east.openai.azure.com"

Start = Callable[..., Settings]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """The settings made of a `.env` file's text, an environment, a `config.yaml` and the flags of the command line."""
    monkeypatch.chdir(tmp_path)

    def start(
        file: str = "", environ: dict[str, str] | None = None, config: str | None = None, /, **flags: object
    ) -> Settings:
        (tmp_path / ".env").write_text(file)
        if config is not None:
            (tmp_path / "config.yaml").write_text(config)
        return load(environ or {}, tmp_path / ".env", overrides(**flags))  # type: ignore[arg-type]

    return start


def served(settings: Settings, model: str, route: str = MAIN) -> list[tuple[str, str, str, Secret | None]]:
    """What answers for a model: base URL, deployment, version and key of each that takes a turn."""
    group = upstreams(settings)[route].group(model)
    return [(one.base_url, one.name, one.api_version, one.key) for one in group]


def assert_asks_for_a_decision(start: Callable[[], Settings], name: str = "HOST") -> None:
    """The one refusal: the network would use the server's key without being asked for one."""
    with pytest.raises(SettingsError) as caught:
        start()
    (problem,) = caught.value.problems
    assert problem.startswith(f'{name} is "0.0.0.0"')
    assert "so the network could use the server's key" in problem
    assert "CLIENT_KEYS" in problem
    assert "ALLOW_ANONYMOUS" in problem


CHATGPT_API = """\
# Ports
HTTP_PORT=80
HTTPS_PORT=443

ENABLE_SSL=false
SSL_CERT=
SSL_KEY=

# Azure
ENDPOINT=https://east.openai.azure.com/
DEPLOYMENT_NAME=my-gpt-35
API_VERSION=2023-05-15
KEY=0123456789abcdef0123456789abcdef

# Defaults
temperature=0.7
top_p=
n=
stream=
stop=
max_tokens=800
presence_penalty=
frequency_penalty=
user=

TOKEN_SECRET=AAAA
TOKEN_TTL=3600
"""


def test_chatgpt_api(start: Start) -> None:
    """Its file is a file of this server's: port, deployment, key and defaults are what they were."""
    settings = start(CHATGPT_API)

    assert (settings.port, settings.host, settings.upstream) == (80, "127.0.0.1", "azure")
    assert settings.defaults == {"temperature": 0.7, "max_tokens": 800}
    assert served(settings, "my-gpt-35") == [
        (EAST, "my-gpt-35", "2023-05-15", Secret("0123456789abcdef0123456789abcdef"))
    ]
    assert settings.warnings == ()


def test_chatgpt_api_with_ssl(start: Start, tmp_path: Path) -> None:
    """Its HTTPS settings mean what they meant."""
    for name in ("fullchain.pem", "privkey.pem"):
        (tmp_path / name).touch()
    ssl = CHATGPT_API.replace("ENABLE_SSL=false", "ENABLE_SSL=true")
    ssl = ssl.replace("SSL_CERT=", "SSL_CERT=fullchain.pem").replace("SSL_KEY=", "SSL_KEY=privkey.pem")

    assert start(ssl).port == 443


def test_chatgpt_api_on_every_address(start: Start) -> None:
    """Its key is offered to the network only if somebody says so."""
    assert_asks_for_a_decision(lambda: start(CHATGPT_API, {"HOST": "0.0.0.0"}))
    assert start(CHATGPT_API, {"HOST": "0.0.0.0", "CLIENT_KEYS": "c"}).host == "0.0.0.0"
    assert start(CHATGPT_API, {"HOST": "0.0.0.0", "ALLOW_ANONYMOUS": "true"}).host == "0.0.0.0"


STULZQ = {
    "AZURE_OPENAI_ENDPOINT": "https://east.openai.azure.com/",
    "AZURE_OPENAI_API_VER": "2024-02-01",
    "AZURE_OPENAI_MODEL_MAPPER": "gpt-4=gpt-4,gpt-3.5-turbo=gpt-35-turbo",
}
STULZQ_CONFIG = """\
api_base: "/v1"
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
    api_version: 2023-05-15
"""


def test_stulzq_environment(start: Start) -> None:
    """What its compose file sets: port 8080 on every address, the models mapped, the callers' own keys."""
    settings = start("", STULZQ)

    assert (settings.host, settings.port, settings.cors_origins) == ("0.0.0.0", 8080, ("*",))
    assert served(settings, "gpt-3.5-turbo") == [(EAST, "gpt-35-turbo", "2024-02-01", None)]
    assert served(settings, "gpt-4") == [(EAST, "gpt-4", "2024-02-01", None)]
    assert settings.warnings == ()


def test_stulzq_with_a_key_of_its_own(start: Start) -> None:
    """Its key for all callers becomes the server's, which is not offered to the network unasked."""
    keyed = {**STULZQ, "AZURE_OPENAI_API_KEY": "k"}
    assert_asks_for_a_decision(lambda: start("", keyed))

    assert served(start("", {**keyed, "CLIENT_KEYS": "c"}), "gpt-4")[0][3] == Secret("k")


@pytest.mark.parametrize(
    ("environ", "proxies"),
    [
        pytest.param(
            {"AZURE_OPENAI_HTTP_PROXY": "http://user:pass@127.0.0.1:1087"},
            Proxies(Secret("http://user:pass@127.0.0.1:1087"), Secret("http://user:pass@127.0.0.1:1087")),
            id="http",
        ),
        pytest.param(
            {
                "AZURE_OPENAI_HTTP_PROXY": "http://127.0.0.1:1087",
                "AZURE_OPENAI_SOCKS_PROXY": "socks5://user:pass@127.0.0.1:1080",
            },
            Proxies(Secret("socks5://user:pass@127.0.0.1:1080"), Secret("socks5://user:pass@127.0.0.1:1080")),
            id="socks-wins",
        ),
    ],
)
def test_stulzq_proxies(start: Start, environ: dict[str, str], proxies: Proxies) -> None:
    """Its proxies are used as there."""
    assert start("", {**STULZQ, **environ}).proxies == proxies


def test_stulzq_config_file(start: Start) -> None:
    """Its `config.yaml` is read where no endpoint is set: every model has a resource, a key and a version."""
    assert_asks_for_a_decision(lambda: start("", {}, STULZQ_CONFIG))
    settings = start("", {"ALLOW_ANONYMOUS": "true"}, STULZQ_CONFIG)

    assert (settings.upstream, settings.host, settings.port) == ("azure", "0.0.0.0", 8080)
    assert served(settings, "text-davinci-003") == [(EAST, "xxx", "2024-02-01", Secret("11111111111"))]
    assert served(settings, "gpt-3.5-turbo") == [
        ("https://west.openai.azure.com", "yyy", "2023-05-15", Secret("22222222222"))
    ]


def test_stulzq_config_file_without_keys(start: Start) -> None:
    """Where the file has no keys, each caller's goes on."""
    settings = start("", {}, re.sub(".*api_key.*\n", "", STULZQ_CONFIG))

    assert (settings.host, settings.lends_key) == ("0.0.0.0", False)
    assert served(settings, "gpt-3.5-turbo")[0][3] is None


def test_stulzq_flags(start: Start, tmp_path: Path) -> None:
    """`-c`, `-l` and `-s` mean what they meant."""
    (tmp_path / "other.yaml").write_text(STULZQ_CONFIG)
    settings = start("", {}, config_file="other.yaml", listen_at="127.0.0.1:9000", cors=True)

    assert (settings.host, settings.port, settings.cors_origins) == ("127.0.0.1", 9000, ("*",))
    assert upstreams(settings)[MAIN].names == ["text-davinci-003", "gpt-3.5-turbo"]
    assert_asks_for_a_decision(lambda: start("", {}, config_file="other.yaml", listen_at=":8080"))


DIEMUS = {
    "AZURE_OPENAI_PROXY_ADDRESS": "0.0.0.0:8081",
    "AZURE_OPENAI_PROXY_MODE": "azure",
    "AZURE_OPENAI_ENDPOINT": "https://east.openai.azure.com",
    "AZURE_OPENAI_APIVERSION": "2024-06-01",
    "AZURE_OPENAI_MODEL_MAPPER": "gpt-4=my-gpt-4",
}
DIEMUS_MAP = (("gpt-3.5-turbo", "gpt-35-turbo"), ("gpt-3.5-turbo-0301", "gpt-35-turbo-0301"))


def test_diemus_environment(start: Start) -> None:
    """All its settings at once: address, version, mapped models, and unmapped ones as deployments."""
    settings = start("", DIEMUS)

    assert (settings.host, settings.port, settings.cors_origins) == ("0.0.0.0", 8081, ("*",))
    assert served(settings, "gpt-4") == [(EAST, "my-gpt-4", "2024-06-01", None)]
    assert served(settings, "my-own") == [(EAST, "my-own", "2024-06-01", None)]


@pytest.mark.parametrize(
    ("environ", "mapper"),
    [
        pytest.param({}, DIEMUS_MAP, id="endpoint-only"),
        pytest.param({"AZURE_OPENAI_APIVERSION": "2024-06-01"}, DIEMUS_MAP, id="version"),
        pytest.param({"AZURE_OPENAI_MODEL_MAPPER": "a=b"}, (("a", "b"),), id="mapper"),
        pytest.param({"MODEL_MAPPER": "a=b"}, (("a", "b"),), id="our-mapper"),
    ],
)
def test_diemus_defaults(start: Start, environ: dict[str, str], mapper: tuple[tuple[str, str], ...]) -> None:
    """As its `docker run` does it: 0.0.0.0:8080, and two models that are mapped unless others are."""
    settings = start("", {"AZURE_OPENAI_ENDPOINT": EAST, **environ})

    assert (settings.host, settings.port) == ("0.0.0.0", 8080)
    assert settings.model_mapper == mapper


def test_diemus_token(start: Start) -> None:
    """Its token is the server's key, which is not offered to the network unasked."""
    keyed = {**DIEMUS, "AZURE_OPENAI_TOKEN": "k"}
    assert_asks_for_a_decision(lambda: start("", keyed), "AZURE_OPENAI_PROXY_ADDRESS")

    settings = start("", {**keyed, "AZURE_OPENAI_PROXY_ADDRESS": "127.0.0.1:8081"})
    assert served(settings, "gpt-4")[0][3] == Secret("k")


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="alone"),
        pytest.param({"AZURE_OPENAI_ENDPOINT": EAST}, id="endpoint"),
        pytest.param({"AZURE_OPENAI_TOKEN": "k"}, id="token"),
    ],
)
def test_diemus_mode_openai(start: Start, environ: dict[str, str]) -> None:
    """In the mode `openai` calls go to OpenAI with the caller's key, and no model is renamed."""
    settings = start("", {"AZURE_OPENAI_PROXY_MODE": "openai", **environ})

    assert (settings.host, settings.port, settings.upstream) == ("0.0.0.0", 8080, "openai")
    assert served(settings, "gpt-3.5-turbo") == [("https://api.openai.com", "gpt-3.5-turbo", "v1", None)]
    assert upstreams(settings)[MAIN].relays_list


FORWARD = """\
# `LOG_CHAT`: whether conversations are logged
LOG_CHAT=true

OPENAI_BASE_URL='https://api.openai.com, http://localhost:8080'
OPENAI_ROUTE_PREFIX='/openai, /localai'
OPENAI_API_KEY='sk-xxx1, sk-xxx2, sk-xxx3'
FORWARD_KEY=fk-xxx1

EXTRA_BASE_URL='http://localhost:8882, http://localhost:8881'
EXTRA_ROUTE_PREFIX='/tts, /translate'

REQ_RATE_LIMIT='{
"/healthz": "50/3minutes",
"/openai/v1/chat/completions": "1/10seconds"
}'
GLOBAL_RATE_LIMIT=2/5seconds
RATE_LIMIT_STRATEGY=fixed-window
TOKEN_RATE_LIMIT={"/v1/chat/completions":"20/second"}

PROXY=http://localhost:7890
IP_WHITELIST=127.0.0.1, 10.0.0.1
IP_BLACKLIST=

CACHE_CHAT_COMPLETION=false
CACHE_BACKEND=MEMORY
TIMEOUT=300
CHAT_COMPLETION_ROUTE=/v1/chat/completions
ITER_CHUNK_TYPE=one-by-one
TZ=Asia/Shanghai
"""


def test_openai_forward(start: Start) -> None:
    """A full file: servers under their prefixes, keys in turn, callers' keys, addresses, the proxy."""
    settings = start(FORWARD)
    keys = tuple(Secret(f"sk-xxx{number}") for number in (1, 2, 3))

    assert (settings.host, settings.port, settings.upstream) == ("0.0.0.0", 8000, "openai")
    assert settings.openai == (
        Server("https://api.openai.com", "/openai", keys),
        Server("http://localhost:8080", "/localai", keys),
    )
    assert settings.extra == (Server("http://localhost:8882", "/tts"), Server("http://localhost:8881", "/translate"))
    assert settings.client_keys == (unnamed_key("fk-xxx1"),)
    assert [str(network) for network in settings.allow_ips] == ["127.0.0.1/32", "10.0.0.1/32"]
    assert settings.proxies == Proxies(Secret("http://localhost:7890"), Secret("http://localhost:7890"))
    assert settings.req_rate_limit == {"/healthz": (Rate(50, 180),), "/openai/v1/chat/completions": (Rate(1, 10),)}
    assert settings.global_rate_limit == (Rate(2, 5),)
    assert settings.token_rate_limit == {"/v1/chat/completions": Rate(20, 1)}
    assert settings.warnings == (
        "REQ_RATE_LIMIT: no calls are served at /healthz; it takes routes such as /v1/chat/completions or /v1/gpt/chat",
    )
    assert (settings.log_chat, settings.log_dir.name) == ("true", "log")


def test_openai_forward_takes_its_keys_in_turn(start: Start) -> None:
    """Every key of the list answers for every model, at the prefix and at `/v1`."""
    settings = start(FORWARD)
    expected = [("https://api.openai.com", "m", "v1", Secret(f"sk-xxx{number}")) for number in (1, 2, 3)]

    assert served(settings, "m", "/openai") == served(settings, "m") == expected
    assert served(settings, "m", "/tts") == [("http://localhost:8882", "m", "v1", None)]


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param("'sk-1, sk-2'", id="quotes"),
        pytest.param("sk-1,sk-2", id="bare"),
        pytest.param("sk-1 , sk-2 ,", id="spaces"),
        pytest.param("\"'sk-1', 'sk-2'\"", id="quotes-in-quotes"),
    ],
)
def test_openai_forward_keys_however_they_are_written(start: Start, keys: str) -> None:
    """Quotes and spaces around keys are not part of them; docker hands quotes on."""
    expected = (Secret("sk-1"), Secret("sk-2"))

    assert start(f"OPENAI_API_KEY={keys}\nHOST=127.0.0.1\n").openai[0].keys == expected
    assert start("", {"OPENAI_API_KEY": keys, "HOST": "127.0.0.1"}).openai[0].keys == expected


@pytest.mark.parametrize(
    ("file", "backend", "routes", "warnings"),
    [
        pytest.param("CACHE_CHAT_COMPLETION=true\nCACHE_BACKEND=MEMORY", "memory", 2, (), id="memory"),
        pytest.param("CACHE_EMBEDDING=true\nCACHE_BACKEND=LMDB", "lmdb", 1, (), id="lmdb"),
        pytest.param(
            "CACHE_CHAT_COMPLETION=True\nCACHE_EMBEDDING=True\nCACHE_BACKEND=ROCKSDB",
            "lmdb",
            3,
            ("CACHE_BACKEND is rocksdb, which is not here: answers are kept with lmdb",),
            id="rocksdb",
        ),
        pytest.param(
            "CACHE_OPENAI=true\nCACHE_BACKEND=LevelDB\nCACHE_ROOT_PATH_OR_URL=./FLAXKV_DB",
            "lmdb",
            2,
            ("CACHE_BACKEND is leveldb, which is not here: answers are kept with lmdb",),
            id="later-version",
        ),
        pytest.param("CACHE_OPENAI=False\nCACHE_GENERAL=False\nCACHE_BACKEND=memory", "memory", 0, (), id="off"),
    ],
)
def test_openai_forward_cache(start: Start, file: str, backend: str, routes: int, warnings: tuple[str, ...]) -> None:
    """What is kept there is kept here, where it says or next to that."""
    settings = start(f"FORWARD_KEY=a\n{file}\n")
    assert (settings.cache_backend, len(settings.cached_routes)) == (backend, routes)
    assert settings.warnings == warnings


def test_openai_forward_without_callers_keys(start: Start) -> None:
    """Its own keys are not offered to the network unasked."""
    open_to_all = FORWARD.replace("FORWARD_KEY=fk-xxx1", "")
    assert_asks_for_a_decision(lambda: start(open_to_all))

    assert start(open_to_all, {"ALLOW_ANONYMOUS": "true"}).host == "0.0.0.0"
    assert start(open_to_all, {"CLIENT_KEYS": "c"}).host == "0.0.0.0"


@pytest.mark.parametrize(
    ("file", "root", "prefix"),
    [
        pytest.param("LOG_CHAT=false\nPRINT_CHAT=false", "https://api.openai.com", "", id="as-it-comes"),
        pytest.param("OPENAI_ROUTE_PREFIX=/", "https://api.openai.com", "", id="root"),
        pytest.param("ROUTE_PREFIX=openai/\nPRINT_CHAT=false", "https://api.openai.com", "/openai", id="early-version"),
        pytest.param(
            "OPENAI_BASE_URL=http://localhost:8081/\nOPENAI_ROUTE_PREFIX=\nFORWARD_KEY=",
            "http://localhost:8081",
            "",
            id="other-server",
        ),
    ],
)
def test_openai_forward_relays_to_openai(start: Start, file: str, root: str, prefix: str) -> None:
    """Its files may say next to nothing: calls go to OpenAI, or to the one server that is named."""
    settings = start(file)
    assert settings.upstream == "openai"
    assert settings.openai == (Server(root, prefix),)


@pytest.mark.parametrize(
    ("file", "seconds"),
    [
        pytest.param("", 1.0, id="as-there"),
        pytest.param("RETRY_WAIT=0\n", 0.0, id="never"),
        pytest.param("RETRY_WAIT=2.5\n", 2.5, id="own-words"),
    ],
)
def test_openai_forward_asks_again(start: Start, file: str, seconds: float) -> None:
    """It asks again by itself where a connection fails; its files count on that, unless they say otherwise."""
    assert start(f"{file}{FORWARD}").retry_wait == seconds
    assert start(f"{file}{FORWARD}", {"ENDPOINT": EAST, "HTTP_PORT": "9000"}).retry_wait == (seconds if file else 0)


@pytest.mark.parametrize("setting", ["CACHE_CHAT_COMPLETION=true", "CACHE_BACKEND=LMDB"])
def test_a_cache_gives_no_file_away(start: Start, setting: str) -> None:
    """Its settings are settings of ours as well: who keeps answers does not open a server to the network."""
    settings = start(f"OPENAI_BASE_URL=http://127.0.0.1:8001\n{setting}\n")
    assert (settings.host, settings.port, settings.upstream) == ("127.0.0.1", 8080, "openai")


@pytest.mark.parametrize("name", ["REQ_RATE_LIMIT", "GLOBAL_RATE_LIMIT", "TOKEN_RATE_LIMIT", "RATE_LIMIT_STRATEGY"])
def test_limits_give_no_file_away(start: Start, name: str) -> None:
    """They are settings of ours as well: who limits a server in front of vLLM does not open it to the network."""
    value = "moving-window" if name == "RATE_LIMIT_STRATEGY" else '{"/v1/chat/completions": "1/second"}'
    value = "1/second" if name == "GLOBAL_RATE_LIMIT" else value
    settings = start(f"OPENAI_BASE_URL=http://127.0.0.1:8001\n{name}='{value}'\n")
    assert (settings.host, settings.port, settings.upstream) == ("127.0.0.1", 8080, "openai")


@pytest.mark.parametrize("value", ["true", "false", "meta"])
def test_conversation_log_gives_no_file_away(start: Start, value: str) -> None:
    """LOG_CHAT is a setting of ours: whoever sets it alone does not open the server to the network."""
    settings = start(f"LOG_CHAT={value}\n")
    assert (settings.host, settings.port, settings.upstream, settings.log_chat) == (
        "127.0.0.1",
        8080,
        "emulator",
        value,
    )
    assert settings.logs_conversations is (value != "false")


@pytest.mark.parametrize(
    "nothing", ["REQ_RATE_LIMIT={}", "GLOBAL_RATE_LIMIT=inf", "TOKEN_RATE_LIMIT={}", "REQ_RATE_LIMIT="]
)
def test_openai_forward_without_limits(start: Start, nothing: str) -> None:
    """What says there that nothing is limited says it here."""
    settings = start(f"FORWARD_KEY=a\n{nothing}\n")
    assert (settings.limits_callers, settings.token_rate_limit, settings.warnings) == (False, {}, ())


def test_openai_forward_limits_by_level(start: Start) -> None:
    """What later versions have is refused as what it is, not read as something else."""
    levels = '{"/v1/chat/completions": [{"level": 0, "limit": "100/2minutes"}]}'
    with pytest.raises(SettingsError, match='the limit of "/v1/chat/completions" is no text such as "100/minute"'):
        start(f"FORWARD_KEY=a\nREQ_RATE_LIMIT='{levels}'\n")


def test_openai_forward_flags(start: Start) -> None:
    """`--port` means what it meant."""
    assert start(FORWARD, {}, port=9999).port == 9999


@pytest.mark.parametrize("name", ["LISTEN", "AZURE_OPENAI_PROXY_ADDRESS"])
@pytest.mark.parametrize("flags", [{"port": 9001}, {"listen_at": "127.0.0.1:9001"}], ids=["port", "listen"])
def test_flags_beat_the_file(start: Start, name: str, flags: dict[str, object]) -> None:
    """What the command line says of the address wins over what the file says."""
    assert start(f"{name}=127.0.0.1:9000\n", {}, **flags).port == 9001
    assert start("", {name: "127.0.0.1:9000", "HTTP_PORT": "9002"}, **flags).port == 9001


def test_listen_is_the_address_for_https_as_well(start: Start, tmp_path: Path) -> None:
    """Whatever is served, it is served at the address that LISTEN says."""
    (tmp_path / "cert.pem").write_text("x")
    tls = {"ENABLE_SSL": "true", "SSL_CERT": str(tmp_path / "cert.pem"), "SSL_KEY": str(tmp_path / "cert.pem")}
    assert start("", {"LISTEN": "127.0.0.1:9443", **tls}).port == 9443


def test_variables_of_openais_client_ask_for_no_network(start: Start) -> None:
    """Who has exported what the Azure flavour of OpenAI's client reads gets a server for this machine."""
    settings = start("", {"AZURE_OPENAI_ENDPOINT": "https://east.openai.azure.com", "AZURE_OPENAI_API_KEY": "k"})
    assert (settings.host, settings.keys) == ("127.0.0.1", (Secret("k"),))


def test_config_file_beats_what_a_name_implies(start: Start) -> None:
    """A file of Azure deployments is served, though another name is one of a gateway to OpenAI."""
    assert start("IP_WHITELIST=10.0.0.1\nALLOW_ANONYMOUS=true", {}, STULZQ_CONFIG).upstream == "azure"


def test_names_of_its_beside_an_endpoint_are_ours(start: Start) -> None:
    """A file with an ENDPOINT is this server's own: nothing is taken for granted that it does not say."""
    settings = start(
        "ENDPOINT=https://east.openai.azure.com\nKEY=k\nEXTRA_BASE_URL=http://a.example.com\nEXTRA_ROUTE_PREFIX=/a\n"
    )
    assert (settings.host, settings.port, settings.upstream) == ("127.0.0.1", 8080, "azure")


NOTHING_ASKED = [(name, value) for name, (_, nothing) in dropin.NOT_YET.items() for value in nothing]


@pytest.mark.parametrize(("name", "value"), NOTHING_ASKED, ids=[f"{name}={value}" for name, value in NOTHING_ASKED])
def test_values_that_ask_for_nothing_are_not_warned_of(start: Start, name: str, value: str) -> None:
    """What is switched off is not missed, however it is written."""
    spaced = "{ }" if value == "{}" else f" {value.upper()} "
    assert start("HOST=127.0.0.1", {name: spaced}).warnings == ()


@pytest.mark.parametrize("name", dropin.NOT_YET)
@pytest.mark.parametrize("source", ["environment", "file"])
def test_what_is_not_built_yet_is_warned_of(start: Start, source: str, name: str) -> None:
    """A setting that asks for what is missing is named at the start, with what will not happen."""
    value = '{"/v1/chat/completions": "60/minute"}'
    file, environ = ("", {name: value}) if source == "environment" else (f"{name}='{value}'\n", {})
    effect, _ = dropin.NOT_YET[name]

    assert start(file, {"HOST": "127.0.0.1", **environ}).warnings == (
        f"{name} is set, but this server cannot do that yet: {effect}",
    )


def test_names_that_mean_nothing_here_are_left_alone(start: Start) -> None:
    """What only steers other settings there, or a template's leftovers, is neither an error nor a typo of ours."""
    names = [name for name, here in ROWS if here == "nothing"]
    assert len(names) > 10
    assert start("".join(f"{name}=1\n" for name in names)) == start("")


def test_signs_are_names_that_are_known() -> None:
    """What gives another gateway's file away is a name that is understood, or warned of."""
    known = {name for row in TABLE for name in (row.name, *row.aliases)} | set(dropin.NOT_YET)
    assert {name for gateway in dropin.GATEWAYS for name in gateway.signs} <= known


def test_defaults_of_other_gateways_are_for_settings_of_ours() -> None:
    """A default that another gateway has is one of a setting here."""
    names = {row.name for row in TABLE}
    assert {name for gateway in dropin.GATEWAYS for name in gateway.defaults} <= names


def test_page_has_every_alias() -> None:
    """docs/migrating.md lists each name that another gateway has for a setting, and no other."""
    named = {(there, here.strip("`")) for there, here in ROWS if re.fullmatch(r"`\w+`", here)}
    assert named == {(alias, row.name) for row in TABLE for alias in row.aliases}


def test_page_has_all_that_is_not_built_yet() -> None:
    """docs/migrating.md says *not yet* of what is warned of, *the same* of settings, and *nothing* of the rest."""
    said: dict[str, set[str]] = {}
    for there, here in ROWS:
        said.setdefault(here, set()).add(there)
    names = {row.name for row in TABLE}

    assert said["not yet"] == set(dropin.NOT_YET)
    assert said["the same"] <= names
    assert not said["nothing"] & (names | set(dropin.NOT_YET) | {alias for row in TABLE for alias in row.aliases})
    assert set(re.findall(r"^\| `-", PAGE, re.MULTILINE))


@pytest.mark.parametrize(
    ("title", "names"),
    [
        pytest.param("azure-openai-chatgpt-api (jasonfoknxu)", re.findall(r"^(\w+)=", CHATGPT_API, re.M), id="chatgpt"),
        pytest.param("azure-openai-proxy (stulzq)", [*STULZQ, "AZURE_OPENAI_HTTP_PROXY"], id="stulzq"),
        pytest.param("azure-openai-proxy (diemus)", [*DIEMUS, "AZURE_OPENAI_TOKEN"], id="diemus"),
        pytest.param("openai-forward (KenyonY)", re.findall(r"^(\w+)=", FORWARD, re.M), id="openai-forward"),
    ],
)
def test_each_section_has_the_names_of_its_file(title: str, names: list[str]) -> None:
    """Whoever comes with a file finds every name in it in the gateway's own section."""
    section = PAGE[PAGE.index(f"## {title}") :].partition("\n## ")[0]
    assert [name for name in names if f"`{name}`" not in section] == []
