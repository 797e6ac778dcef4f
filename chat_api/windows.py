"""How much of a counter is used up in its window of time: four strategies. Pure; `now` is an argument.

Times are integers, in milliseconds. `stores/windows.lua` does the same in Redis, to the last unit. Where the clock
goes back nothing is forgotten for it, and nobody is held up for hours: a window or two, at most.
"""

from math import ceil

from chat_api.counting import ELASTIC, FIXED, MOVING, SLIDING, Counter, Reading

BUCKETS = 60  # of a moving window
RING = BUCKETS + 1  # one more, of which a part is still within


class Window:
    """One counter's. Subclasses know when what counts; each of their methods is called after `look`, but for `correct`.

    Args:
        seconds: how long it is.
    """

    __slots__ = ("_length",)

    def __init__(self, seconds: int) -> None:
        self._length = seconds * 1000

    def take(self, amount: int, limit: int, now: int) -> Reading | None:
        """Charge so much; None, and nothing is charged, if that (at least 1) is more than is left."""
        left = limit - self.look(now) - amount
        if left < (0 if amount else 1):
            return None
        stamp = self.charge(amount, now)
        return Reading(left, self.reset_ms(now) / 1000, stamp)

    def reading(self, limit: int, now: int) -> Reading:
        """How it stands."""
        return Reading(max(0, limit - self.look(now)), self.reset_ms(now) / 1000)

    def look(self, now: int) -> int:
        """Forget what has left the window; how much is used up."""
        raise NotImplementedError

    def charge(self, amount: int, now: int) -> int:
        """Count so much more; the stamp of where."""
        raise NotImplementedError

    def correct(self, stamp: int, change: int, now: int) -> None:
        """Count so much more, or less, where the stamp says; if that is gone, only more counts, and counts now."""
        raise NotImplementedError

    def reset_ms(self, now: int) -> int:
        """How long until nothing of it is used up, if nothing more is charged."""
        raise NotImplementedError

    def wait_ms(self, amount: int, limit: int, now: int) -> int:
        """How long until a charge fits that does not now; as long as the window is, if it never does."""
        raise NotImplementedError

    def touch(self, now: int) -> None:
        """A call has come, whether it was admitted or not."""


class FixedWindow(Window):
    """Begins with its first charge. Its stamp is that time; it ends at 0 before, and once all was given back."""

    __slots__ = ("count", "ends", "stamp")

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.stamp = self.count = self.ends = 0

    def take(self, amount: int, limit: int, now: int) -> Reading | None:
        """Charge so much, as every window does, with fewer calls."""
        count = self.look(now) if now >= self.ends or now + self._length < self.ends else self.count
        left = limit - count - amount
        if left < (0 if amount else 1):
            return None
        if not count:
            if not amount:
                return Reading(left, 0.0)
            self.stamp = now
            self.ends = now + self._length
        self.count = count + amount
        return Reading(left, (self.ends - now) / 1000, self.stamp)

    def look(self, now: int) -> int:
        """Forget what has left the window; how much is used up."""
        if self.count:
            if now >= self.ends:
                self.count = 0
            elif self.ends > now + 2 * self._length:  # the clock went back, by more than a little
                self.ends = now + self._length
        return self.count

    def charge(self, amount: int, now: int) -> int:
        """Count so much more; the stamp of where."""
        if not self.count:
            if not amount:
                return 0
            self.stamp = now
            self.ends = now + self._length
        self.count += amount
        return self.stamp

    def correct(self, stamp: int, change: int, now: int) -> None:
        """Count so much more, or less, where the stamp says; if that is gone, only more counts, and counts now."""
        count = self.look(now) if now >= self.ends or now + self._length < self.ends else self.count
        if count and stamp == self.stamp:
            self.count = max(0, count + change)
            self.ends *= self.count > 0
        elif change > 0:
            self.charge(change, now)

    def reset_ms(self, now: int) -> int:
        """How long until nothing of it is used up, if nothing more is charged."""
        return self.ends - now if self.count else 0

    def wait_ms(self, amount: int, limit: int, now: int) -> int:
        """How long until a charge fits that does not now; as long as the window is, if it never does."""
        return self.reset_ms(now) if amount <= limit and self.count else self._length


class ElasticWindow(FixedWindow):
    """Begins anew, with what it has counted, at every call; not when a call is settled."""

    __slots__ = ()

    def take(self, amount: int, limit: int, now: int) -> Reading | None:
        """Charge so much; None, and nothing is charged, if that (at least 1) is more than is left."""
        self.look(now)
        self.touch(now)
        return Window.take(self, amount, limit, now)

    def touch(self, now: int) -> None:
        """A call has come, whether it was admitted or not."""
        self.ends = max(self.ends, now + self._length)


