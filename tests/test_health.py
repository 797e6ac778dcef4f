from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api.health import (
    AVAILABLE,
    COOLING_DOWN,
    EJECTED,
    FIRST_EJECTION_SECONDS,
    FULL,
    HALF_OPEN,
    JITTER,
    LEAST_COOL_DOWN_SECONDS,
    LEAST_SHARE,
    LOOK_SECONDS,
    LOW_QUOTA,
    MAX_EJECTION_SECONDS,
    MAX_SLOW,
    PROBE_PATIENCE_SECONDS,
    STRIKES,
    Health,
)
from chat_api.types import Attempt, Deployment, Headers, Secret

D = Deployment("d", "https://d.openai.azure.com", "2024-10-21", Secret("key"))
START = 1000.0


class Longest(Random):
    """Ejections without jitter."""

    def uniform(self, a: float, b: float) -> float:
        """The most of it."""
        return b


RNG = Longest()


def fail(
    health: Health,
    now: float,
    *,
    began: float | None = None,
    at_least: float = 0.0,
    rng: Random = RNG,
    is_sporadic: bool = False,
) -> float:
    """A call that fails, begun at `began`; how long the ejection is then, less than 0 without one."""
    attempt = health.begin(now if began is None else began)
    health.release(attempt)
    health.fail(attempt, now, rng, at_least=at_least, is_sporadic=is_sporadic)
    return health.ejected_until - now


def answer(health: Health, now: float) -> bool:
    """A call that is answered at once; whether that closes the breaker."""
    attempt = health.begin(now)
    health.release(attempt)
    return health.answered(attempt)


def ejected() -> Health:
    """A deployment that has failed at START, and is half-open a second later."""
    health = Health(D)
    assert fail(health, START) == FIRST_EJECTION_SECONDS
    return health


def test_new() -> None:
    """A deployment of which nothing is known takes calls."""
    health = Health(D)
    assert (health.state(0.0), health.is_available(0.0), health.in_flight) == (AVAILABLE, True, 0)


# Cool-down.


def test_cool_down() -> None:
    """A 429 leaves the deployment alone for as long as it asks, to the moment; then it is available, not half-open."""
    health = Health(D)
    attempt = health.begin(START)
    health.cool_down(attempt, 5.0, START)
    health.release(attempt)
    assert (health.state(START + 4.99), health.is_available(START + 4.99)) == (COOLING_DOWN, False)
    assert (health.state(START + 5.0), health.is_available(START + 5.0)) == (AVAILABLE, True)
    assert (health.throttled, health.failures) == (1, 0)


def test_cool_down_is_not_shortened() -> None:
    """A later 429 that asks for less does not shorten the wait, one that asks for more makes it longer."""
    health = Health(D)
    for seconds, until in ((10.0, 10.0), (1.0, 10.0), (20.0, 20.0)):
        health.cool_down(health.begin(START), seconds, START)
        assert health.cooled_until == START + until


@pytest.mark.parametrize("seconds", [0.0, 0.017, 0.1])
def test_least_cool_down(seconds: float) -> None:
    """A 429 that asks for nothing, or next to nothing, is a short rest all the same: the next call goes elsewhere."""
    health = Health(D)
    health.cool_down(health.begin(START), seconds, START)
    assert health.state(START + LEAST_COOL_DOWN_SECONDS * 0.99) == COOLING_DOWN
    assert health.state(START + LEAST_COOL_DOWN_SECONDS) == AVAILABLE


def test_answer_does_not_end_a_cool_down() -> None:
    """An answer of a call that was under way leaves the cool-down as it is."""
    health = Health(D)
    under_way = health.begin(START)
    health.cool_down(health.begin(START), 5.0, START)
    health.answered(under_way)
    assert health.state(START + 1) == COOLING_DOWN


def test_429_closes_the_breaker() -> None:
    """A probe that is throttled has been answered: the breaker is closed, and only the cool-down counts."""
    health = ejected()
    probe = health.begin(START + 1)
    health.cool_down(probe, 5.0, START + 1)
    health.release(probe)
    assert health.ejected_until == 0
    assert health.state(START + 6) == AVAILABLE


# Ejections.


def test_ejection() -> None:
    """A failure ejects the deployment; after a second it is half-open."""
    health = ejected()
    assert (health.state(START + 0.99), health.is_available(START + 0.99)) == (EJECTED, False)
    assert (health.state(START + 1), health.is_available(START + 1)) == (HALF_OPEN, True)


