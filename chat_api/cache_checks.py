"""What contradicts among the settings of kept answers, what is worth a warning, and what is said at the start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chat_api.cache_parsers import LIKE_LMDB, LMDB, MEMORY, REDIS
from chat_api.config_cache import ROUTES
from chat_api.limit_parsers import store_name
from chat_api.setting_values import Settings
from chat_api.types import Secret


def cache_conflicts(settings: Settings, values: Mapping[str, Any]) -> list[tuple[set[str], str]]:
    """A backend, and a place that is none of its: `(the settings involved, the problem)`."""
    if not settings.cached_routes:
        return []
    backend, url = settings.cache_backend, values["CACHE_URL"]
    redis_form = "a URL such as redis://127.0.0.1:6379/1"
    if backend == REDIS and isinstance(url, Path):
        text = f"CACHE_URL is a folder, and CACHE_BACKEND is redis; it takes {redis_form}, or set CACHE_BACKEND=lmdb"
    elif backend == REDIS and not (url or settings.store_url):
        text = f"CACHE_URL is not set, nor is STORE_URL; with CACHE_BACKEND=redis it takes {redis_form}"
    elif backend == LMDB and isinstance(url, Secret):
        text = (
            "CACHE_URL is a Redis, and CACHE_BACKEND is lmdb; it takes the path of a folder, or set CACHE_BACKEND=redis"
        )
    else:
        return []
    return [({"CACHE_BACKEND", "CACHE_URL", "STORE_URL"}, text)]


def cache_warnings(settings: Settings, values: Mapping[str, Any]) -> list[str]:
    """What of the cache does not do what somebody may think."""
    warnings = []
    if values["CACHE_BACKEND"] in LIKE_LMDB:
        warnings.append(f"CACHE_BACKEND is {values['CACHE_BACKEND']}, which is not here: answers are kept with lmdb")
    if settings.cache_backend == MEMORY and values["CACHE_URL"] is not None:
        warnings.append("CACHE_URL is not used: CACHE_BACKEND is memory")
    nobody_asks = not settings.client_keys and not settings.lends_key
    if settings.cache_shared and settings.cached_routes and nobody_asks:
        warnings.append(
            "CACHE_SHARED is on and CLIENT_KEYS is not set: whoever reaches this port is given kept answers, whatever "
            "key they present"
        )
    return warnings


def lone_caching(settings: Settings, processes: int) -> str | None:
    """What is to be said where several processes serve, and each keeps answers of its own."""
    if processes <= 1 or settings.cache_backend != MEMORY or not settings.cached_routes:
        return None
    return (
        f"{processes} processes serve, and each keeps answers of its own: the same is asked up to {processes} times; "
        "CACHE_BACKEND=lmdb or redis has them share"
    )


def cache_line(settings: Settings) -> str | None:
    """What is kept, where and for whom, in words; None if nothing is, and no calls are shared."""
    kept = [route for route in ROUTES if route in settings.cached_routes]
    said = []
    if kept:
        url = settings.cache_url
        where = (
            f"in Redis at {store_name(url)}" if isinstance(url, Secret) else f"in {url}" if url else "in this process"
        )
        whose = "for all callers" if settings.cache_shared else "for each caller"
        said.append(
            f"answers of {' and '.join([', '.join(kept[:-1]), kept[-1]][len(kept) == 1 :])} are kept {where}, {whose}"
        )
    if settings.coalesce:
        said.append("callers who ask the same at the same time share one answer")
    line = "; ".join(said)
    return f"{line[0].upper()}{line[1:]}." if line else None
