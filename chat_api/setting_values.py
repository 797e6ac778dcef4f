"""The frozen `Settings`: everything that can be configured, validated."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat_api.azure_url import Endpoint
from chat_api.callers import ClientKey
from chat_api.config_cache import CHAT, EMBEDDINGS, SIMPLE_CHAT
from chat_api.config_file import Config
from chat_api.counting import Rate
from chat_api.setting_parsers import Network
from chat_api.types import Proxies, Secret


@dataclass(frozen=True, slots=True)
class Server:
    """An OpenAI-compatible server: its root URL, the path prefix that leads to it ("" for none), our keys for it."""

    root: str
    prefix: str
    keys: tuple[Secret, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured, validated. Times are seconds, sizes bytes."""

    host: str
    http_port: int
    enable_ssl: bool
    https_port: int
    ssl_cert: Path | None
    ssl_key: Path | None
    client_keys: tuple[ClientKey, ...]  # those of CLIENT_KEYS, and the config file's
    operator_key: Secret | None
    allow_anonymous: bool
    allow_ips: tuple[Network, ...]
    deny_ips: tuple[Network, ...]
    forwarded_allow_ips: tuple[str, ...]  # proxies that say who the client is; ("*",) for any
    cors_origins: tuple[str, ...]
    req_rate_limit: Mapping[str, tuple[Rate, ...]]  # by route, without a slash at its end; () for any number
    global_rate_limit: tuple[Rate, ...]  # on the other routes
    rate_limit_strategy: str
    caller_token_limit: tuple[Rate, ...]
    model_token_limit: Mapping[str, tuple[Rate, ...]]  # of all callers together
    caller_max_parallel: int | None
    token_rate_limit: Mapping[str, Rate]  # the pace of streams, by route; ANY_ROUTE for all of them
    store_url: Secret | None
    store_failure: str
    store_timeout: float
    usage_file: Path | None  # where there is no store
    cache_chat_completion: bool
    cache_embeddings: bool
    cache_backend: str  # "memory", "lmdb" or "redis"
    cache_url: Secret | Path | None  # a Redis or a folder; None for memory
    cache_ttl: float
    cache_max_bytes: int
    cache_shared: bool
    coalesce: bool
    endpoints: tuple[Endpoint, ...]  # each with the deployment and the version that it is asked for
    deployment_name: str | None
    api_version: str
    keys: tuple[Secret, ...]  # of the endpoints: none, one for all, or one for each
    model_mapper: tuple[tuple[str, str], ...]
    unknown_model: str
    fallbacks: Mapping[str, str]  # model -> the model that answers when none of its deployments can
    config_file: Path | None
    config: Config
    max_attempts: int
    retry_wait: float
    hedge_after: float
    openai: tuple[Server, ...]  # OpenAI-compatible servers; the first is the main upstream, unless Azure is
    extra: tuple[Server, ...]
    upstream: str  # "azure", "openai" or "emulator": who answers at /v1
    proxies: Proxies
    defaults: Mapping[str, Any]  # parameters of /v1/gpt/chat that a request may leave out
    connect_timeout: float
    first_byte_timeout: float
    max_connections: int
    idle_timeout: float
    ping_interval: float
    compat_chunks: bool
    headers_timeout: float
    body_timeout: float
    reader_timeout: float
    drain_wait: float
    drain_timeout: int
    max_body_bytes: int
    max_upload_bytes: int
    log_level: str
    log_chat: str  # "false", "true" or "meta"; a client key may say otherwise
    log_dir: Path
    log_max_file_bytes: int
    log_keep_days: int  # 0 for ever
    warnings: tuple[str, ...] = ()

    @property
    def port(self) -> int:
        """The port to listen on."""
        return self.https_port if self.enable_ssl else self.http_port

    @property
    def endpoint(self) -> Endpoint | None:
        """The first endpoint."""
        return self.endpoints[0] if self.endpoints else None

    @property
    def upstream_urls(self) -> Mapping[str, list[str]]:
        """The base URLs of all upstreams, by the setting that has them."""
        return {
            "ENDPOINT": [endpoint.base_url for endpoint in self.endpoints],
            "CONFIG_FILE": [row.endpoint.base_url for row in self.config.deployments if row.endpoint],
            "OPENAI_BASE_URL": [server.root for server in self.openai],
            "EXTRA_BASE_URL": [server.root for server in self.extra],
        }

    @property
    def served_models(self) -> list[str]:
        """The models and deployments that have a place, in the order in which they were written."""
        rows = [name for row in self.config.deployments for name in (*row.models, row.name)]
        mapped = [name for pair in self.model_mapper for name in pair]
        default = [self.deployment_name, *(one.deployment for one in self.endpoints)]
        return list(dict.fromkeys(name for name in (*rows, *mapped, *default) if name))

    @property
    def lends_key(self) -> bool:
        """Whether whoever reaches the server uses its upstream key (the emulator counts as one)."""
        has_key = self.upstream == "emulator" or (self.keys and self.upstream == "azure")
        has_key = has_key or any(row.key for row in self.config.deployments)
        return bool(has_key or any(server.keys for server in self.openai)) and not self.client_keys

    @property
    def guards_loopback(self) -> bool:
        """Whether only loopback host names are answered, because the key is lent to all who ask."""
        return self.lends_key and not self.allow_anonymous

    @property
    def limits_callers(self) -> bool:
        """Whether anything is limited that processes have to count together to be right."""
        limited = any(self.req_rate_limit.values()) or self.global_rate_limit or self.caller_max_parallel
        return bool(limited or self.caller_token_limit or self.model_token_limit) or any(
            key.requests or any(key.tokens.values()) or key.max_parallel or key.budget for key in self.client_keys
        )

    @property
    def logs_conversations(self) -> bool:
        """Whether any call is written down."""
        kinds = {self.log_chat, *(key.log_chat for key in self.client_keys if key.log_chat)}
        return kinds != {"false"}

    @property
    def counts_usage(self) -> bool:
        """Whether it is kept who took how many tokens: there is somebody to tell apart, or something to hold it to."""
        limited = self.caller_token_limit or self.model_token_limit
        return bool(self.client_keys or limited or self.store_url or self.config.prices)

    @property
    def cached_routes(self) -> Mapping[str, float]:
        """For how long answers are kept, by route; what is not in it is not kept."""
        of_chat = self.cache_chat_completion
        routes = {SIMPLE_CHAT: of_chat, CHAT: of_chat, EMBEDDINGS: self.cache_embeddings, **self.config.cache}
        return {route: self.cache_ttl if kept is True else float(kept) for route, kept in routes.items() if kept}
