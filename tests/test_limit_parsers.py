"""Text into limits, paces and stores, as tables; and the notation of limits beside the library that it comes from."""

import ipaddress
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import limits
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_api.counting import STRATEGIES, Price, Rate, Usage, parse_rates
from chat_api.limit_parsers import LIMIT_PARSERS, store_name
from chat_api.limit_words import pace_text, rates_json, rates_text
from chat_api.pace import ANY_ROUTE
from chat_api.types import Secret

UNITS = ("second", "minute", "hour", "day", "month", "year")


def by_library(text: str) -> tuple[Rate, ...] | None:
    """The limits that the `limits` library reads; None if it refuses them."""
    try:
        return tuple(Rate(one.amount, one.get_expiry()) for one in limits.parse_many(text))
    except ValueError:
        return None


def by_us(text: str) -> tuple[Rate, ...] | None:
    """The limits that we read."""
    try:
        return parse_rates(text)
    except ValueError:
        return None


numbers = st.integers(1, 999_999).map(str)
spaces = st.sampled_from(["", " ", "  "])
units = st.builds(
    lambda unit, plural, is_loud: (unit + plural).upper() if is_loud else unit + plural,
    st.sampled_from(UNITS),
    st.sampled_from(["", "s"]),
    st.booleans(),
)
singles = st.builds(
    lambda *parts: "".join(parts),
    numbers,
    spaces,
    st.sampled_from(["/", "per", "PER", " per "]),
    spaces,
    st.one_of(st.just(""), numbers),
    spaces,
    units,
)
several = st.builds(
    lambda items, between: between.join(items),
    st.lists(singles, min_size=1, max_size=4),
    st.sampled_from([";", ",", "|", "; ", " , "]),
)


@given(several)
def test_notation_is_that_of_limits(text: str) -> None:
    """What the library reads as limits, we read as the same limits."""
    assert by_us(text) == by_library(text) is not None


@given(st.text("0123456789/;,|pers minutedayhox", max_size=24))
def test_what_limits_refuses_we_refuse(text: str) -> None:
    """Nothing is a limit here that is none there, but for blank and `inf`, which are no limit."""
    if text.strip():
        assert by_us(text) in (None, by_library(text))


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        pytest.param("", (), id="blank"),
        pytest.param(" INF ", (), id="none"),
        pytest.param("1/day", (Rate(1, 86400),), id="one"),
        pytest.param("100/2minutes", (Rate(100, 120),), id="several-units"),
        pytest.param("10 per second; 600/hour", (Rate(10, 1), Rate(600, 3600)), id="two"),
    ],
)
def test_rates(text: str, rates: tuple[Rate, ...]) -> None:
    """Limits are written as people write them."""
    assert parse_rates(text) == rates


@pytest.mark.parametrize(
    "text", ["0/minute", "5/0minutes", "-1/minute", "1.5/minute", "60", "60/", "60/m", "1/day;", ";"]
)
def test_no_rates(text: str) -> None:
    """A limit of nothing, or in nothing, is a slip; so is what has no unit of time."""
    with pytest.raises(ValueError, match="is no limit such as 100/minute"):
        parse_rates(text)


@given(st.lists(st.builds(Rate, st.integers(1, 10**15 - 1), st.integers(1, 10**6)), max_size=3).map(tuple))
def test_limits_are_told_as_they_are_written(rates: tuple[Rate, ...]) -> None:
    """What `check` shows of a limit can be set again."""
    if all(rate.seconds < 10**6 for rate in rates):
        assert parse_rates(rates_text(rates)) == rates


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        pytest.param((), "inf", id="none"),
        pytest.param((Rate(100, 120), Rate(5, 7200)), "100/2minutes;5/2hours", id="two"),
        pytest.param((Rate(1, 30 * 86400), Rate(2, 86400), Rate(3, 360 * 86400)), "1/month;2/day;3/year", id="long"),
        pytest.param((Rate(7, 90),), "7/90seconds", id="odd"),
    ],
)
def test_limits_in_words(rates: tuple[Rate, ...], text: str) -> None:
    """A limit is told in the largest unit that it is a whole number of."""
    assert rates_text(rates) == text