def test_ejections_grow_to_a_cap() -> None:
    """Each failure of a probe doubles the ejection, up to a minute."""
    health = Health(D)
    now, lengths = START, []
    for _ in range(9):
        lengths.append(fail(health, now))
        now = health.ejected_until
    assert MAX_EJECTION_SECONDS == 60
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_ejection_cap_holds_for_ever() -> None:
    """A deployment that is dead for days is tried every minute, whatever the count of its ejections."""
    health = Health(D)
    now = START
    for _ in range(2000):
        fail(health, now)
        now = health.ejected_until
    assert fail(health, now) == MAX_EJECTION_SECONDS


@pytest.mark.parametrize(
    ("later", "length"),
    [
        pytest.param(1.0, 2.0, id="at-once"),
        pytest.param(1.99, 2.0, id="within-as-long-again"),
        pytest.param(2.0, 1.0, id="after-that"),
        pytest.param(1000.0, 1.0, id="long-after"),
    ],
)
def test_relapse(later: float, length: float) -> None:
    """A failure within as long again as it was ejected is a relapse; after a longer good time it begins anew."""
    health = ejected()
    assert answer(health, START + 1)
    assert fail(health, START + later) == length


@pytest.mark.parametrize(
    ("begun", "lasts"),
    [
        pytest.param(1.0, 10.0, id="probe-times-out"),
        pytest.param(20.0, 0.0, id="probe-comes-late"),
    ],
)
def test_failed_probe_is_a_relapse(begun: float, lasts: float) -> None:
    """A probe that fails is one more failure in the row, however late it came and however long it took."""
    health = ejected()
    assert fail(health, START + begun + lasts, began=START + begun) == 2 * FIRST_EJECTION_SECONDS


@pytest.mark.parametrize("ejections", [1, 2, 4, 7, 12])
def test_jitter(ejections: int) -> None:
    """An ejection is up to a fifth shorter than its full length, never longer."""
    lengths = []
    for seed in range(300):
        health, now, rng = Health(D), START, Random(seed)
        for _ in range(ejections):
            length = fail(health, now, rng=rng)
            now = health.ejected_until
        lengths.append(length)
    full = min(FIRST_EJECTION_SECONDS * 2 ** (ejections - 1), MAX_EJECTION_SECONDS)
    assert full * (1 - JITTER) - 1e-9 <= min(lengths) < full * (1 - 0.9 * JITTER)
    assert full * (1 - 0.1 * JITTER) < max(lengths) <= full + 1e-9


@pytest.mark.parametrize(
    ("asked", "length"), [pytest.param(30.0, 30.0, id="longer"), pytest.param(0.5, 1.0, id="shorter")]
)
def test_ejection_that_is_asked_for(asked: float, length: float) -> None:
    """A 503 that asks to wait longer than the ejection would be gets that."""
    assert fail(Health(D), START, at_least=asked) == length


def test_concurrent_failures_count_once() -> None:
    """A hundred calls under way that break together are one failure to the breaker, and a hundred to the count."""
    health = Health(D)
    calls = [health.begin(START + place / 1000) for place in range(100)]
    for place, attempt in enumerate(calls):
        health.release(attempt)
        health.fail(attempt, START + 1 + place / 1000, RNG)
    assert health.ejected_until == START + 1 + FIRST_EJECTION_SECONDS
    assert health.failures == 100
    assert fail(health, START + 2) == 2 * FIRST_EJECTION_SECONDS


def test_failures_within_a_clock_tick_count_once() -> None:
    """Calls that begin and break at the same reading of the clock are one failure."""
    health = Health(D)
    calls = [health.begin(START) for _ in range(100)]
    for attempt in calls:
        health.fail(attempt, START, RNG)
    assert health.ejected_until == START + FIRST_EJECTION_SECONDS


def test_failure_of_the_same_clock_tick_is_of_better_days() -> None:
    """A call that began at the very reading of the clock at which another failed says nothing, even much later."""
    health = Health(D)
    first, second = health.begin(START), health.begin(START)
    health.fail(first, START, RNG)
    assert answer(health, START + 1)
    health.fail(second, START + 1.5, RNG)
    assert health.state(START + 1.5) == AVAILABLE


