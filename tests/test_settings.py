import dataclasses
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from chat_api.azure_url import Endpoint
from chat_api.settings import Settings, SettingsError, load
from chat_api.settings_table import TABLE
from chat_api.types import Secret

AZURE = "https://r.openai.azure.com"
DEPLOYMENT_URL = f"{AZURE}/openai/deployments/d/chat/completions?api-version=2024-06-01"
NO_DEPLOYMENT = "DEPLOYMENT_NAME is not set; every request has to name its model"
UNENCRYPTED = "ENDPOINT is http://, so the key travels unencrypted; Azure speaks https://"
ANONYMOUS = "ALLOW_ANONYMOUS is on: whoever reaches this port uses the server's Azure key"

Read = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads settings from keyword arguments as the environment, and from `file` as the `.env` file's text."""

    def read(file: str | bytes | None = None, /, **environ: str) -> Settings:
        env_file = tmp_path / ".env"
        if file is not None:
            env_file.write_bytes(file if isinstance(file, bytes) else file.encode())
        return load(environ, env_file)

    return read


@pytest.fixture
def problems(read: Read) -> Callable[..., tuple[str, ...]]:
    """The problems that settings are refused for."""

    def problems(file: str | None = None, /, **environ: str) -> tuple[str, ...]:
        with pytest.raises(SettingsError) as caught:
            read(file, **environ)
        return caught.value.problems

    return problems


Problems = Callable[..., tuple[str, ...]]


def test_defaults(read: Read) -> None:
    """Without any setting the emulator answers on the loopback address, at port 8080."""
    assert read() == Settings(
        host="127.0.0.1",
        http_port=8080,
        enable_ssl=False,
        https_port=8443,
        ssl_cert=None,
        ssl_key=None,
        allow_anonymous=False,
        endpoint=None,
        deployment_name=None,
        api_version="2024-10-21",
        key=None,
        defaults={},
        connect_timeout=5,
        first_byte_timeout=600,
        idle_timeout=120,
        ping_interval=15,
        drain_timeout=30,
        max_body_bytes=33554432,
        log_level="info",
        warnings=(),
    )


