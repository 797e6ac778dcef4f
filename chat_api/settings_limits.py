"""The settings of what callers may take, and of where it is counted."""

from chat_api.counting import STRATEGIES
from chat_api.limit_parsers import STORE_FAILURE
from chat_api.setting import ABOVE_0, COUNT, SECONDS, Setting, between

RATES = "limits such as 60/minute;600/hour, or inf"

CALLER_LIMITS = (
    Setting(
        "REQ_RATE_LIMIT",
        "rates_by_route",
        None,
        'JSON of paths and limits such as {"/v1/chat/completions": "100/2minutes", "/v1/gpt/chat": "inf"}',
        "Requests that a caller may make, by route.",
    ),
    Setting(
        "GLOBAL_RATE_LIMIT",
        "rates",
        None,
        RATES,
        "Requests that a caller may make on routes that `REQ_RATE_LIMIT` does not name. A caller is a client key, else "
        "an address.",
    ),
    Setting(
        "RATE_LIMIT_STRATEGY",
        "strategy",
        STRATEGIES[0],
        " or ".join(STRATEGIES),
        "How windows of time are counted.",
    ),
    Setting("CALLER_TOKEN_LIMIT", "rates", None, RATES, "Tokens that a caller may take, of all models together."),
    Setting(
        "MODEL_TOKEN_LIMIT",
        "rates_by_model",
        None,
        'JSON of models and limits such as {"gpt-4o": "500000/minute"}',
        "Tokens that all callers together may take of a model.",
    ),
    Setting("CALLER_MAX_PARALLEL", "int", None, COUNT, "Calls that a caller may have in flight.", between(1)),
    Setting(
        "TOKEN_RATE_LIMIT",
        "pace_by_route",
        None,
        'one rate such as 60/second, or JSON of paths and rates such as {"/v1/chat/completions": "60/second"}',
        "Pace of streams: the most events that each is sent. It evens out bursts, and limits nobody.",
    ),
    Setting(
        "STORE_URL",
        "store_url",
        None,
        "a URL such as redis://127.0.0.1:6379/0, rediss://user:password@redis.example.com or unix:///run/redis.sock",
        "Redis server or cluster (or Valkey) in which all processes count together. Unset: each counts by itself.",
        secret=True,
    ),
    Setting(
        "STORE_FAILURE",
        "store_failure",
        STORE_FAILURE[0],
        " or ".join(STORE_FAILURE),
        "What calls get while the store cannot be reached: `open` lets them pass uncounted, `closed` answers 503.",
    ),
    Setting("STORE_TIMEOUT", "float", 0.25, SECONDS, "Seconds that a call waits for the store.", ABOVE_0),
    Setting(
        "USAGE_FILE",
        "usage_file",
        None,
        "the path of a file that can be written, or none",
        "File in which usage is kept where there is no store. Unset: `usage.json` beside `.env`.",
    ),
)