@pytest.mark.parametrize("later", [0.1, 0.5, 0.99])
def test_what_begins_within_an_ejection_says_nothing_new(later: float) -> None:
    """Where all are down the least bad is asked out of turn: that it fails does not make its ejection longer."""
    health = ejected()
    for place in range(50):
        fail(health, START + later + place / 10, began=START + later)
    assert health.ejected_until == START + FIRST_EJECTION_SECONDS
    assert fail(health, START + 10) == 2 * FIRST_EJECTION_SECONDS


def test_outage_of_all_is_no_long_ejection() -> None:
    """Fifty failed calls a second for a minute are as many ejections as there were probes, and no more."""
    health, lengths = Health(D), []
    for step in range(60 * 50):
        now = START + step / 50
        before = health.ejected_until
        fail(health, now)
        if health.ejected_until != before:
            lengths.append(health.ejected_until - now)
    assert lengths == [1, 2, 4, 8, 16, 32]


# Failures that happen to those who are well.


def test_strikes() -> None:
    """Of failures that happen now and then one says nothing, two in a row eject."""
    assert STRIKES == 2
    health = Health(D)
    assert fail(health, START, is_sporadic=True) < 0
    assert (health.state(START), health.failures) == (AVAILABLE, 1)
    assert fail(health, START + 1, is_sporadic=True) == FIRST_EJECTION_SECONDS


@pytest.mark.parametrize("throttled", [False, True], ids=["answer", "429"])
def test_answer_between_strikes(throttled: bool) -> None:
    """Each answer between makes the one before it harmless, be it a 429."""
    health = Health(D)
    for now in range(20):
        assert fail(health, START + now, is_sporadic=True) < 0
        if throttled:
            health.cool_down(health.begin(START + now), 0.1, START + now)
        else:
            answer(health, START + now)
    assert health.failures == 20


@pytest.mark.parametrize("first", [False, True], ids=["sound", "after-a-strike"])
def test_what_is_not_sporadic_ejects_at_once(first: bool) -> None:
    """A refused connection does not wait for a second one."""
    health = Health(D)
    if first:
        fail(health, START, is_sporadic=True)
    assert fail(health, START + 1) == FIRST_EJECTION_SECONDS


def test_probe_has_one_strike() -> None:
    """A probe that fails as it happens now and then is a failure: the breaker is not closed yet."""
    health = ejected()
    assert fail(health, START + 1, is_sporadic=True) == 2 * FIRST_EJECTION_SECONDS


def test_strikes_begin_anew() -> None:
    """A strike from before the ejection does not count after it."""
    health = Health(D)
    under_way = health.begin(START - 1)
    fail(health, START)
    health.fail(under_way, START + 0.5, RNG, is_sporadic=True)
    assert answer(health, START + 1)
    assert fail(health, START + 20, is_sporadic=True) < 0


# Half-open.


def test_next_probe_does_not_wait_for_ever() -> None:
    """A probe that takes its time lets another call through after a while, which is the probe then; both may answer."""
    health = ejected()
    first = health.begin(START + 1)
    later = START + 1 + PROBE_PATIENCE_SECONDS
    assert health.is_available(later)
    second = health.begin(later)
    assert not health.is_available(later)
    health.release(first)  # its end frees nothing that is the second's
    assert not health.is_available(later)
    assert health.is_available(later + PROBE_PATIENCE_SECONDS)
    assert health.answered(first)
    assert health.is_available(later)
    assert not health.answered(second)


def test_one_probe() -> None:
    """Half-open, exactly one call is let through, until it is over."""
    health = ejected()
    now = START + 1
    probe = health.begin(now)
    assert [health.is_available(now + later) for later in (0, 1, PROBE_PATIENCE_SECONDS - 0.01)] == [False] * 3
    assert health.state(now) == HALF_OPEN
    health.release(probe)
    assert health.is_available(now)


def test_answered_probe_closes_the_breaker() -> None:
    """The probe's answer closes the breaker, which is told once."""
    health = ejected()
    probe = health.begin(START + 1)
    assert health.answered(probe)
    assert not health.answered(probe)
    health.release(probe)
    assert (health.state(START + 1), health.is_available(START + 1)) == (AVAILABLE, True)


def test_stream_of_a_probe_goes_on() -> None:
    """Once a probe is answered the deployment takes calls, though the probe's stream is still being read."""
    health = ejected()
    health.answered(health.begin(START + 1))
    assert health.is_available(START + 1)