def test_every_setting_is_read(read: Read, tmp_path: Path) -> None:
    """Every setting reaches its field, in its type."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.touch()
    key.touch()
    settings = read(
        HOST="::1",
        HTTP_PORT="0",
        ENABLE_SSL="yes",
        HTTPS_PORT="65535",
        SSL_CERT=str(certificate),
        SSL_KEY=str(key),
        ALLOW_ANONYMOUS="on",
        ENDPOINT=f"{AZURE}/",
        DEPLOYMENT_NAME="my-gpt",
        API_VERSION="2025-04-01-preview",
        KEY="0123456789abcdef",
        temperature="0.5",
        top_p="1",
        n="128",
        stream="true",
        stop="END",
        max_tokens="1",
        presence_penalty="-2",
        frequency_penalty="2",
        user="somebody",
        CONNECT_TIMEOUT="0.5",
        FIRST_BYTE_TIMEOUT="60",
        IDLE_TIMEOUT="30",
        PING_INTERVAL="0",
        DRAIN_TIMEOUT="0",
        MAX_BODY_BYTES="1",
        LOG_LEVEL="DEBUG",
    )
    assert settings == Settings(
        host="::1",
        http_port=0,
        enable_ssl=True,
        https_port=65535,
        ssl_cert=certificate,
        ssl_key=key,
        allow_anonymous=True,
        endpoint=Endpoint(AZURE),
        deployment_name="my-gpt",
        api_version="2025-04-01-preview",
        key=Secret("0123456789abcdef"),
        defaults={
            "temperature": 0.5,
            "top_p": 1.0,
            "n": 128,
            "stream": True,
            "stop": "END",
            "max_tokens": 1,
            "presence_penalty": -2.0,
            "frequency_penalty": 2.0,
            "user": "somebody",
        },
        connect_timeout=0.5,
        first_byte_timeout=60.0,
        idle_timeout=30.0,
        ping_interval=0.0,
        drain_timeout=0,
        max_body_bytes=1,
        log_level="debug",
        warnings=(),
    )


@pytest.mark.parametrize("blank", [pytest.param("", id="empty"), pytest.param(" \t", id="spaces")])
def test_blank_is_unset(read: Read, blank: str) -> None:
    """A blank value is as good as none: every setting keeps its default."""
    names = (
        *("HOST", "HTTP_PORT", "ENABLE_SSL", "HTTPS_PORT", "SSL_CERT", "SSL_KEY", "ALLOW_ANONYMOUS", "ENDPOINT"),
        *("DEPLOYMENT_NAME", "API_VERSION", "KEY", "temperature", "top_p", "n", "stream", "stop", "max_tokens"),
        *("presence_penalty", "frequency_penalty", "user", "CONNECT_TIMEOUT", "FIRST_BYTE_TIMEOUT", "IDLE_TIMEOUT"),
        *("PING_INTERVAL", "DRAIN_TIMEOUT", "MAX_BODY_BYTES", "LOG_LEVEL"),
    )
    from_environ = read(**dict.fromkeys(names, blank))
    from_file = read("".join(f"{name}={blank}\n" for name in names))
    assert from_environ == from_file
    assert (from_environ.host, from_environ.http_port, from_environ.defaults) == ("127.0.0.1", 8080, {})
    assert (from_environ.endpoint, from_environ.key, from_environ.log_level) == (None, None, "info")


@pytest.mark.parametrize(
    ("environ", "port"),
    [
        pytest.param({}, 9001, id="file"),
        pytest.param({"HTTP_PORT": "9002"}, 9002, id="environment-beats-file"),
        pytest.param({"HTTP_PORT": ""}, 9001, id="empty-falls-through"),
        pytest.param({"HTTP_PORT": "  "}, 9001, id="blank-falls-through"),
    ],
)
def test_environment_and_file(read: Read, environ: dict[str, str], port: int) -> None:
    """The environment beats the file, unless it is blank."""
    assert read("HTTP_PORT=9001\n", **environ).http_port == port


@pytest.mark.parametrize(
    ("text", "key"),
    [
        pytest.param("KEY=abc\n", "abc", id="plain"),
        pytest.param("\ufeffKEY=abc\n", "abc", id="byte-order-mark"),
        pytest.param("KEY=abc\r\nstop=END\r\n", "abc", id="crlf"),
        pytest.param("export KEY=abc", "abc", id="export"),
        pytest.param("KEY = 'a#b'  # a remark\n", "a#b", id="quotes-and-remark"),
        pytest.param("# KEY=abc\n", None, id="remark"),
        pytest.param("KEY\n", None, id="no-equals-sign"),
    ],
)
def test_file_forms(read: Read, text: str, key: str | None) -> None:
    """The `.env` file may have the forms that editors and shells leave in it."""
    assert read(text).key == (None if key is None else Secret(key))


def test_file_leaves_the_process_alone(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping the process's own environment is read, and the file's values stay out of it."""
    monkeypatch.setenv("DEPLOYMENT_NAME", "from-process")
    assert load(env_file=Path("does-not-exist")).deployment_name == "from-process"
    assert read("DEPLOYMENT_NAME=from-file").deployment_name == "from-file"
    assert load(env_file=Path("does-not-exist")).deployment_name == "from-process"


