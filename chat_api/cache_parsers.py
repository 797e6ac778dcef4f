"""Parsers of settings of the cache; each takes text and raises ValueError with its reason.

No reason given here repeats a password.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from chat_api.limit_parsers import parse_store_url
from chat_api.setting_parsers import choice
from chat_api.types import Secret

MEMORY, LMDB, REDIS = BACKENDS = ("memory", "lmdb", "redis")
LIKE_LMDB = ("leveldb", "rocksdb")  # what openai-forward has as well, for the same


def parse_cache_url(text: str) -> Secret | Path:
    """Where answers are kept: a Redis, or a folder, which need not be there yet."""
    if text.lower().startswith("lmdb:"):
        url = urlsplit(text)
        if url.netloc or not url.path.startswith("/") or url.query or url.fragment:
            raise ValueError("it names no folder; lmdb:///var/lib/chat-api does")
        return _folder(unquote(url.path))
    return parse_store_url(text) if "://" in text else _folder(text)


def _folder(text: str) -> Path:
    folder = Path(text)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"no folder at {folder.absolute()}")
    return folder


CACHE_PARSERS = {
    "cache_backend": choice(*BACKENDS, *LIKE_LMDB),
    "cache_url": parse_cache_url,
}
