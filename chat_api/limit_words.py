"""Limits in words: as a `.env` file has them, and as a person is told of them at the start. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from chat_api.counting import Rate
from chat_api.limit_parsers import store_name
from chat_api.pace import ANY_ROUTE
from chat_api.setting_values import Settings

_UNITS = (("year", 31104000), ("month", 2592000), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def rates_text(rates: Sequence[Rate]) -> str:
    """Limits as `parse_rates` reads them: `100/2minutes;600/hour`, `inf` for none."""
    return ";".join(map(_rate_text, rates)) or "inf"


def rates_json(limits: Mapping[str, Sequence[Rate]]) -> str:
    """Limits by route or model as a setting has them; "" for none."""
    return msgspec.json.encode({name: rates_text(rates) for name, rates in limits.items()}).decode() if limits else ""


def pace_text(paces: Mapping[str, Rate]) -> str:
    """TOKEN_RATE_LIMIT as it is written: one rate for all routes, or one for each; "" for none."""
    every = paces.get(ANY_ROUTE)
    return rates_text((every,)) if every else rates_json({route: (pace,) for route, pace in paces.items()})


def limits_line(settings: Settings) -> str | None:
    """What is limited, and where it is counted; None if nothing is."""
    keys = settings.client_keys
    requests = settings.global_rate_limit or any(settings.req_rate_limit.values())
    tokens = settings.caller_token_limit or settings.model_token_limit
    limited = {
        "requests": requests or any(key.requests for key in keys),
        "tokens": tokens or any(any(key.tokens.values()) for key in keys),
        "calls in flight": settings.caller_max_parallel or any(key.max_parallel for key in keys),
        "money": any(key.budget for key in keys),
    }
    what = [name for name, is_so in limited.items() if is_so]
    where = f"in Redis at {store_name(settings.store_url)}" if settings.store_url else "in this process"
    said = []
    if what:
        said.append(f"limited are {' and '.join([', '.join(what[:-1]), what[-1]][len(what) == 1 :])}, counted {where}")
    elif settings.counts_usage:
        said.append(f"usage is counted {where}")
    if settings.token_rate_limit:
        said.append("streams are paced")
    line = "; ".join(said)
    return f"{line[0].upper()}{line[1:]}." if line else None


def lone_counting(settings: Settings, processes: int) -> str | None:
    """What is to be said where several processes serve, and none knows what the others have counted."""
    if processes <= 1 or settings.store_url is not None or not settings.limits_callers:
        return None
    return (
        f"{processes} processes serve, and each counts by itself: callers get up to {processes} times their limits; "
        "STORE_URL has them count together"
    )


def process_count(environ: Mapping[str, str], workers: int = 1) -> int:
    """How many processes there are at least: our own workers, or as many as PM2 has numbered."""
    number = environ.get("NODE_APP_INSTANCE", "")
    return max(workers, int(number) + 1 if number.isdecimal() and len(number) < 5 else 1)


def _rate_text(rate: Rate) -> str:
    unit, seconds = next((unit, seconds) for unit, seconds in _UNITS if rate.seconds % seconds == 0)
    times = rate.seconds // seconds
    return f"{rate.limit}/{unit}" if times == 1 else f"{rate.limit}/{times}{unit}s"
