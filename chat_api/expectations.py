"""How many tokens the next call of a model may take, learned from those before it. Pure.

What is expected is the average and twice the usual distance from it (`off`): fewer than one call in twenty
is more, and what is too much is given back when the answer has ended.
"""

import math

from chat_api.counting import Usage
from chat_api.tokens import CHARS_PER_TOKEN

FIRST_GUESS = 500  # tokens of an answer, while none has been seen
FIRST_DENSITY = 2.0  # times as many tokens as a prompt's size lets expect: there are languages, and codes
WEIGHT = 0.1  # of the last call in what is expected of the next
MAX_LEARNED = 1000  # models


class Expectation:
    """What is expected of one model: of answers in tokens, of prompts in tokens for each that their size says."""

    __slots__ = ("_answer", "_answer_off", "_density", "_density_off", "_knows_answers", "_knows_prompts")

    def __init__(self) -> None:
        self._answer, self._answer_off = float(FIRST_GUESS), 0.0
        self._density, self._density_off = FIRST_DENSITY, 0.0
        self._knows_answers = self._knows_prompts = False

    def of_prompt(self, about: int) -> int:
        """How many tokens a prompt may be that is `about` so many by its size."""
        density = self._density + 2 * self._density_off
        if density < 1:
            return about
        return int(about * density) if density < CHARS_PER_TOKEN else about * CHARS_PER_TOKEN

    def usual_prompt(self, about: int) -> int:
        """How many tokens such a prompt mostly is; what its size lets expect while nothing is known."""
        return math.ceil(about * self._density) if self._knows_prompts else about

    def of_answer(self) -> int:
        """How many tokens an answer may have."""
        return math.ceil(self._answer + 2 * self._answer_off) or 1

    def note(self, about: int, usage: Usage, choices: int) -> None:
        """A call was this: of a prompt that was `about` so many tokens by its size, over so many choices."""
        off = usage.completion // choices - self._answer
        if self._knows_answers:
            self._answer += WEIGHT * off
            self._answer_off += WEIGHT * ((off if off > 0 else -off) - self._answer_off)
        else:
            self._answer, self._knows_answers = self._answer + off, True
            self._answer_off = self._answer / 2
        if not about:
            return
        density = usage.prompt / about
        if (
            density > CHARS_PER_TOKEN
        ):  # no byte is more than a token: what is beyond was not in the call, but referred to
            density = CHARS_PER_TOKEN
        if self._knows_prompts:
            off = density - self._density
            self._density += WEIGHT * off
            self._density_off += WEIGHT * ((off if off > 0 else -off) - self._density_off)
        else:
            self._density, self._density_off, self._knows_prompts = density, density / 2, True


class Expectations:
    """What is expected of each model; of those that callers make up, the last ones."""

    def __init__(self) -> None:
        self._of_model: dict[str, Expectation] = {}

    def of(self, model: str) -> Expectation:
        """What is expected of a model, and learns from its calls."""
        known = self._of_model.get(model)
        if known is None:
            if len(self._of_model) >= MAX_LEARNED:
                del self._of_model[next(iter(self._of_model))]
            known = self._of_model[model] = Expectation()
        return known
