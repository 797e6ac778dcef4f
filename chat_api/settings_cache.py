"""The settings of answers that are kept, and of calls that share one."""

from chat_api.cache_parsers import BACKENDS
from chat_api.setting import ABOVE_0, FLAG, SECONDS, Setting, between

LEAST_BYTES = 1024 * 1024

CACHE = (
    Setting(
        "CACHE_CHAT_COMPLETION",
        "bool",
        False,
        FLAG,
        "Keep the answers of `/v1/chat/completions` and `/v1/gpt/chat`, and give them again to who asks the same.",
        aliases=("CACHE_OPENAI",),
    ),
    Setting(
        "CACHE_EMBEDDINGS",
        "bool",
        False,
        FLAG,
        "Keep the answers of `/v1/embeddings`.",
        aliases=("CACHE_EMBEDDING",),
    ),
    Setting(
        "CACHE_BACKEND",
        "cache_backend",
        BACKENDS[0],
        " or ".join(BACKENDS),
        "Where answers are kept: `memory` is each process's own, `lmdb` a folder for all processes of this machine, "
        "`redis` for all that use it.",
    ),
    Setting(
        "CACHE_URL",
        "cache_url",
        None,
        "a URL such as redis://127.0.0.1:6379/1, or the path of a folder such as /var/lib/chat-api or "
        "lmdb:///var/lib/chat-api",
        "Redis in which answers are kept, unset: that of `STORE_URL`; or the folder for `lmdb`, unset: `cache` beside "
        "`.env`.",
        secret=True,
    ),
    Setting("CACHE_TTL", "float", 86400, SECONDS, "Seconds for which an answer is given again.", ABOVE_0),
    Setting(
        "CACHE_MAX_BYTES",
        "int",
        None,
        f"a whole number of bytes from {LEAST_BYTES}",
        "Most that kept answers take: in each process's memory, or the length of the file of `lmdb`; Redis has its own "
        "`maxmemory`. Unset: 64 MiB in memory, 1 GiB on disk.",
        between(LEAST_BYTES),
    ),
    Setting(
        "CACHE_SHARED",
        "bool",
        False,
        FLAG,
        "Give what one caller was answered to other callers as well. Otherwise each client key has answers of its own.",
    ),
    Setting("COALESCE", "bool", False, FLAG, "Have callers who ask the same at the same time share one upstream call."),
)
