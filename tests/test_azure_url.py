import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat_api.azure_url import Endpoint, parse_api_version, parse_endpoint, parse_server, server_version

AZURE = "https://r.openai.azure.com"

RESOURCE_URLS = [
    pytest.param("https://r.openai.azure.com", AZURE, id="openai"),
    pytest.param("https://r.openai.azure.com/", AZURE, id="trailing-slash"),
    pytest.param("https://r.openai.azure.com///", AZURE, id="trailing-slashes"),
    pytest.param("r.openai.azure.com", AZURE, id="no-scheme"),
    pytest.param("HTTPS://R.OpenAI.Azure.COM/", AZURE, id="upper-case"),
    pytest.param("  https://r.openai.azure.com \n", AZURE, id="spaces-around"),
    pytest.param('"https://r.openai.azure.com/"', AZURE, id="double-quotes-around"),
    pytest.param("'https://r.openai.azure.com/'", AZURE, id="single-quotes-around"),
    pytest.param(" 'https://r.openai.azure.com/' ", AZURE, id="quotes-and-spaces-around"),
    pytest.param("<https://r.openai.azure.com/>", AZURE, id="angle-brackets-around"),
    pytest.param("https://r.openai.azure.com/#frag", AZURE, id="fragment"),
    pytest.param("https://r.openai.azure.com/?x=1", AZURE, id="other-query"),
    pytest.param("https://r.openai.azure.com:443/", f"{AZURE}:443", id="port"),
    pytest.param("https://r.cognitiveservices.azure.com/", "https://r.cognitiveservices.azure.com", id="cognitive"),
    pytest.param("https://r.services.ai.azure.com/", "https://r.services.ai.azure.com", id="foundry"),
    pytest.param(
        "https://eastus.api.cognitive.microsoft.com/", "https://eastus.api.cognitive.microsoft.com", id="regional"
    ),
    pytest.param("https://r.openai.azure.us/", "https://r.openai.azure.us", id="government"),
    pytest.param("https://apim.example.com/inference", "https://apim.example.com/inference", id="apim-prefix"),
    pytest.param("https://apim.example.com/Team-A//v2/", "https://apim.example.com/Team-A/v2", id="apim-deep-prefix"),
    pytest.param("https://apim.example.com/inference/openai", "https://apim.example.com/inference", id="apim-openai"),
    pytest.param(
        "https://r.services.ai.azure.com/api/projects/p",
        "https://r.services.ai.azure.com/api/projects/p",
        id="project",
    ),
    pytest.param("http://localhost:8090/", "http://localhost:8090", id="localhost-port"),
    pytest.param("http://localhost", "http://localhost", id="localhost"),
    pytest.param("http://127.0.0.1:8090", "http://127.0.0.1:8090", id="ipv4-port"),
    pytest.param("http://[::1]:8090/", "http://[::1]:8090", id="ipv6-port"),
    pytest.param("http://[2001:DB8::1]", "http://[2001:db8::1]", id="ipv6"),
    pytest.param("http://azure-mock:8080", "http://azure-mock:8080", id="lone-name-with-port"),
]