def test_stream_of_an_old_probe_does_not_hold_up_the_next() -> None:
    """A stream that began as a probe is none to the next ejection, though it is read still."""
    health = ejected()
    health.answered(health.begin(START + 1))  # its stream is read for minutes
    assert fail(health, START + 1.5) == 2 * FIRST_EJECTION_SECONDS
    assert health.state(START + 3.5) == HALF_OPEN
    assert health.is_available(START + 3.5)


def test_probe_whose_client_leaves() -> None:
    """A probe that nobody waits for any more frees its place, and blames nobody: the next call is the probe."""
    health = ejected()
    before = (health.ejected_until, health.failures)
    health.release(health.begin(START + 1))
    assert (health.ejected_until, health.failures) == before
    assert (health.state(START + 1), health.is_available(START + 1)) == (HALF_OPEN, True)
    assert health.answered(health.begin(START + 1))


def test_other_calls_do_not_free_the_probe() -> None:
    """A call that was under way before the ejection ends without freeing the probe's place."""
    health = Health(D)
    under_way = health.begin(START - 1)
    fail(health, START)
    health.begin(START + 1)
    health.release(under_way)
    assert not health.is_available(START + 1)


def test_answers_of_better_days() -> None:
    """The answer of a call that had begun before the ejection does not close the breaker."""
    health = Health(D)
    under_way = health.begin(START - 1)
    fail(health, START)
    assert not health.answered(under_way)
    assert health.state(START + 0.5) == EJECTED


def test_failures_of_better_days() -> None:
    """The failure of a call that had begun before the ejection does not prolong it."""
    health = Health(D)
    under_way = health.begin(START - 1)
    fail(health, START)
    until = health.ejected_until
    health.fail(under_way, START + 0.9, RNG)
    assert (health.ejected_until, health.failures) == (until, 2)


@pytest.mark.parametrize("now", [0.0, 0.5, 0.99])
def test_may_be_back(now: float) -> None:
    """When others are back that had failed with it, it is tried at once, whatever is left of its ejection."""
    health = ejected()
    health.may_be_back(START + now)
    assert (health.state(START + now), health.is_available(START + now)) == (HALF_OPEN, True)
    assert answer(health, START + now + 0.01)


def test_may_be_back_and_is_not() -> None:
    """If it is not back that is a relapse; what began before it might have been says nothing."""
    health = ejected()
    out_of_turn = health.begin(START + 0.2)
    health.may_be_back(START + 0.5)
    health.fail(out_of_turn, START + 0.6, RNG)
    assert health.state(START + 0.6) == HALF_OPEN
    assert fail(health, START + 0.7) == 2 * FIRST_EJECTION_SECONDS


def test_may_be_back_is_not_for_others() -> None:
    """One that has not failed stays as it is, one that is half-open too, and a cool-down goes on."""
    sound, half_open, cooled = Health(D), ejected(), Health(D)
    cooled.cool_down(cooled.begin(START), 5.0, START)
    for one in (sound, half_open, cooled):
        one.may_be_back(START + 2)
    assert [one.state(START + 2) for one in (sound, half_open, cooled)] == [AVAILABLE, HALF_OPEN, COOLING_DOWN]
    assert half_open.ejected_until == START + 1


# Calls in flight.


def test_full() -> None:
    """A deployment has no more calls at a time than it may."""
    health = Health(replace(D, max_in_flight=2))
    first = health.begin(START)
    assert (health.is_full, health.is_available(START)) == (False, True)
    health.begin(START)
    assert (health.is_full, health.state(START), health.is_available(START)) == (True, FULL, False)
    health.release(first)
    assert (health.is_full, health.state(START), health.is_available(START)) == (False, AVAILABLE, True)