PORT = "a port number from 0 to 65535 (0 takes a free one)"
PEM = "the path of a readable PEM file"
SECONDS = "a number of seconds above 0"
BAD_VALUES = [
    pytest.param("HTTP_PORT", "65536", PORT, id="HTTP_PORT-large"),
    pytest.param("HTTP_PORT", "-1", PORT, id="HTTP_PORT-negative"),
    pytest.param("HTTP_PORT", "80.0", PORT, id="HTTP_PORT-fraction"),
    pytest.param("ENABLE_SSL", "perhaps", "true or false", id="ENABLE_SSL"),
    pytest.param("HTTPS_PORT", "https", PORT, id="HTTPS_PORT"),
    pytest.param("SSL_CERT", "/does/not/exist.pem", PEM, id="SSL_CERT-missing"),
    pytest.param("SSL_KEY", "/", PEM, id="SSL_KEY-directory"),
    pytest.param("ALLOW_ANONYMOUS", "2", "true or false", id="ALLOW_ANONYMOUS"),
    pytest.param(
        "ENDPOINT",
        "my-resource",
        "an http(s) URL such as https://my-resource.openai.azure.com, without user name or password",
        id="ENDPOINT",
    ),
    pytest.param("API_VERSION", "latest", "a date such as 2024-10-21 or 2025-04-01-preview, or v1", id="API_VERSION"),
    pytest.param("temperature", "2.1", "a number from 0 to 2", id="temperature-large"),
    pytest.param("temperature", "nan", "a number from 0 to 2", id="temperature-nan"),
    pytest.param("temperature", "hot", "a number from 0 to 2", id="temperature-word"),
    pytest.param("top_p", "-0.1", "a number from 0 to 1", id="top_p"),
    pytest.param("n", "0", "a whole number from 1 to 128", id="n-small"),
    pytest.param("n", "129", "a whole number from 1 to 128", id="n-large"),
    pytest.param("stream", "maybe", "true or false", id="stream"),
    pytest.param("stop", "[1]", "text, or a JSON array of up to 4 texts", id="stop-number"),
    pytest.param("stop", "[]", "text, or a JSON array of up to 4 texts", id="stop-none"),
    pytest.param("stop", '["a","b","c","d","e"]', "text, or a JSON array of up to 4 texts", id="stop-five"),
    pytest.param("stop", '["a"', "text, or a JSON array of up to 4 texts", id="stop-not-json"),
    pytest.param("max_tokens", "0", "a whole number from 1", id="max_tokens"),
    pytest.param("presence_penalty", "2.5", "a number from -2 to 2", id="presence_penalty"),
    pytest.param("frequency_penalty", "-3", "a number from -2 to 2", id="frequency_penalty"),
    pytest.param("CONNECT_TIMEOUT", "0", SECONDS, id="CONNECT_TIMEOUT-zero"),
    pytest.param("CONNECT_TIMEOUT", "inf", SECONDS, id="CONNECT_TIMEOUT-infinite"),
    pytest.param("FIRST_BYTE_TIMEOUT", "-1", SECONDS, id="FIRST_BYTE_TIMEOUT"),
    pytest.param("IDLE_TIMEOUT", "10s", SECONDS, id="IDLE_TIMEOUT"),
    pytest.param("PING_INTERVAL", "-1", "a number of seconds, 0 for never", id="PING_INTERVAL"),
    pytest.param("DRAIN_TIMEOUT", "1.5", "a whole number of seconds from 0", id="DRAIN_TIMEOUT"),
    pytest.param("MAX_BODY_BYTES", "32MB", "a whole number of bytes from 1", id="MAX_BODY_BYTES"),
    pytest.param("LOG_LEVEL", "loud", "debug or info or warning or error or critical", id="LOG_LEVEL"),
]


@pytest.mark.parametrize(("name", "value", "accepts"), BAD_VALUES)
@pytest.mark.parametrize("source", ["environment", "file"])
def test_bad_value(problems: Problems, source: str, name: str, value: str, accepts: str) -> None:
    """A value that cannot be used is reported with the setting's name, what it is and what it takes."""
    found = problems(**{name: value}) if source == "environment" else problems(f"{name}='{value}'\n")
    assert len(found) == 1
    assert found[0].startswith(f'{name} is "{value}"')
    assert found[0].endswith(f"; it takes {accepts}")


def test_every_checked_setting_has_a_bad_value() -> None:
    """The table of bad values has every setting but those that take any text, and KEY, which has its own test."""
    tried = {str(param.values[0]) for param in BAD_VALUES}
    assert {row.name for row in TABLE} - tried == {"HOST", "DEPLOYMENT_NAME", "KEY", "user"}