OPERATION_URLS = [
    pytest.param(
        "https://r.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2025-01-01-preview",
        Endpoint(AZURE, "gpt-4o", "2025-01-01-preview"),
        id="chat",
    ),
    pytest.param(
        "https://r.openai.azure.com/openai/deployments/gpt-4o/", Endpoint(AZURE, "gpt-4o", None), id="deployment-only"
    ),
    pytest.param(
        "r.openai.azure.com/openai/deployments/gpt-4o", Endpoint(AZURE, "gpt-4o", None), id="deployment-no-scheme"
    ),
    pytest.param("https://r.openai.azure.com/openai/deployments/", Endpoint(AZURE), id="deployments-without-name"),
    pytest.param(
        "https://r.openai.azure.com//openai///deployments//d//chat//completions?api-version=2024-10-21",
        Endpoint(AZURE, "d", "2024-10-21"),
        id="doubled-slashes",
    ),
    pytest.param(
        '"https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21"',
        Endpoint(AZURE, "d", "2024-10-21"),
        id="quoted",
    ),
    pytest.param(
        "https://r.openai.azure.com/openai/deployments/my%20dep%2F1/chat/completions",
        Endpoint(AZURE, "my dep/1", None),
        id="percent-encoded-deployment",
    ),
    pytest.param(
        "https://r.openai.azure.com/openai/deployments/%C3%BC", Endpoint(AZURE, "ü", None), id="utf-8-deployment"
    ),
    pytest.param(
        "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=",
        Endpoint(AZURE, "d", None),
        id="empty-version",
    ),
    pytest.param(
        "https://apim.example.com/inference/openai/deployments/d/chat/completions?api-version=2024-10-21",
        Endpoint("https://apim.example.com/inference", "d", "2024-10-21"),
        id="apim",
    ),
    pytest.param("https://r.openai.azure.com/?api-version=2024-06-01", Endpoint(AZURE, None, "2024-06-01"), id="query"),
    pytest.param("https://r.openai.azure.com/openai/v1/", Endpoint(AZURE, None, "v1"), id="v1"),
    pytest.param("https://r.openai.azure.com/openai/v1", Endpoint(AZURE, None, "v1"), id="v1-no-slash"),
    pytest.param("https://r.openai.azure.com/openai/v1/chat/completions", Endpoint(AZURE, None, "v1"), id="v1-chat"),
    pytest.param(
        "https://r.openai.azure.com/openai/v1/chat/completions?api-version=preview",
        Endpoint(AZURE, None, "preview"),
        id="v1-preview",
    ),
    pytest.param(
        "https://r.openai.azure.com/openai/v1/chat/completions?api-version=2024-10-21",
        Endpoint(AZURE, None, "v1"),
        id="v1-with-date",
    ),
    pytest.param(
        "https://r.openai.azure.com/openai/v1/deployments/d/chat/completions",
        Endpoint(AZURE, "d", "v1"),
        id="v1-deployments",
    ),
    pytest.param("https://r.openai.azure.com/openai/v10/x", Endpoint(AZURE), id="v10-is-not-v1"),
    pytest.param(
        "https://r.services.ai.azure.com/api/projects/p/openai/v1/responses",
        Endpoint("https://r.services.ai.azure.com/api/projects/p", None, "v1"),
        id="project-v1",
    ),
    pytest.param(
        "https://r.cognitiveservices.azure.com/openai/responses?api-version=2025-04-01-preview",
        Endpoint("https://r.cognitiveservices.azure.com", None, "2025-04-01-preview"),
        id="responses",
    ),
    pytest.param(
        "https://r.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview",
        Endpoint("https://r.services.ai.azure.com"),
        id="model-inference",
    ),
    pytest.param(
        "wss://r.openai.azure.com/openai/realtime?api-version=2025-04-01-preview&deployment=rt",
        Endpoint(AZURE, "rt", "2025-04-01-preview"),
        id="realtime",
    ),
    pytest.param("ws://localhost:9000/openai/realtime?deployment=rt", Endpoint("http://localhost:9000", "rt"), id="ws"),
]

NOT_ENDPOINTS = [
    pytest.param("", id="empty"),
    pytest.param("my-resource", id="resource-name"),
    pytest.param("https://my-resource", id="resource-name-with-scheme"),
    pytest.param("my-resource/openai/v1", id="resource-name-with-path"),
    pytest.param("ftp://r.openai.azure.com", id="ftp"),
    pytest.param("file:///etc/passwd", id="file"),
    pytest.param("mailto:someone@r.openai.azure.com", id="mailto"),
    pytest.param("https://user:password@r.openai.azure.com", id="user-and-password"),
    pytest.param("https://user@r.openai.azure.com", id="user"),
    pytest.param("https://:password@r.openai.azure.com", id="password"),
    pytest.param("https://@r.openai.azure.com", id="empty-user"),
    pytest.param("user:password@r.openai.azure.com", id="user-and-password-no-scheme"),
    pytest.param("https://r.openai.azure.com\\@elsewhere.com", id="backslash"),
    pytest.param("https://r.openai.azure.com:99999", id="port-too-large"),
    pytest.param("https://r.openai.azure.com:-1", id="port-negative"),
    pytest.param("https://r.openai.azure.com:https", id="port-not-a-number"),
    pytest.param("https://r .openai.azure.com", id="space-in-host"),
    pytest.param("https://r.openai.azure.com/a b", id="space-in-path"),
    pytest.param("https://r.openai.azure.com/a\u00a0b", id="no-break-space-in-path"),
    pytest.param("https://r.open\tai.azure.com", id="tab-in-host"),
    pytest.param("https://r.openai.azure.com/a\nb", id="line-feed-in-path"),
    pytest.param("https://r.openai.azure.com/\x00", id="nul-in-path"),
    pytest.param("https://r.openai.azure.com/?a=\x7f", id="delete-in-query"),
    pytest.param("https://", id="scheme-only"),
    pytest.param("https:///openai/v1", id="empty-host"),
    pytest.param("https://:8080", id="empty-host-with-port"),
    pytest.param("https://-r.openai.azure.com", id="host-starts-with-hyphen"),
    pytest.param("https://r_1.openai.azure.com", id="underscore-in-host"),
    pytest.param("https://ü.openai.azure.com", id="host-not-ascii"),
    pytest.param("https://[::1", id="bracket-open"),
    pytest.param("https://[fe80::1%25eth0]:80", id="ipv6-zone"),
    pytest.param("https://r.openai.azure.com?api-version=latest", id="bad-version"),
    pytest.param("https://r.openai.azure.com/openai/v1/?api-version=latest", id="bad-version-on-v1"),
    pytest.param("https://r.openai.azure.com/openai/responses?api-version=2024-10", id="short-version"),
]