CHAT = "/v1/chat/completions"
GOOD = [
    pytest.param("rates_by_route", "{}", {}, id="routes-none"),
    pytest.param("rates_by_route", f'{{"{CHAT}/": "100/2minutes"}}', {CHAT: (Rate(100, 120),)}, id="route-slash"),
    pytest.param("rates_by_route", '{"/": "1/day", "/a": " inf "}', {"/": (Rate(1, 86400),), "/a": ()}, id="routes"),
    pytest.param("rates_by_route", f'{{"{CHAT}": ""}}', {}, id="route-blank"),
    pytest.param(
        "rates_by_route", '{\n"/a": "60/minute;600/hour"\n}', {"/a": (Rate(60, 60), Rate(600, 3600))}, id="route-lines"
    ),
    pytest.param("rates_by_model", '{"gpt-4o": "500000/minute"}', {"gpt-4o": (Rate(500000, 60),)}, id="models"),
    pytest.param("rates_by_model", '{"a": "inf", "b": ""}', {}, id="models-without-limit"),
    pytest.param("pace_by_route", "60/second", {ANY_ROUTE: Rate(60, 1)}, id="pace-of-all"),
    pytest.param("pace_by_route", "inf", {}, id="pace-none"),
    pytest.param("pace_by_route", "{}", {}, id="pace-of-no-route"),
    pytest.param("pace_by_route", f'{{"{CHAT}": "20/second", "/a": "inf"}}', {CHAT: Rate(20, 1)}, id="paces"),
    *(pytest.param("strategy", strategy.upper(), strategy, id=strategy) for strategy in STRATEGIES),
    pytest.param("store_failure", "OPEN", "open", id="open"),
    pytest.param("store_url", "redis://127.0.0.1:6379/0", Secret("redis://127.0.0.1:6379/0"), id="redis"),
    pytest.param("store_url", "redis://r", Secret("redis://r"), id="redis-without-port"),
    pytest.param("store_url", "rediss://u:p%23@r:1?x=1", Secret("rediss://u:p%23@r:1?x=1"), id="redis-tls"),
    pytest.param("store_url", "VALKEY://[::1]:1/", Secret("redis://[::1]:1/"), id="valkey"),
    pytest.param("store_url", "valkeys://:p@r", Secret("rediss://:p@r"), id="valkey-tls"),
    pytest.param("store_url", "unix:///run/redis.sock?db=1", Secret("unix:///run/redis.sock?db=1"), id="socket"),
    pytest.param("usage_file", "None", False, id="no-file"),
    pytest.param("forwarders", "10.0.0.1, ::1", ("10.0.0.1", "::1"), id="addresses"),
    pytest.param(
        "forwarders", "10.1.2.3/8,fd00::1/8,10.0.0.1/32", ("10.0.0.0/8", "fd00::/8", "10.0.0.1"), id="networks"
    ),
    pytest.param("forwarders", "'10.0.0.1', *", ("*",), id="any"),
]
BAD = [
    pytest.param("rates_by_route", "60/minute", "no JSON", id="routes-text"),
    pytest.param("rates_by_route", '{"/a": "60/minute"', "no JSON", id="routes-open"),
    pytest.param("rates_by_route", f"{'[' * 9999}", "no JSON", id="routes-deep"),
    pytest.param("rates_by_route", '["/a"]', "no JSON object", id="routes-list"),
    pytest.param("rates_by_route", '{"/a": 60}', 'the limit of "/a" is no text', id="route-number"),
    pytest.param("rates_by_route", '{"/a": [{"level": 0, "limit": "1/day"}]}', "is no text", id="route-levels"),
    pytest.param("rates_by_route", '{"/a": {"limit": "1/day"}}', "is no text", id="route-object"),
    pytest.param("rates_by_route", '{"v1/chat": "1/day"}', '"v1/chat" is no path', id="route-without-slash"),
    pytest.param("rates_by_route", '{"*": "1/day"}', '"*" is no path', id="route-any"),
    pytest.param("rates_by_route", '{"/a b": "1/day"}', '"/a b" is no path', id="route-space"),
    pytest.param("rates_by_route", '{"/a?b": "1/day"}', '"/a?b" is no path', id="route-query"),
    pytest.param("rates_by_route", '{"/a": "x"}', '"/a": "x" is no limit such as 100/minute', id="route-limit"),
    pytest.param("rates_by_route", '{"/a": "1/day", "/a": "2/day"}', '"/a" is given twice', id="route-twice"),
    pytest.param("rates_by_route", '{"/a": "1/day", "/a/": "2/day"}', '"/a" is given twice', id="route-twice-slash"),
    pytest.param("rates_by_model", '{"": "1/day"}', "a model without a name", id="model-without-name"),
    pytest.param("rates_by_model", '{"a": "1/day", "a": "1/day"}', '"a" is given twice', id="model-twice"),
    pytest.param("rates_by_model", '{"GPT-4o": "1/day", "gpt-4o": "inf"}', '"gpt-4o" is given twice', id="model-case"),
    pytest.param("rates_by_model", '{"a": "0/day"}', '"a": "0/day" is no limit', id="model-limit"),
    pytest.param("pace_by_route", "60/second;1/day", "several rates; a stream has one pace", id="pace-two"),
    pytest.param("pace_by_route", '{"/a": "60/second;1/day"}', '"/a": several rates', id="pace-of-a-route-two"),
    pytest.param("pace_by_route", "fast", '"fast" is no limit', id="pace-word"),
    pytest.param("strategy", "leaky", "none of them", id="strategy"),
    pytest.param("store_failure", "", "none of them", id="failure"),
    pytest.param("store_url", "127.0.0.1:6379", "no URL that begins with", id="store-without-scheme"),
    pytest.param("store_url", "memcached://r", "no URL that begins with", id="store-scheme"),
    pytest.param("store_url", "redis://", "it names no host", id="store-without-host"),
    pytest.param("store_url", "redis:///0", "it names no host", id="store-database-only"),
    pytest.param("store_url", "redis://r:0", "it names no host", id="store-port-0"),
    pytest.param("store_url", "redis://r:x", "its host or its port is none", id="store-port"),
    pytest.param("store_url", "redis://[r", "its host or its port is none", id="store-brackets"),
    pytest.param("store_url", "redis://r/zero", "its path is no number of a database", id="store-path"),
    pytest.param("store_url", "redis://:a#b@r", "it has a fragment", id="store-hash"),
    pytest.param("store_url", "unix://run/redis.sock", "it names no socket", id="store-socket"),
    pytest.param("usage_file", "/none/usage.json", "no file can be written at /none/usage.json", id="file-nowhere"),
    pytest.param("usage_file", "/", "no file can be written at /", id="file-directory"),
    pytest.param("forwarders", ",", "it lists nothing", id="forwarders-none"),
    pytest.param("forwarders", "localhost", "does not appear to be", id="forwarders-name"),
    pytest.param("forwarders", "*,localhost", "does not appear to be", id="forwarders-any-and-a-name"),
]