def test_unlimited() -> None:
    """Without a limit it is never full."""
    health = Health(D)
    for _ in range(10_000):
        health.begin(START)
    assert not health.is_full


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("banfcsr"), st.floats(0, 100), st.integers(0, 50)), max_size=60))
def test_any_history(steps: list[tuple[str, float, int]]) -> None:
    """Whatever happens, calls in flight are those begun and not ended, one probe is out at most, and all comes back."""
    health, now, rng = Health(replace(D, max_in_flight=40)), START, Random(1)
    open_calls: list[Attempt] = []
    for what, later, which in steps:
        now += later
        if what == "b":
            if not health.is_available(now):
                continue
            was_half_open = health.state(now) == HALF_OPEN
            open_calls.append(health.begin(now))
            assert not (was_half_open and health.is_available(now))
        elif open_calls:
            attempt = open_calls.pop(which % len(open_calls))
            health.release(attempt)
            if what in "an":
                health.answered(attempt)
            elif what == "f":
                health.fail(attempt, now, rng)
            elif what == "c":
                health.cool_down(attempt, later, now)
            elif what == "s":
                health.was_slower(attempt, now, rng)
        assert health.in_flight == len(open_calls) >= 0
        assert health.ejected_until <= now + MAX_EJECTION_SECONDS
    for attempt in open_calls:
        health.release(attempt)
    assert health.in_flight == 0
    assert health.is_available(now + 1000)


# Quota.


def quota(left: int, limit: int = 100, *, reset: bytes = b"30") -> Headers:
    """What an answer says is left of the tokens a minute."""
    return (
        (b"x-ratelimit-remaining-tokens", b"%d" % left),
        (b"x-ratelimit-limit-tokens", b"%d" % limit),
        (b"x-ratelimit-reset-tokens", reset),
    )


@pytest.mark.parametrize(
    ("left", "part"),
    [
        pytest.param(100, 1.0, id="all"),
        pytest.param(40, 1.0, id="two-fifths"),
        pytest.param(20, 1.0, id="a-fifth"),
        pytest.param(10, 0.5, id="a-tenth"),
        pytest.param(2, 0.1, id="two"),
        pytest.param(1, LEAST_SHARE, id="one"),
        pytest.param(0, LEAST_SHARE, id="nothing"),
    ],
)
def test_share(left: int, part: float) -> None:
    """With less than a fifth of the quota left the share goes down with it, to a twentieth."""
    assert LOW_QUOTA == 0.2
    health = Health(D)
    health.told = (quota(left), START)
    assert health.share(START) == pytest.approx(part)


def test_share_of_one_that_told_nothing() -> None:
    """Of one that told nothing it is whole."""
    assert Health(D).share(START) == 1.0


def test_share_is_looked_at_now_and_then() -> None:
    """What is left is read a few times a second, whatever comes between: it is a matter of minutes."""
    health = Health(D)
    health.told = (quota(10), START)
    assert health.share(START) == 0.5
    health.told = (quota(2), START)
    looked = [health.share(START + later) for later in (0.0, LOOK_SECONDS * 0.9, LOOK_SECONDS, 10.0)]
    assert looked == pytest.approx([0.5, 0.5, 0.1, 0.1])
    assert LOOK_SECONDS <= 1


def test_quota_expires() -> None:
    """A low quota counts until it is reset, and a later answer replaces it."""
    health = Health(D)
    health.told = (quota(0, reset=b"30"), START)
    assert [health.share(START + later) for later in (0, 29.7, 30)] == [LEAST_SHARE, LEAST_SHARE, 1.0]
    health.told = (quota(10), START + 31)
    assert health.share(START + 31) == 0.5


@pytest.mark.parametrize(("later", "part"), [(29.9, LEAST_SHARE), (30.0, 1.0), (3600.0, 1.0)])
def test_quota_ends_though_nobody_has_looked(later: float, part: float) -> None:
    """A quota's time is that of the answer that told of it, not of the first look: an hour later it says nothing."""
    health = Health(D)
    health.told = (quota(0, reset=b"30"), START)
    assert health.share(START + later) == part


def test_quota_expires_after_a_minute() -> None:
    """A reset that is far off counts for a minute: by then more is left."""
    health = Health(D)
    health.told = (quota(0, reset=b"86400"), START)
    assert [health.share(START + later) for later in (0, 59.7, 60)] == [LEAST_SHARE, LEAST_SHARE, 1.0]


def test_answer_without_a_quota() -> None:
    """An answer that says nothing of a quota leaves the share whole."""
    health = Health(D)
    health.told = (quota(0), START)
    health.share(START)
    health.told = (((b"content-type", b"application/json"),), START)
    assert health.share(START + LOOK_SECONDS) == 1.0


# Hedges.


def test_slower_again_and_again() -> None:
    """A deployment that loses hedges in a row fails at the fourth, and then begins to count anew."""
    health = Health(D)
    for count in range(MAX_SLOW + 1):
        assert health.ejected_until == 0, count
        health.was_slower(health.begin(START + count), START + count, RNG)
    assert health.ejected_until == START + MAX_SLOW + FIRST_EJECTION_SECONDS
    health.answered(health.begin(START + 10))
    health.was_slower(health.begin(START + 11), START + 11, RNG)
    assert health.ejected_until == 0