API_VERSIONS = [
    pytest.param("2024-10-21", "2024-10-21", id="date"),
    pytest.param("2025-04-01-preview", "2025-04-01-preview", id="dated-preview"),
    pytest.param("2025-04-01-Preview", "2025-04-01-preview", id="upper-case"),
    pytest.param("v1", "v1", id="v1"),
    pytest.param("V1", "v1", id="upper-case-v1"),
    pytest.param("preview", "preview", id="preview"),
    pytest.param(" 2024-10-21\n", "2024-10-21", id="spaces-around"),
    pytest.param("'2024-10-21'", "2024-10-21", id="single-quotes"),
    pytest.param('"v1"', "v1", id="double-quotes"),
    pytest.param("api-version=2024-10-21", "2024-10-21", id="whole-parameter"),
]

NOT_API_VERSIONS = [
    pytest.param("", id="empty"),
    pytest.param("latest", id="word"),
    pytest.param("v2", id="v2"),
    pytest.param("2024", id="year"),
    pytest.param("2024-10", id="month"),
    pytest.param("2024-1-1", id="short-numbers"),
    pytest.param("2024-10-21-beta", id="beta"),
    pytest.param("2024-10-21preview", id="no-hyphen"),
    pytest.param("2024-10-21&api-key=k", id="more-parameters"),
    pytest.param("2024-10-21 2024-06-01", id="two"),
    pytest.param("x2024-10-21", id="prefix"),
    pytest.param(
        "\uff12\uff10\uff12\uff14-10-21",
        id="full-width-digits",
    ),
]


@pytest.mark.parametrize(("text", "base_url"), RESOURCE_URLS)
def test_resource_url(text: str, base_url: str) -> None:
    """A resource's URL gives its base URL, and says nothing about deployment and version."""
    assert parse_endpoint(text) == Endpoint(base_url, None, None)


@pytest.mark.parametrize(("text", "endpoint"), OPERATION_URLS)
def test_operation_url(text: str, endpoint: Endpoint) -> None:
    """An operation's URL gives base URL, deployment and version; the operation's path is cut off."""
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize("text", NOT_ENDPOINTS)
def test_not_an_endpoint(text: str) -> None:
    """What is not an http(s) URL of a host, or holds a user name or password, is refused, with a reason."""
    with pytest.raises(ValueError, match=r"\S"):
        parse_endpoint(text)


@pytest.mark.parametrize(
    ("base_url", "host_name"),
    [
        pytest.param("https://r.openai.azure.com", "r.openai.azure.com", id="name"),
        pytest.param("http://localhost:8090", "localhost", id="port"),
        pytest.param("http://[::1]:8090", "::1", id="ipv6"),
        pytest.param("https://apim.example.com/inference", "apim.example.com", id="prefix"),
        pytest.param("", "", id="no-url"),
    ],
)
def test_host_name(base_url: str, host_name: str) -> None:
    """An endpoint's host name is without port, brackets and path."""
    assert Endpoint(base_url).host_name == host_name


@pytest.mark.parametrize(("text", "version"), API_VERSIONS)
def test_api_version(text: str, version: str) -> None:
    """A date, v1 and preview are api-versions, in any case, with what people paste around them."""
    assert parse_api_version(text) == version


@pytest.mark.parametrize("text", NOT_API_VERSIONS)
def test_not_an_api_version(text: str) -> None:
    """Anything else is no api-version."""
    with pytest.raises(ValueError, match="is not an api-version"):
        parse_api_version(text)


