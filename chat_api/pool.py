"""Which of a model's deployments gets the next call: the best available priority, there by weight. Pure.

No deployment is asked that is cooled down, ejected or full while another is not. Where all have failed
the least bad one is asked nevertheless: somebody has to find out that it is back.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from math import inf, sqrt

from chat_api.health import Health
from chat_api.types import Deployment, Resource


class Tier:
    """Deployments of the same priority.

    Each is due when it has had as much as its weight is (start-time fair queueing), so that turns are
    exact where calls come one by one. One that answers slower than the others is passed over while it has
    more in flight than its share, by more than chance would have it (the square root); one that was away
    is owed nothing for that time.

    Args:
        weights: their healths, and the weight of each.
        fallback: the model that they serve, where it is not the one that was asked for.
        is_search: whether what one of them has not the next may have.
    """

    def __init__(
        self, weights: Mapping[Health, float], fallback: str | None = None, *, is_search: bool = False
    ) -> None:
        self.members = tuple(weights)
        self.fallback = fallback
        self.is_search = is_search
        self._weights = dict(weights)
        self._due = dict.fromkeys(self.members, 0.0)
        self._now_due = 0.0

    def pick(self, available: Sequence[Health], now: float) -> Health:
        """The one of those available that gets the next call."""
        if len(available) == 1:
            return available[0]
        shares = [self._weights[member] * member.share(now) for member in available]
        least = min([(member.in_flight + 1) / share for member, share in zip(available, shares, strict=True)])
        first, first_due, first_share = available[0], inf, 1.0
        for member, share in zip(available, shares, strict=True):
            most = share * least
            due = max(self._now_due, self._due[member])
            if due < first_due and member.in_flight <= most + sqrt(most):
                first, first_due, first_share = member, due, share
        self._now_due = first_due
        self._due[first] = first_due + 1 / first_share
        return first


Picked = tuple[Health, Tier]


class Group:
    """The deployments that answer for one model, and those that stand in for them.

    Args:
        model: what it is called in messages; "" for the default one.
        tiers: the best first.
    """

    def __init__(self, model: str, tiers: Sequence[Tier]) -> None:
        self.model = model
        self.counted_as = model  # whatever it was called by whom: limits are the model's
        self.tiers = tuple(tiers)
        self.members = tuple(dict.fromkeys(member for tier in self.tiers for member in tier.members))
        self.only = self.members[0] if len(self.members) == 1 else None
        self.resources = frozenset(member.deployment.resource for member in self.members)
        # Who they are: another configuration may have others answer.
        served = [one.deployment for tier in self.tiers if tier.fallback is None for one in tier.members]
        self.served_by = " ".join(f"{one.kind}:{one.api_version}:{one.name}@{one.base_url}" for one in served)
        # Whose keys they are asked with: ours, or the caller's for servers of this kind or that.
        self.keyed_by = frozenset("us" if one.deployment.key else one.deployment.kind for one in self.members)

    def pick(
        self, now: float, passed_over: Collection[Health] = (), *, at: Resource | None = None, probe: bool = True
    ) -> Picked | None:
        """The deployment that gets the call; None if none is available.

        Args:
            now: the time.
            passed_over: those that it does not go to: it has been there, or may not.
            at: the resource that it has to go to.
            probe: whether it may go to one that has failed before, to see: it can be sent elsewhere after that.
        """
        doubtful: Picked | None = None
        for tier in self.tiers:
            sound = []
            for member in tier.members:
                if not (member.is_available(now) and _is_allowed(member, passed_over, at)):
                    continue
                if not member.ejected_until:
                    sound.append(member)
                elif probe:
                    return member, tier
                else:
                    doubtful = doubtful or (member, tier)
            if sound:
                return tier.pick(sound, now), tier
        return doubtful

    def least_bad(
        self, now: float, passed_over: Collection[Health] = (), *, at: Resource | None = None
    ) -> Picked | None:
        """Where none is available, the one that is soonest to be tried again; None if all throttle or are full."""
        bad = [
            (member.ejected_until, place, member, tier)
            for place, tier in enumerate(self.tiers)
            for member in tier.members
            if member.cooled_until <= now and not member.is_full and _is_allowed(member, passed_over, at)
        ]
        return min(bad, key=lambda entry: entry[:2])[2:] if bad else None

    def may_be_back(self, now: float) -> None:
        """One that had failed with all others is back: so may they be, and are tried now."""
        for member in self.members:
            member.may_be_back(now)

    def allowed(self, barred: Collection[Health], at: Resource | None) -> list[Health]:
        """The members to which a call may go at all: those that its caller may use, at the resource it belongs to."""
        return [member for member in self.members if _is_allowed(member, barred, at)]


def _is_allowed(member: Health, passed_over: Collection[Health], at: Resource | None) -> bool:
    return member not in passed_over and (at is None or at == member.deployment.resource)


class Pool:
    """All deployments that are configured, and the groups that they form.

    Args:
        deployments: those whose health is kept for good; one that is there twice, with two shares, has one health.
    """

    def __init__(self, deployments: Iterable[Deployment] = ()) -> None:
        shared: dict[Deployment, Deployment] = {}
        for one in deployments:
            known = shared.get(one.identity, one)
            shared[one.identity] = one if known == known.identity else known
        self.members = {identity: Health(one) for identity, one in shared.items()}

    def group(self, model: str, *served: tuple[str | None, Sequence[Deployment]]) -> Group:
        """A group of deployments; each entry of `served` has the model that stands in, None for the model itself.

        A deployment that is not configured, such as one that a caller has named, is known to this group only.
        """
        known: dict[Deployment, Health] = {}
        tiers = []
        for fallback, deployments in served:
            by_priority = sorted(deployments, key=lambda one: one.priority)
            for _, peers in groupby(by_priority, key=lambda one: one.priority):
                weights = {self._member(one, known): one.weight for one in peers}
                tiers.append(Tier(weights, fallback))
        return Group(model, tiers)

    def search(self, deployments: Sequence[Deployment]) -> Group:
        """The group of these, one after the other, for what only one of them has."""
        return Group("", [Tier({self._member(one, {}): 1.0}, is_search=True) for one in deployments])

    def _member(self, one: Deployment, known: dict[Deployment, Health]) -> Health:
        return self.members.get(one.identity) or known.setdefault(one.identity, Health(one))