def test_all_problems_at_once(read: Read, tmp_path: Path) -> None:
    """One message lists every problem, and says where to mend them."""
    with pytest.raises(SettingsError) as caught:
        read("HTTPS_PORT=x\n", HTTP_PORT="70000", ENABLE_SSL="true", SSL_KEY="/nowhere.pem", temperature="3")
    assert str(caught.value) == (
        "5 settings need attention:\n"
        '  HTTP_PORT is "70000"; it takes a port number from 0 to 65535 (0 takes a free one)\n'
        '  HTTPS_PORT is "x"; it takes a port number from 0 to 65535 (0 takes a free one)\n'
        '  SSL_KEY is "/nowhere.pem" (no readable file at /nowhere.pem); it takes the path of a readable PEM file\n'
        '  temperature is "3"; it takes a number from 0 to 2\n'
        "  SSL_CERT is not set; with ENABLE_SSL=true it takes the path of a readable PEM file\n"
        f"Set them in the environment or in {tmp_path / '.env'}; sample.env explains every setting."
    )


def test_one_problem_is_singular(read: Read) -> None:
    """A lone problem is announced as one."""
    with pytest.raises(SettingsError, match=r"^One setting needs attention:\n  n is "):
        read(n="0")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        pytest.param("SECRET with space", "a space at position 7", id="space"),
        pytest.param("SECRET\tkey", "a space at position 7", id="tab"),
        pytest.param("SECRET\nkey", "a space at position 7", id="line-feed"),
        pytest.param("SECRET-ключ", "a character that is not visible ASCII at position 8", id="not-ascii"),
        pytest.param("SECRET\x7f", "a character that is not visible ASCII at position 7", id="delete"),
        pytest.param("https://SECRET.com", "it is a URL; are ENDPOINT and KEY swapped?", id="swapped"),
    ],
)
def test_bad_key_is_not_repeated(read: Read, key: str, reason: str) -> None:
    """A KEY that no header can hold is refused without a word of it."""
    with pytest.raises(SettingsError) as caught:
        read(KEY=key)
    assert caught.value.problems == (
        f"KEY cannot be used ({reason}); it takes a key of visible ASCII characters without spaces",
    )
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param("https://user:SECRET@r.openai.azure.com", id="password"),
        pytest.param("https://SECRET@r.openai.azure.com", id="user"),
        pytest.param("https://user:SECR@SECRET@r.openai.azure.com", id="password-with-at-sign"),
        pytest.param("https://user:SECRET@r.openai.azure.com:99999", id="password-and-bad-port"),
        pytest.param("wss://user:SECRET@r.openai.azure.com", id="password-in-wss"),
        pytest.param("https://my-resource?api-key=SECRET", id="query"),
        pytest.param("https://r.openai.azure.com:x?api-key=SECRET", id="query-and-bad-port"),
        pytest.param("https://r openai.azure.com/?api-key=SECRET&x=1", id="query-and-space"),
        pytest.param("user:SECRET@r.openai.azure.com", id="password-without-scheme"),
        pytest.param("https://user:x/SECRET@r.openai.azure.com", id="password-with-slash"),
        pytest.param("https://user:SECRET/x@r.openai.azure.com", id="password-before-slash"),
        pytest.param("https://user:SECRET#x@r.openai.azure.com", id="password-with-hash"),
        pytest.param("https://user:SECRET?x@r.openai.azure.com", id="password-with-question-mark"),
        pytest.param(f"{AZURE}?api-version=2024-10-21;api-key=SECRET", id="query-as-version"),
        pytest.param("https://my-resource?a=1\nSECRET", id="query-of-two-lines"),
    ],
)
def test_bad_endpoint_hides_password_and_query(problems: Problems, endpoint: str) -> None:
    """What is wrong with ENDPOINT is said without the password and the query that it holds."""
    found = problems(ENDPOINT=endpoint)
    assert found[0].startswith("ENDPOINT is ")
    assert "SECR" not in found[0]