class MovingWindow(Window):
    """Sixty buckets and the one that leaves: never more than the limit in any span. A stamp is a bucket's number."""

    __slots__ = ("_at", "_ring", "_total")

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self._ring = [0] * RING
        self._total = 0
        self._at = 0  # the bucket that is being filled

    def look(self, now: int) -> int:
        """Forget what has left the window; how much is used up."""
        at = now * BUCKETS // self._length
        if at != self._at:
            self._turn(at)
        return self._total

    def _turn(self, at: int) -> None:
        newest = self._newest()
        if at < newest:  # the clock went back: a little is waited for, after more all of it is as if charged now
            if newest - at > BUCKETS:
                self._ring = [0] * RING
                self._ring[at % RING] = self._total
            else:
                at = newest
        for gone in range(max(self._at + 1, at - BUCKETS), at + 1):
            self._total -= self._ring[gone % RING]
            self._ring[gone % RING] = 0
        self._at = at

    def _newest(self) -> int:
        """The last bucket with something in it."""
        at = self._at
        if self._total:
            while not self._ring[at % RING]:
                at -= 1
            return at
        return 0

    def take(self, amount: int, limit: int, now: int) -> Reading | None:
        """Charge so much, as every window does, with fewer calls."""
        at = now * BUCKETS // self._length
        if at != self._at:
            self._turn(at)
            at = self._at
        left = limit - self._total - amount
        if left < (0 if amount else 1):
            return None
        if not amount:
            return Reading(left, self.reset_ms(now) / 1000, at)
        self._total += amount
        self._ring[at % RING] += amount
        return Reading(left, (-(-(at + RING) * self._length // BUCKETS) - now) / 1000, at)

    def charge(self, amount: int, now: int) -> int:
        """Count so much more; the stamp of where."""
        self._ring[self._at % RING] += amount
        self._total += amount
        return self._at

    def correct(self, stamp: int, change: int, now: int) -> None:
        """Count so much more, or less, where the stamp says; if that is gone, only more counts, and counts now."""
        self.look(now)
        there = self._ring[stamp % RING] if 0 <= self._at - stamp <= BUCKETS else 0
        if there:
            change = max(change, -there)
            self._ring[stamp % RING] += change
            self._total += change
        elif change > 0:
            self.charge(change, now)

    def reset_ms(self, now: int) -> int:
        """How long until nothing of it is used up, if nothing more is charged."""
        return self._leaves(self._newest()) - now if self._total else 0

    def wait_ms(self, amount: int, limit: int, now: int) -> int:
        """How long until a charge fits that does not now; as long as the window is, if it never does."""
        too_much = self._total + amount - limit
        for bucket in range(self._at - BUCKETS, self._at + 1):
            too_much -= self._ring[bucket % RING]
            if too_much <= 0:
                return self._leaves(bucket) - now
        return self._length

    def _leaves(self, bucket: int) -> int:
        """When the last of a bucket has left the window."""
        return -(-(bucket + RING) * self._length // BUCKETS)


class SlidingWindow(Window):
    """Two windows after the clock, the previous weighted by how much of it is still within. A stamp is a number."""

    __slots__ = ("_at", "_count", "_into", "_previous")

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self._at = 0
        self._into = 0  # how much of the window has passed
        self._count = self._previous = 0

    def look(self, now: int) -> int:
        """Forget what has left the window; how much is used up."""
        at, self._into = divmod(now, self._length)
        if at != self._at:
            if at == self._at - 1 and (self._count or self._previous):  # the clock went back, over the edge
                at, self._into = self._at, 0
            elif at > self._at:
                self._previous = self._count if at == self._at + 1 else 0
                self._count = 0
            self._at = at
        return self._count + int(float(self._previous) * (self._length - self._into) / self._length)

    def charge(self, amount: int, now: int) -> int:
        """Count so much more; the stamp of where."""
        self._count += amount
        return self._at

    def correct(self, stamp: int, change: int, now: int) -> None:
        """Count so much more, or less, where the stamp says; if that is gone, only more counts, and counts now."""
        self.look(now)
        if stamp == self._at and self._count:
            self._count = max(0, self._count + change)
        elif stamp == self._at - 1 and self._previous:
            self._previous = max(0, self._previous + change)
        elif change > 0:
            self._count += change

    def reset_ms(self, now: int) -> int:
        """How long until nothing of it is used up, if nothing more is charged."""
        if self._count:
            return 2 * self._length - self._into
        return self._length - self._into if self._previous else 0

    def wait_ms(self, amount: int, limit: int, now: int) -> int:
        """How long until a charge fits that does not now; as long as the window is, if it never does."""
        if amount > limit:
            return self._length
        if self._count + amount <= limit:  # it is the previous window that is in the way
            return max(1, self._light(self._previous, limit - amount - self._count) - self._into)
        return self._length - self._into + self._light(self._count, limit - amount)

    def _light(self, previous: int, room: int) -> int:
        """How much of a window has to pass before what was counted in the previous one weighs no more than this."""
        return self._length - ceil(float(room + 1) * self._length / previous) + 1


_KINDS: dict[str, type[Window]] = {
    FIXED: FixedWindow,
    ELASTIC: ElasticWindow,
    MOVING: MovingWindow,
    SLIDING: SlidingWindow,
}


def window_of(counter: Counter) -> Window:
    """A new window of a counter's strategy."""
    return _KINDS[counter.strategy](counter.seconds)