URL_PARTS = (
    *(
        "https://",
        "http://",
        "wss://",
        "ftp://",
        "//",
        "/",
        ":",
        "@",
        "?",
        "#",
        "&",
        "\\",
        "[",
        "]",
        ";",
        "'",
        '"',
        " ",
    ),
    *(
        "r.openai.azure.com",
        "localhost",
        "[::1]",
        "443",
        "a.b",
        "..",
        "%2F",
        "%20",
        "\t",
        "\u3000",
        "\u00a0",
        "\uff20",
        "\uff0f",
    ),
    *("/openai", "/openai/v1", "/deployments/", "/models/chat/completions", "?api-version=2024-10-21", "&deployment=d"),
)
PASTED = st.lists(st.sampled_from(URL_PARTS) | st.text(max_size=3), max_size=8).map("".join)


@settings(max_examples=500, deadline=None, database=None, derandomize=True)
@given(st.text() | PASTED)
@example("r.openai.azure.com//")
@example("https://r.openai.azure.com#@x")
def test_any_text(text: str) -> None:
    """Whatever is pasted is refused with ValueError, or gives a base URL to which a path can be added."""
    try:
        base_url = parse_endpoint(text).base_url
    except ValueError:
        return
    assert base_url.startswith(("http://", "https://"))
    assert "@" not in base_url.split("/")[2]
    assert not re.search(r"[?#\s]", base_url)
    assert not base_url.endswith("/")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://portal.azure.com/#@tenant/resource/x", "portal's own page"),
        ("https://ai.azure.com/resource/deployments/x", "portal's own page"),
        ("https://999.999.999.999", "999.999.999.999"),
        ("https://x.openai.azure.com/openai/deployments/%0A/chat/completions", "no deployment"),
    ],
)
def test_pages_and_addresses_that_cannot_work_are_refused(url: str, reason: str) -> None:
    """The address bar of the portal is what people paste; it is told from what the portal shows."""
    with pytest.raises(ValueError, match=reason):
        parse_endpoint(url)


@pytest.mark.parametrize(
    ("text", "root", "version"),
    [
        pytest.param("https://api.openai.com", "https://api.openai.com", "v1", id="openai"),
        pytest.param("https://api.openai.com/v1", "https://api.openai.com", "v1", id="v1"),
        pytest.param("https://api.openai.com/v1/", "https://api.openai.com", "v1", id="trailing-slash"),
        pytest.param("api.openai.com", "https://api.openai.com", "v1", id="no-scheme"),
        pytest.param("HTTP://LocalHost:8000", "http://localhost:8000", "v1", id="upper-case"),
        pytest.param(' "http://localhost:8000/v1" \n', "http://localhost:8000", "v1", id="quotes-and-spaces"),
        pytest.param("http://[::1]:8000/v1", "http://[::1]:8000", "v1", id="ipv6"),
        pytest.param("http://ollama:11434/v1", "http://ollama:11434", "v1", id="lone-name-with-port"),
        pytest.param("https://h.x//api///v1//", "https://h.x/api", "v1", id="doubled-slashes"),
        pytest.param("https://h.x/openai/v1", "https://h.x/openai", "v1", id="prefix"),
        pytest.param("https://h.x/api/v3", "https://h.x/api/v3", "", id="another-version"),
        pytest.param("https://h.x/v1beta/openai/", "https://h.x/v1beta/openai", "", id="version-within"),
        pytest.param("https://h.x/v10", "https://h.x/v10", "", id="v10"),
        pytest.param("https://h.x/vllm", "https://h.x/vllm", "v1", id="a-word"),
        pytest.param("https://v1.h.x", "https://v1.h.x", "v1", id="version-in-the-host"),
    ],
)
def test_server(text: str, root: str, version: str) -> None:
    """A server's URL is its root, with or without v1 at its end; one that names another version gets no v1."""
    assert parse_server(text) == root
    assert server_version(root) == version


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("ollama", id="lone-name"),
        pytest.param("http://h:1/?key=SECRET", id="query"),
        pytest.param("http://h:1/#SECRET", id="fragment"),
        pytest.param("http://user:SECRET@h:1", id="user-and-password"),
        pytest.param("ftp://h.x", id="ftp"),
        pytest.param("wss://h.x", id="websocket"),
        pytest.param("https://h.x/a b", id="space"),
        pytest.param("http://h:99999", id="port"),
    ],
)
def test_no_server(text: str) -> None:
    """What is no http(s) URL of a server is refused, without being repeated: it may hold a key."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        parse_server(text)
    assert "SECRET" not in str(caught.value)


def test_server_with_an_upper_case_version() -> None:
    """The version at the end of a pasted URL is found in any case."""
    assert parse_server("https://api.openai.com/V1") == "https://api.openai.com"