@pytest.mark.parametrize(
    ("environ", "is_fine"),
    [
        pytest.param({"HOST": "0.0.0.0"}, False, id="emulator"),
        pytest.param({"HOST": "0.0.0.0", "KEY": "k"}, False, id="emulator-and-key"),
        pytest.param({"HOST": "0.0.0.0", "KEY": "k", "ENDPOINT": AZURE}, False, id="key"),
        pytest.param({"HOST": "::", "KEY": "k", "ENDPOINT": AZURE}, False, id="ipv6"),
        pytest.param({"HOST": "192.0.2.1", "KEY": "k", "ENDPOINT": AZURE}, False, id="address"),
        pytest.param({"HOST": "gateway.example.com", "KEY": "k", "ENDPOINT": AZURE}, False, id="name"),
        pytest.param({"HOST": "127.0.0.1.example.com", "KEY": "k", "ENDPOINT": AZURE}, False, id="looks-like-loopback"),
        pytest.param({"HOST": "0.0.0.0", "ENDPOINT": AZURE}, True, id="callers-bring-keys"),
        pytest.param({"HOST": "0.0.0.0", "ALLOW_ANONYMOUS": "true"}, True, id="emulator-for-all"),
        pytest.param(
            {"HOST": "0.0.0.0", "ALLOW_ANONYMOUS": "true", "KEY": "k", "ENDPOINT": AZURE}, True, id="key-for-all"
        ),
        pytest.param({"HOST": "127.0.0.1", "KEY": "k", "ENDPOINT": AZURE}, True, id="loopback"),
        pytest.param({"HOST": "127.9.9.9", "KEY": "k", "ENDPOINT": AZURE}, True, id="loopback-network"),
        pytest.param({"HOST": "::1", "KEY": "k", "ENDPOINT": AZURE}, True, id="ipv6-loopback"),
        pytest.param({"HOST": "[::1]", "KEY": "k", "ENDPOINT": AZURE}, True, id="ipv6-loopback-in-brackets"),
        pytest.param({"HOST": "LocalHost", "KEY": "k", "ENDPOINT": AZURE}, True, id="localhost"),
    ],
)
def test_who_may_use_the_key(read: Read, environ: dict[str, str], is_fine: bool) -> None:
    """A server that lends its key, or the emulator, listens beyond loopback only if ALLOW_ANONYMOUS insists."""
    if is_fine:
        assert read(**environ).host == environ["HOST"]
        return
    with pytest.raises(SettingsError) as caught:
        read(**environ)
    assert caught.value.problems == (
        f'HOST is "{environ["HOST"]}", so the network could use the server\'s Azure key without a key of its own; '
        "it takes 127.0.0.1, or set ALLOW_ANONYMOUS=true to insist",
    )


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        pytest.param({"ALLOW_ANONYMOUS": "maybe"}, "ALLOW_ANONYMOUS", id="allow-anonymous"),
        pytest.param(
            {"ENDPOINT": "my-resource"},
            "ENDPOINT",
            id="endpoint",
        ),
    ],
)
def test_no_problem_that_follows_from_another(problems: Problems, environ: dict[str, str], name: str) -> None:
    """A refused value is the only problem: nothing is concluded from its absence."""
    found = problems(HOST="0.0.0.0", **environ)
    assert [problem.partition(" ")[0] for problem in found] == [name]