@pytest.mark.parametrize(("parser", "text", "value"), GOOD)
def test_good(parser: str, text: str, value: object) -> None:
    """Each setting is written as people write it."""
    assert LIMIT_PARSERS[parser](text) == value


@pytest.mark.parametrize(("parser", "text", "reason"), BAD)
def test_bad(parser: str, text: str, reason: str) -> None:
    """What cannot be used is refused with its reason."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the reason is compared
        LIMIT_PARSERS[parser](text)
    assert reason in str(caught.value)


def test_every_parser_is_in_a_table() -> None:
    """The tables try all parsers; `rates` has a table of its own."""
    assert {str(param.values[0]) for param in (*GOOD, *BAD)} | {"rates"} == set(LIMIT_PARSERS)


def test_file_that_can_be_written(tmp_path: Path) -> None:
    """A file of usage may be there, or is made; its directory is there."""
    (tmp_path / "old.json").touch()
    for name in ("old.json", "new.json"):
        assert LIMIT_PARSERS["usage_file"](str(tmp_path / name)) == tmp_path / name


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:SECRET@r:port",
        "redis://user:SEC/RET@r",
        "redis://user:SEC#RET@r",
        "redis://user:SECRET@r/zero",
        "redis://user:[SECRET]@r",
        "redis://user:SECRET\N{ACCOUNT OF}@r",
        "http://user:SECRET@r",
        "unix://SECRET@run/redis.sock",
    ],
)
def test_password_of_the_store_is_not_repeated(text: str) -> None:
    """Whatever is wrong with the URL of a store, its password is not in the reason."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it does not say is the point
        LIMIT_PARSERS["store_url"](text)
    assert "SEC" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        pytest.param("redis://u:SECRET@r.example.com/", "r.example.com:6379", id="password"),
        pytest.param("rediss://:SECRET@r:1/2?ssl_cert_reqs=none", "r:1/2", id="parameters"),
        pytest.param("redis://[::1]:7000", "[::1]:7000", id="ipv6"),
        pytest.param("unix://u:SECRET@/run/redis%20a.sock?db=1", "/run/redis a.sock", id="socket"),
    ],
)
def test_name_of_the_store(url: str, name: str) -> None:
    """A store is told by where it is, and no more."""
    assert store_name(Secret(url)) == name