def test_slower_now_and_then() -> None:
    """An answer between lost hedges makes them harmless."""
    health = Health(D)
    for count in range(20):
        health.was_slower(health.begin(START + count), START + count, RNG)
        if count % MAX_SLOW == MAX_SLOW - 1:
            answer(health, START + count)
    assert (health.ejected_until, health.failures) == (0, 0)


def test_slower_again_while_it_is_tried() -> None:
    """A probe that loses a hedge has failed: who hangs is not tried four times after each ejection."""
    health = ejected()
    health.was_slower(health.begin(START + 1), START + 3, RNG)
    assert health.ejected_until == START + 3 + 2 * FIRST_EJECTION_SECONDS


# What is told.


@pytest.mark.parametrize(
    ("cooled", "ejected_for", "seconds"),
    [
        pytest.param(0.0, 0.0, 0.0, id="available"),
        pytest.param(5.0, 0.0, 5.0, id="cooling-down"),
        pytest.param(0.0, 7.0, 7.0, id="ejected"),
        pytest.param(9.0, 7.0, 9.0, id="both"),
        pytest.param(-5.0, -7.0, 0.0, id="over"),
    ],
)
def test_wait(cooled: float, ejected_for: float, seconds: float) -> None:
    """The wait is until it neither throttles nor is ejected."""
    health = Health(D)
    health.cooled_until = START + cooled if cooled else 0.0
    health.ejected_until = START + ejected_for if ejected_for else 0.0
    assert health.wait_seconds(START) == seconds


def test_known() -> None:
    """A deployment is known that has answered well, throttled or failed, unless all it said is that it is not there."""
    new, well, throttled, failed, missing, gone = (Health(D) for _ in range(6))
    for one in (well, gone):
        one.told = (quota(9), START)
    throttled.cool_down(throttled.begin(START), 1.0, START)
    throttled.note(0.0, "429")
    for one, words in ((failed, "500"), (missing, "404"), (gone, "404")):
        fail(one, START)
        one.note(0.0, words)
    assert [one.is_known for one in (new, well, throttled, failed, missing, gone)] == [
        False,
        True,
        True,
        True,
        False,
        True,
    ]
    assert [one.is_missing for one in (new, well, throttled, failed, missing, gone)] == [False] * 4 + [True] * 2


@pytest.mark.parametrize(
    ("cooled", "ejected_for", "is_full", "state"),
    [
        pytest.param(0, 0, False, AVAILABLE, id="available"),
        pytest.param(0, 0, True, FULL, id="full"),
        pytest.param(5, 0, False, COOLING_DOWN, id="cooling-down"),
        pytest.param(5, 0, True, COOLING_DOWN, id="cooling-down-and-full"),
        pytest.param(0, 5, False, EJECTED, id="ejected"),
        pytest.param(0, 5, True, EJECTED, id="ejected-and-full"),
        pytest.param(5, 9, False, COOLING_DOWN, id="cooling-down-and-ejected"),
        pytest.param(0, -5, False, HALF_OPEN, id="half-open"),
        pytest.param(0, -5, True, FULL, id="half-open-and-full"),
        pytest.param(-5, 0, False, AVAILABLE, id="was-cooled-down"),
    ],
)
def test_state(cooled: float, ejected_for: float, is_full: bool, state: str) -> None:
    """Of several reasons the pause is told, then that it is full; what is neither takes calls."""
    health = Health(replace(D, max_in_flight=1))
    if is_full:
        health.begin(START)
    health.cooled_until = START + cooled if cooled else 0.0
    health.ejected_until = START + ejected_for if ejected_for else 0.0
    assert health.state(START) == state
    assert health.is_available(START) == (state in (AVAILABLE, HALF_OPEN))


def test_counts() -> None:
    """It counts calls, failures and 429s, and keeps the last thing that went wrong."""
    health = Health(D)
    answer(health, START)
    health.cool_down(health.begin(START), 1.0, START)
    fail(health, START + 2)
    health.note(1.5, "500")
    health.note(2.5, "upstream_closed")
    assert (health.calls, health.failures, health.throttled) == (3, 1, 1)
    assert health.last_error == (2.5, "upstream_closed")