@pytest.mark.parametrize(
    ("environ", "lends_key", "guards_loopback"),
    [
        pytest.param({}, True, True, id="emulator"),
        pytest.param({"ENDPOINT": AZURE}, False, False, id="callers-bring-keys"),
        pytest.param({"ENDPOINT": AZURE, "KEY": "k"}, True, True, id="key"),
        pytest.param({"ENDPOINT": AZURE, "KEY": "k", "ALLOW_ANONYMOUS": "true"}, True, False, id="key-for-all"),
    ],
)
def test_lent_key(read: Read, environ: dict[str, str], lends_key: bool, guards_loopback: bool) -> None:
    """A key of the server's own is guarded by the loopback rule, unless ALLOW_ANONYMOUS lifts it."""
    settings = read(**environ)
    assert (settings.lends_key, settings.guards_loopback) == (lends_key, guards_loopback)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        pytest.param((), ("SSL_CERT", "SSL_KEY"), id="neither"),
        pytest.param(("SSL_CERT",), ("SSL_KEY",), id="certificate"),
        pytest.param(("SSL_KEY",), ("SSL_CERT",), id="key"),
    ],
)
def test_ssl_needs_both_files(
    problems: Problems, tmp_path: Path, given: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    """ENABLE_SSL needs SSL_CERT and SSL_KEY, and names the one that is not there."""
    pem = tmp_path / "file.pem"
    pem.touch()
    found = problems(ENABLE_SSL="true", **dict.fromkeys(given, str(pem)))
    assert found == tuple(
        f"{name} is not set; with ENABLE_SSL=true it takes the path of a readable PEM file" for name in missing
    )


def test_port(read: Read, tmp_path: Path) -> None:
    """The port is HTTP_PORT, or HTTPS_PORT with ENABLE_SSL."""
    pem = tmp_path / "file.pem"
    pem.touch()
    ports = {"HTTP_PORT": "8001", "HTTPS_PORT": "8002"}
    assert read(**ports).port == 8001
    assert read(**ports, ENABLE_SSL="true", SSL_CERT=str(pem), SSL_KEY=str(pem)).port == 8002


@pytest.mark.parametrize(
    ("environ", "deployment", "version"),
    [
        pytest.param({"ENDPOINT": AZURE}, None, "2024-10-21", id="neither"),
        pytest.param({"ENDPOINT": DEPLOYMENT_URL}, "d", "2024-06-01", id="from-url"),
        pytest.param({"ENDPOINT": DEPLOYMENT_URL, "DEPLOYMENT_NAME": "x"}, "x", "2024-06-01", id="own-deployment"),
        pytest.param({"ENDPOINT": DEPLOYMENT_URL, "API_VERSION": "v1"}, "d", "v1", id="own-version"),
        pytest.param(
            {"ENDPOINT": DEPLOYMENT_URL, "DEPLOYMENT_NAME": " ", "API_VERSION": ""}, "d", "2024-06-01", id="blank"
        ),
        pytest.param({"ENDPOINT": f"{AZURE}/openai/v1/"}, None, "v1", id="v1-url"),
        pytest.param({"DEPLOYMENT_NAME": "x", "API_VERSION": "v1"}, "x", "v1", id="emulator"),
    ],
)
def test_deployment_and_version(read: Read, environ: dict[str, str], deployment: str | None, version: str) -> None:
    """Deployment and version come from their settings, else from ENDPOINT's URL, else there is the default version."""
    settings = read(**environ)
    assert (settings.deployment_name, settings.api_version) == (deployment, version)


@pytest.mark.parametrize(
    ("file", "environ", "warnings"),
    [
        pytest.param("", {}, (), id="emulator"),
        pytest.param("", {"ENDPOINT": AZURE, "DEPLOYMENT_NAME": "d", "KEY": "k"}, (), id="all-is-well"),
        pytest.param("", {"ENDPOINT": DEPLOYMENT_URL}, (), id="deployment-in-url"),
        pytest.param("", {"ENDPOINT": AZURE}, (NO_DEPLOYMENT,), id="no-deployment"),
        pytest.param("", {"ENDPOINT": "http://a.example.com", "DEPLOYMENT_NAME": "d"}, (UNENCRYPTED,), id="http"),
        pytest.param(
            "", {"ENDPOINT": "http://localhost.example.com", "DEPLOYMENT_NAME": "d"}, (UNENCRYPTED,), id="not-localhost"
        ),
        pytest.param("", {"ENDPOINT": "http://localhost:8090", "DEPLOYMENT_NAME": "d"}, (), id="http-localhost"),
        pytest.param("", {"ENDPOINT": "http://127.0.0.1:8090", "DEPLOYMENT_NAME": "d"}, (), id="http-loopback"),
        pytest.param("", {"ENDPOINT": "http://[::1]:8090", "DEPLOYMENT_NAME": "d"}, (), id="http-ipv6-loopback"),
        pytest.param(
            "",
            {"HOST": "0.0.0.0", "ENDPOINT": AZURE, "DEPLOYMENT_NAME": "d", "KEY": "k", "ALLOW_ANONYMOUS": "true"},
            (ANONYMOUS,),
            id="anonymous",
        ),
        pytest.param(
            "",
            {"ENDPOINT": AZURE, "DEPLOYMENT_NAME": "d", "KEY": "k", "ALLOW_ANONYMOUS": "true"},
            (),
            id="anonymous-on-loopback",
        ),
        pytest.param(
            "ENDPIONT=x\n",
            {},
            ("ENDPIONT in the .env file is not a setting; did you mean ENDPOINT?",),
            id="typo",
        ),
        pytest.param(
            "temprature=1\n",
            {},
            ("temprature in the .env file is not a setting; did you mean temperature?",),
            id="typo-in-default",
        ),
        pytest.param("SOMETHING_ELSE=1\n", {}, (), id="other-programs-variable"),
        pytest.param("", {"ENDPIONT": "x"}, (), id="typo-in-environment"),
    ],
)
def test_warnings(read: Read, file: str, environ: dict[str, str], warnings: tuple[str, ...]) -> None:
    """What stops nothing, but is worth saying, is a warning."""
    assert read(file, **environ).warnings == warnings


@pytest.mark.parametrize(
    ("file", "environ", "defaults"),
    [
        pytest.param("", {"USER": "root"}, {}, id="environment"),
        pytest.param("USER=root\n", {}, {}, id="file"),
        pytest.param("", {"USER": "root", "user": "alice"}, {"user": "alice"}, id="both"),
    ],
)
def test_login_name_is_not_a_default(
    read: Read, file: str, environ: dict[str, str], defaults: dict[str, object]
) -> None:
    """The shell's USER is not the parameter `user`."""
    assert read(file, **environ).defaults == defaults


@pytest.mark.parametrize(
    ("text", "stop"),
    [
        pytest.param("END", "END", id="text"),
        pytest.param("a,b", "a,b", id="text-with-comma"),
        pytest.param('["END"]', ["END"], id="array"),
        pytest.param('["a", "b\\n", "c", "d"]', ["a", "b\n", "c", "d"], id="four"),
    ],
)
def test_stop(read: Read, text: str, stop: object) -> None:
    """`stop` is text, or a JSON array of texts."""
    assert read(stop=text).defaults["stop"] == stop
    assert read(f"stop='{text}'\n").defaults["stop"] == stop


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        *(pytest.param(text, True, id=text) for text in ("true", "TRUE", "1", "yes", "on")),
        *(pytest.param(text, False, id=text) for text in ("false", "False", "0", "no", "off")),
    ],
)
def test_flags(read: Read, text: str, stream: bool) -> None:
    """A flag is spelt as people spell it; one that is off is still a default."""
    assert read(stream=text).defaults == {"stream": stream}


