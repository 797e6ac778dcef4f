"""How many calls may be made twice: so few that an outage is not multiplied. Pure; `now` is an argument."""

SHARE = 0.2  # retries and hedges to calls, over the window
OPEN_SHARE = 0.5  # the same to the most calls that were under way at a time: there are few others where each takes long
COMING = 2  # retries that a call under way may still take: its own, and another's at the same moment
LEAST = 10  # in a window of hardly any calls
WINDOW_SECONDS = 60
BUCKET_SECONDS = 5


class RetryBudget:
    """Counts calls, and gives leave to make some of them again.

    Over the last minute (to five seconds more) these are a fifth of the calls; or half of the most that were under
    way at a time, which is what one region of two has of them when it goes; or ten.

    Attributes:
        calls, retries: those of that time.
        open: calls that have no answer yet.
    """

    def __init__(self) -> None:
        count = WINDOW_SECONDS // BUCKET_SECONDS + 1
        # A ring of five seconds each: calls, retries, and the most calls under way.
        self._buckets = [[0, 0, 0] for _ in range(count)]
        self.open = 0
        self._at = 0  # the bucket that is being filled, counted from the beginning of time
        self.calls = 0
        self.retries = 0

    def begin(self, now: float) -> None:
        """A call has come; it ends with `end`."""
        self.calls += 1
        self.open += 1
        bucket = self._turn(now)
        bucket[0] += 1
        bucket[2] = max(bucket[2], self.open)

    def end(self) -> None:
        """A call has its answer, or will have none."""
        self.open -= 1

    def take(self, now: float) -> bool:
        """Whether one more attempt may be made; if so, it is counted."""
        bucket = self._turn(now)
        if self.retries + 1 > self.allowed:
            return False
        bucket[1] += 1
        self.retries += 1
        return True

    def look(self, now: float) -> None:
        """Forget what is older than the window."""
        self._turn(now)

    @property
    def allowed(self) -> float:
        """How many retries there may be in the window."""
        return max(LEAST, SHARE * self.calls, OPEN_SHARE * max(bucket[2] for bucket in self._buckets))

    def strain(self, now: float) -> float:
        """How much of it is used up, from 0 to 1, with what is about to be taken."""
        self._turn(now)
        return min(1.0, (self.retries + COMING) / self.allowed)

    def _turn(self, now: float) -> list[int]:
        """The bucket of this moment; what is older than the window is forgotten."""
        at = int(now // BUCKET_SECONDS)
        count = len(self._buckets)
        for passed in range(max(self._at + 1, at - count + 1), at + 1):
            calls, retries, _ = self._buckets[passed % count]
            self.calls -= calls
            self.retries -= retries
            self._buckets[passed % count] = [0, 0, self.open]
        self._at = max(self._at, at)
        return self._buckets[self._at % count]
