"""The settings of the way upstream: Azure, the models, other servers and proxies."""

from chat_api.azure_url import API_VERSION_FORM, DEFAULT_API_VERSION, ENDPOINTS_FORM
from chat_api.setting import COUNT, KEYS, SECONDS_FROM_0, Setting, between
from chat_api.setting_parsers import UNKNOWN_MODEL, UPSTREAMS

PROXY_FORM = "a URL such as http://127.0.0.1:3128 or socks5://user:password@127.0.0.1:1080"
_PREFIXES = "path prefixes such as /localai, separated by commas"
_URLS = "http(s) URLs without user name or password, separated by commas"

AZURE = (
    Setting(
        "ENDPOINT",
        "endpoints",
        None,
        ENDPOINTS_FORM,
        "Your Azure OpenAI resource: its URL, or any URL that the portal shows for a deployment; or several, which "
        "answer in each other's place. "
        "Unset, and no other upstream set: the built-in emulator answers.",
        aliases=("AZURE_OPENAI_ENDPOINT",),
    ),
    Setting(
        "DEPLOYMENT_NAME",
        "deployment_name",
        None,
        "the name of a deployment",
        "Deployment that answers when a request names no `model`. Unset: the one in `ENDPOINT`, if it has one.",
    ),
    Setting(
        "API_VERSION",
        "api_version",
        None,
        API_VERSION_FORM,
        f"Version of the Azure API; `v1` selects the v1 API. Unset: the one in `ENDPOINT`, else {DEFAULT_API_VERSION}.",
        aliases=("AZURE_OPENAI_API_VER", "AZURE_OPENAI_APIVERSION"),
    ),
    Setting(
        "KEY",
        "keys",
        None,
        KEYS,
        "Key of the resource; of several, one for all or one for each, in their order. "
        "Unset: each caller presents their own (`api-key` or Bearer).",
        secret=True,
        aliases=("AZURE_OPENAI_TOKEN", "AZURE_OPENAI_API_KEY"),
    ),
)
MODELS = (
    Setting(
        "MODEL_MAPPER",
        "model_mapper",
        None,
        "pairs of model=deployment, separated by commas",
        "Which deployment answers for which model.",
        aliases=("AZURE_OPENAI_MODEL_MAPPER",),
    ),
    Setting(
        "UNKNOWN_MODEL",
        "unknown_model",
        "pass",
        " or ".join(UNKNOWN_MODEL),
        "What a model gets that is mapped nowhere: `pass` takes it for a deployment's name, `default` sends it to "
        "`DEPLOYMENT_NAME`, `reject` refuses it.",
    ),
    Setting(
        "MODEL_FALLBACK",
        "model_fallback",
        None,
        "pairs of model=model, separated by commas",
        "Which model answers when none of a model's deployments can.",
    ),
    Setting(
        "CONFIG_FILE",
        "readable_file",
        None,
        "the path of a readable YAML file",
        "Deployments with an endpoint, key and version each, and client keys; see `config.example.yaml`. Unset: "
        "`config.yaml` beside `.env`, where no `ENDPOINT` is set or the file has client keys or prices.",
    ),
)
SEVERAL = (
    Setting("MAX_ATTEMPTS", "int", 5, COUNT, "How many deployments are asked for one call, at most.", between(1)),
    Setting(
        "RETRY_WAIT",
        "float",
        0,
        SECONDS_FROM_0,
        "Seconds that a call may wait for its only deployment, if that throttles or cannot be reached, before it is "
        "asked again; 0 for never.",
        between(0),
    ),
    Setting(
        "HEDGE_AFTER",
        "float",
        0,
        SECONDS_FROM_0,
        "Seconds without an answer after which a second deployment is asked as well, the first answer counting; 0 for "
        "never.",
        between(0),
    ),
)
OTHERS = (
    Setting(
        "UPSTREAM",
        "upstream",
        None,
        " or ".join(UPSTREAMS),
        "`openai` relays to an OpenAI-compatible server. Unset: `openai` if `OPENAI_BASE_URL` or `OPENAI_API_KEY` is "
        "set and `ENDPOINT` is not.",
        aliases=("AZURE_OPENAI_PROXY_MODE",),
    ),
    Setting(
        "OPENAI_BASE_URL",
        "urls",
        None,
        _URLS,
        "OpenAI-compatible servers. Unset: OpenAI's own, where one is asked for.",
    ),
    Setting(
        "OPENAI_ROUTE_PREFIX",
        "prefixes",
        None,
        _PREFIXES,
        "The path prefix of each; `/` for none.",
        aliases=("ROUTE_PREFIX",),
    ),
    Setting(
        "OPENAI_API_KEY",
        "keys",
        None,
        KEYS,
        "Their key; several are used in turn. Unset: each caller presents their own.",
        secret=True,
    ),
    Setting("EXTRA_BASE_URL", "urls", None, _URLS, "Further servers, reached with the callers' own keys only."),
    Setting("EXTRA_ROUTE_PREFIX", "prefixes", None, _PREFIXES, "The path prefix of each."),
    Setting(
        "UPSTREAM_PROXY",
        "proxy",
        None,
        PROXY_FORM,
        "Proxy to the upstream. Unset: `HTTPS_PROXY` and `HTTP_PROXY`, but for what `NO_PROXY` lists.",
        secret=True,
        aliases=("AZURE_OPENAI_HTTP_PROXY", "PROXY"),
    ),
    Setting(
        "UPSTREAM_SOCKS_PROXY",
        "proxy",
        None,
        PROXY_FORM,
        "The same; it wins over `UPSTREAM_PROXY`.",
        secret=True,
        aliases=("AZURE_OPENAI_SOCKS_PROXY",),
    ),
)
