"""What the settings files of other gateways mean here, where a name alone does not say it.

Their names for our settings are the `aliases` of the settings table. This is the rest: what each of
them took for granted, and what its files may ask for that is not built yet.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gateway:
    """Another gateway: the names that only its files have, and its defaults that differ from ours."""

    signs: frozenset[str]
    defaults: Mapping[str, str]


GATEWAYS = (
    Gateway(  # stulzq/azure-openai-proxy
        frozenset({"AZURE_OPENAI_API_VER", "AZURE_OPENAI_HTTP_PROXY", "AZURE_OPENAI_SOCKS_PROXY"}),
        {"HOST": "0.0.0.0"},  # noqa: S104 - as there; the settings check who could then use the key
    ),
    Gateway(  # diemus/azure-openai-proxy
        frozenset(
            {
                "AZURE_OPENAI_PROXY_ADDRESS",
                "AZURE_OPENAI_PROXY_MODE",
                "AZURE_OPENAI_APIVERSION",
                "AZURE_OPENAI_TOKEN",
                "AZURE_OPENAI_ENDPOINT",  # stulzq's too, whose files always have a model mapper with it
                "AZURE_OPENAI_MODEL_MAPPER",
            }
        ),
        {
            "HOST": "0.0.0.0",  # noqa: S104
            "MODEL_MAPPER": "gpt-3.5-turbo=gpt-35-turbo,gpt-3.5-turbo-0301=gpt-35-turbo-0301",
        },
    ),
    Gateway(  # KenyonY/openai-forward
        # LOG_CHAT and CACHE_CHAT_COMPLETION are names of ours as well.
        frozenset({"FORWARD_KEY", "PRINT_CHAT", "CACHE_EMBEDDING", "CACHE_OPENAI", "IP_WHITELIST", "IP_BLACKLIST"}),
        # It asks again by itself when a connection fails.
        {"HOST": "0.0.0.0", "HTTP_PORT": "8000", "UPSTREAM": "openai", "RETRY_WAIT": "1"},  # noqa: S104
    ),
)
_OFF = ("false", "0", "no", "off")
# What is asked for and not built yet, and the values that ask for nothing.
NOT_YET: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "PRINT_CHAT": ("no conversation is printed; LOG_CHAT logs them", _OFF),
    "LOG_OPENAI": ("set LOG_CHAT, which logs conversations", _OFF),
    "LOG_GENERAL": ("LOG_CHAT logs conversations, and nothing else", _OFF),
    "CACHE_GENERAL": ("no answer of EXTRA_BASE_URL is kept", _OFF),
    "BENCHMARK_MODE": ("the upstream is asked; chat-api emulate answers without one", _OFF),
    "FORWARD_CONFIG": ("what it lists is not served; set OPENAI_BASE_URL and OPENAI_ROUTE_PREFIX", ("[]",)),
    "OPENAI_API_KEY_CONFIG": ("its keys are not used; set OPENAI_API_KEY", ("{}",)),
    "FORWARD_KEY_CONFIG": ("its keys are not accepted; set CLIENT_KEYS", ("{}",)),
    "LEVEL_MODELS": ("every caller may use every model", ("{}",)),
    "CUSTOM_MODEL_CONFIG": ("what it lists is not served", ("{}",)),
}


def defaults_for(given: Callable[[str], str | None]) -> dict[str, str]:
    """The defaults that a file of another gateway counts on; none where no name of its own is set."""
    defaults: dict[str, str] = {}
    for gateway in GATEWAYS:
        counts = not ("UPSTREAM" in gateway.defaults and _names_azure(given))  # names of its are names of ours as well
        # With its key beside it the endpoint is what OpenAI's own client reads, in the shell of whoever uses that.
        shared = {"AZURE_OPENAI_ENDPOINT"} if given("AZURE_OPENAI_API_KEY") else set()
        if counts and any(given(name) for name in gateway.signs - shared):
            defaults = {**gateway.defaults, **defaults}
    if (given("AZURE_OPENAI_PROXY_MODE") or given("UPSTREAM") or "").lower() == "openai":
        defaults.pop("MODEL_MAPPER", None)  # OpenAI's own names are right there
    return defaults


def unbuilt(given: Callable[[str], str | None]) -> list[str]:
    """A warning for each setting that asks for something that is not built yet."""
    warnings = []
    for name, (effect, nothing) in NOT_YET.items():
        value = given(name)
        if value and "".join(value.lower().split()) not in nothing:
            warnings.append(f"{name} is set, but this server cannot do that yet: {effect}")
    return warnings


def _names_azure(given: Callable[[str], str | None]) -> bool:
    return bool(given("ENDPOINT") or given("AZURE_OPENAI_ENDPOINT") or given("CONFIG_FILE"))
