"""How many tokens the next call of a model may take, by what those before it took."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_api.counting import Usage
from chat_api.expectations import FIRST_DENSITY, FIRST_GUESS, MAX_LEARNED, Expectation, Expectations
from chat_api.tokens import CHARS_PER_TOKEN


def learned(*seen: int) -> int:
    """How many tokens an answer may have after these."""
    expectation = Expectation()
    for one in seen:
        expectation.note(0, Usage(0, one), 1)
    return expectation.of_answer()


def test_average_is_learned() -> None:
    """What is expected comes to what is seen, and a little more."""
    assert 100 <= learned(*[100] * 200) <= 101
    assert learned(1000) == 2000


def test_first_is_doubted() -> None:
    """After one twice of it is expected: nobody knows how far the next one is from it."""
    assert learned(300) == 600


def test_what_varies() -> None:
    """Where calls vary, what is expected is more than nearly all of them are."""
    assert 180 <= learned(*[150, 50] * 200) <= 210


def test_more_is_noticed() -> None:
    """When calls become larger, so does what is expected, within a few of them."""
    assert learned(*[10] * 100, *[1000] * 10) > 1000


def test_expectations_are_bounded() -> None:
    """Callers make up names of models; the oldest are forgotten, and what is noted again is no new one."""
    expectations = Expectations()
    names = [str(number) for number in range(MAX_LEARNED)]
    for name in [*names, "0"]:
        expectations.of(name).note(1, Usage(1, 10), 1)
    assert all(expectations.of(name).of_answer() < FIRST_GUESS for name in names)
    expectations.of("new").note(1, Usage(1, 10), 1)
    assert expectations.of("0").of_answer() == FIRST_GUESS


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_expectation_is_sane(seen: list[int]) -> None:
    """Whatever was seen, what is expected is a token at least, and no more than three times the largest."""
    assert 1 <= learned(*seen) <= 3 * max(seen) + 1


def expecting(*calls: tuple[int, Usage, int], times: int = 1) -> Expectation:
    """What is expected after these calls: their prompts by size, what they took, and their choices."""
    expectation = Expectation()
    for _ in range(times):
        for about, usage, choices in calls:
            expectation.note(about, usage, choices)
    return expectation


@pytest.mark.parametrize(
    ("calls", "times", "about", "expected"),
    [
        pytest.param([], 1, 100, int(100 * FIRST_DENSITY), id="first-guess"),
        pytest.param([], 1, 0, 0, id="first-guess-of-nothing"),
        pytest.param([(100, Usage(100), 1)], 1, 100, 200, id="the-first-is-doubted"),
        pytest.param([(100, Usage(150), 1)], 200, 1000, 1500, id="learned"),
        pytest.param([(100, Usage(100), 1), (100, Usage(200), 1)], 200, 100, 257, id="learned-with-a-margin"),
        pytest.param([(100, Usage(150), 1)], 200, 0, 0, id="learned-of-nothing"),
        pytest.param([(100, Usage(20), 1)], 200, 100, 100, id="never-less-than-its-size"),
        pytest.param([(100, Usage(), 1)], 200, 100, 100, id="never-less-where-prompts-took-nothing"),
        pytest.param([(100, Usage(380), 1)], 1, 100, 100 * CHARS_PER_TOKEN, id="never-more-than-its-bytes"),
        pytest.param([(0, Usage(50), 1)], 200, 100, int(100 * FIRST_DENSITY), id="nothing-teaches-nothing"),
        pytest.param([(100, Usage(150, 90), 3)], 200, 100, 150, id="whatever-the-choices"),
    ],
)
def test_expected_prompt(calls: list[tuple[int, Usage, int]], times: int, about: int, expected: int) -> None:
    """A prompt may be what others turned out to be: no less than its size says, and no more than its bytes."""
    assert expecting(*calls, times=times).of_prompt(about) == expected


@pytest.mark.parametrize(
    ("calls", "times", "expected"),
    [
        pytest.param([], 1, FIRST_GUESS, id="first-guess"),
        pytest.param([(10, Usage(10, 300), 1)], 1, 600, id="the-first-is-doubted"),
        pytest.param([(10, Usage(10, 20), 1)], 200, 21, id="learned"),
        pytest.param([(10, Usage(10, 80), 4)], 200, 21, id="of-each-choice"),
        pytest.param([(0, Usage(0, 20), 1)], 200, 21, id="whatever-the-prompt"),
        pytest.param([(10, Usage(10), 1)], 200, 1, id="a-token-at-least"),
    ],
)
def test_expected_answer(calls: list[tuple[int, Usage, int]], times: int, expected: int) -> None:
    """An answer may be what each choice of those before took, and a little more."""
    assert expecting(*calls, times=times).of_answer() == expected


def test_models_are_learned_apart() -> None:
    """What one model took is not expected of another."""
    expectations = Expectations()
    expectations.of("m").note(100, Usage(100, 20), 1)
    other = expectations.of("n")
    assert (other.of_prompt(100), other.of_answer()) == (100 * FIRST_DENSITY, FIRST_GUESS)
    assert expectations.of("m").of_answer() == 40


def test_what_a_call_refers_to_is_soon_forgotten() -> None:
    """A prompt that goes on from an earlier answer takes more than its bytes: what those say counts again soon."""
    expectation = expecting((10, Usage(100_000), 1))
    for _ in range(40):
        expectation.note(10, Usage(10), 1)
    assert expectation.of_prompt(100) < 100 * FIRST_DENSITY


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**9)), max_size=50), st.integers(0, 10**6))
def test_expected_prompt_is_sane(seen: list[tuple[int, int]], about: int) -> None:
    """Whatever prompts took, of the next one no less is expected than its size says, and no more than its bytes."""
    expectation = expecting(*[(size, Usage(took), 1) for size, took in seen])
    assert about <= expectation.of_prompt(about) <= CHARS_PER_TOKEN * about


@pytest.mark.parametrize(
    ("seen", "usual"),
    [
        pytest.param([], 100, id="nothing-known"),
        pytest.param([300], 300, id="denser"),
        pytest.param([30], 30, id="looser"),
        pytest.param([1000], 400, id="no-more-than-its-bytes"),
    ],
)
def test_prompt_that_nobody_told_of_is_what_others_were(seen: list[int], usual: int) -> None:
    """A prompt whose tokens nobody told counts what such prompts were on average, and by its size before that."""
    expectation = Expectation()
    for prompt in seen:
        expectation.note(100, Usage(prompt, 1), 1)

    assert expectation.usual_prompt(100) == usual