def test_zero_is_a_default(read: Read) -> None:
    """A default of zero is not the same as none."""
    assert read(temperature="0").defaults == {"temperature": 0.0}


def test_settings_are_frozen(read: Read) -> None:
    """Nothing in the settings can be changed after they were read."""
    settings = read(temperature="1")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.host = "0.0.0.0"  # type: ignore[misc]
    defaults: Any = settings.defaults
    with pytest.raises(TypeError):
        defaults["temperature"] = 2


def test_repr_hides_the_key(read: Read) -> None:
    """The key appears neither in the settings' text nor in the secret's own; `reveal` gives it."""
    settings = read(KEY="SECRET")
    assert settings.key is not None
    assert "SECRET" not in f"{settings} {settings!r} {settings.key} {settings.key!r}"
    assert settings.key.reveal() == "SECRET"


def test_file_that_is_not_utf_8(read: Read) -> None:
    """A `.env` file in another encoding is a problem with the settings, not a crash."""
    with pytest.raises(SettingsError):
        read("KEY=clé\n".encode("latin-1"))


def test_file_that_is_a_directory(tmp_path: Path) -> None:
    """A directory named `.env`, as Docker makes for a missing mount, is a problem with the settings, not a crash."""
    with pytest.raises(SettingsError):
        load({}, tmp_path)


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The top-level module `app`, imported afresh where reading the settings is an error."""

    def load(*_: object, **__: object) -> Settings:
        raise AssertionError("the settings were read")

    monkeypatch.setattr("chat_api.settings.load", load)
    monkeypatch.delitem(sys.modules, "app", raising=False)
    return importlib.import_module("app")


def test_import_reads_no_settings(entry: ModuleType) -> None:
    """Importing `app` reads no settings; asking for its `app` does."""
    with pytest.raises(AssertionError, match="the settings were read"):
        entry.app  # noqa: B018


def test_app_is_built_from_the_settings(entry: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """`app.app` is what `create_app` makes of the settings that were read."""
    settings = load({"ENDPOINT": "https://x.openai.azure.com"}, Path("/none/.env"))
    monkeypatch.setattr("chat_api.cli.load_or_exit", lambda: settings)
    monkeypatch.setattr("chat_api.app.create_app", lambda settings: ("application", settings))
    assert entry.app == ("application", settings)


def test_entry_has_no_other_attribute(entry: ModuleType) -> None:
    """Any other attribute is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="module 'app' has no attribute 'application'"):
        entry.application  # noqa: B018


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param('ENDPOINT="https://x.openai.azure.com\nKEY=SECRET\n', 1, id="open-quote"),
        pytest.param("KEY=SECRET\nENDPOINT: https://x.openai.azure.com\n", 2, id="yaml"),
    ],
)
def test_line_of_the_file_that_is_no_setting_is_told(tmp_path: Path, text: str, line: int) -> None:
    """A broken line would leave its setting out, and the emulator would answer in Azure's place."""
    (tmp_path / ".env").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load({}, tmp_path / ".env")
    assert f"{tmp_path / '.env'} line {line} is not NAME=value" in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("name", ["KEY", "DEPLOYMENT_NAME"])