@pytest.mark.parametrize("text", ["{}", '{"/a":"100/2minutes","/b":"inf"}'])
def test_limits_by_route_are_told_as_they_are_written(text: str) -> None:
    """What `check` shows of limits by route can be set again."""
    assert rates_json(LIMIT_PARSERS["rates_by_route"](text)) == ("" if text == "{}" else text)


@pytest.mark.parametrize(("text", "told"), [("60/1 seconds", "60/second"), ('{"/a":"2/minute"}', None), ("inf", "")])
def test_paces_are_told_as_they_are_written(text: str, told: str | None) -> None:
    """So can a pace."""
    assert pace_text(LIMIT_PARSERS["pace_by_route"](text)) == (text if told is None else told)


@pytest.mark.parametrize(
    ("price", "usage", "cost"),
    [
        pytest.param(Price(2.5, 10.0, 1.25), Usage(1000, 100), 3500, id="prompt-and-completion"),
        pytest.param(Price(2.5, 10.0, 1.25), Usage(1000, 100, 800), 2500, id="cached"),
        pytest.param(Price(2.5, 10.0, 1.25), Usage(), 0, id="nothing"),
        pytest.param(Price(0.29, 0, 0.29), Usage(50), 15, id="half-up"),
        pytest.param(Price(2.5, 0, 2.5), Usage(1), 3, id="half-of-one-token"),
        pytest.param(Price(0.02, 0, 0.02), Usage(10), 0, id="less-than-half"),
    ],
)
def test_cost(price: Price, usage: Usage, cost: int) -> None:
    """Tokens cost their price per million, in millionths; what is cached has a price of its own."""
    assert price.cost(usage) == cost


@given(
    prompt=st.integers(0, 2_000_000),
    cached=st.integers(0, 2_000_000),
    completion=st.integers(0, 200_000),
    prices=st.lists(st.decimals(0, 1000, places=3), min_size=3, max_size=3),
)
def test_cost_is_exact(prompt: int, cached: int, completion: int, prices: list[Decimal]) -> None:
    """Floats cost nobody a millionth: the sum is that of decimals, half of one rounded up."""
    cached = min(cached, prompt)
    money = (prompt - cached) * prices[0] + completion * prices[1] + cached * prices[2]
    price = Price(float(prices[0]), float(prices[1]), float(prices[2]))

    assert price.cost(Usage(prompt, completion, cached)) == int(money.quantize(Decimal(1), ROUND_HALF_UP))


def test_networks_are_what_uvicorn_takes() -> None:
    """Every item is an address or a network without host bits: uvicorn takes anything else for a name."""
    for item in LIMIT_PARSERS["forwarders"]("10.1.2.3/8, 192.0.2.1/32, fd00::7/64, ::1"):
        assert str(ipaddress.ip_network(item)) in (item, f"{item}/32", f"{item}/128")


def test_what_was_read_is_frozen() -> None:
    """Nobody changes a limit after it was read."""
    for parser, text in (("rates_by_route", '{"/a": "1/day"}'), ("rates_by_model", "{}"), ("pace_by_route", "1/day")):
        read = LIMIT_PARSERS[parser](text)
        with pytest.raises(TypeError):
            read["/b"] = ()