def test_azure_settings_without_an_endpoint_are_warned_of(name: str) -> None:
    """What only Azure needs is set, but the emulator would answer: that is said."""
    (warning,) = load({name: "x"}, Path("/none/.env")).warnings
    assert warning == f"{name} is set but ENDPOINT is not: the built-in emulator answers, not Azure"


@pytest.mark.parametrize("host", ["http://localhost", "127.0.0.1:8080", "a b", "localhost/"])
def test_host_that_is_none_is_no_invitation_to_open_the_server(host: str) -> None:
    """A slip in HOST is told as what it is, not answered with ALLOW_ANONYMOUS."""
    with pytest.raises(SettingsError) as caught:
        load({"HOST": host}, Path("/none/.env"))
    assert caught.value.problems == (
        f'HOST is "{host}" (no host name and no address); it takes an address or host name, without scheme or port',
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "[::1]", "127.0.0.2"])
def test_loopback_hosts(host: str) -> None:
    """Every name of this machine itself will do."""
    assert load({"HOST": host}, Path("/none/.env")).host == host


def test_quotes_around_a_value_are_taken_off() -> None:
    """docker --env-file hands quotes on."""
    assert load({"HTTP_PORT": '"8403"', "HOST": "'localhost'"}, Path("/none/.env")).http_port == 8403


def test_key_in_the_place_of_the_endpoint_is_not_shown() -> None:
    """ENDPOINT and KEY swapped: neither message repeats the key."""
    with pytest.raises(SettingsError) as caught:
        load({"ENDPOINT": "0123456789abcdef0123456789abcdef", "KEY": "https://x.openai.azure.com"}, Path("/none/.env"))
    assert "0123456789abcdef" not in str(caught.value)
    assert "swapped" in str(caught.value)
