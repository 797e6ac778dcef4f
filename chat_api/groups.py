"""The deployments that a call may go to: a model's group, and the resource of what belongs to no model. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from chat_api.affinity import Affinity, is_about_one
from chat_api.health import Health
from chat_api.models import Models
from chat_api.operations import DEPLOYMENT_SCOPED, MODEL_REQUIRED, is_unrouted
from chat_api.pool import Group, Pool
from chat_api.types import Call, Deployment, Resource

MAX_REMEMBERED = 1000  # groups; callers may name models that nobody has configured
MAX_NAME_CHARS = 128  # of a model whose group is remembered


class Groups:
    """Those of one upstream.

    Args:
        models: its table.
        pool: who knows the health of its deployments.
    """

    def __init__(self, models: Models, pool: Pool) -> None:
        self.models = models
        self._pool = pool
        self._of_model: dict[str | None, Group] = {}
        self._of_others: dict[str | None, Group] = {}  # of models that callers have made up
        # What a resource says of files is nothing against its models, and takes up no place there.
        itself = {one.resource: replace(one.identity, name="") for one in reversed(models.deployments)}
        resources = dict(reversed(itself.items()))
        self._of_resource = {resource: pool.group("", (None, [one])) for resource, one in resources.items()}
        self._everywhere = pool.search(list(resources.values()))
        self._default = models.resource()[0].resource
        self._default_model = models.resource()[0].name or None
        self._configured = frozenset((*models.names, self._default_model))
        # With a single resource there is nothing to remember: everything is there.
        self.affinity = Affinity() if len(self._of_resource) > 1 else None

    def of(self, call: Call) -> tuple[Group, Resource | None]:
        """The group of a call, and the resource in it that the call belongs to, if it does.

        What names no model goes to the resource that knows what it names. An id in its path that nobody here
        knows is looked for, at the first of the default deployments first. All else goes there: what is made without
        a word of where it belongs is found there again. So do assistants and what is done with them; a
        response may be made wherever the model is.

        Raises:
            RequestError: the model is missing, or is not served.
        """
        operation = call.operation
        if operation in DEPLOYMENT_SCOPED and call.method == "POST":
            return self._group(call.model), None
        known = self.affinity.resource_of(call) if self.affinity else None
        if not (call.model or (operation in MODEL_REQUIRED and not is_unrouted(call.method, operation))):
            if known is None and self.affinity and is_about_one(operation):
                return self._everywhere, None
            return self._of_resource[known or self._default], None
        group = self._group(call.model)
        if self.affinity is None or operation in DEPLOYMENT_SCOPED:
            return group, None
        at = known or (None if operation == "responses" else self._default)
        if at is None or at in group.resources:
            return group, at
        is_bound = known is not None and operation not in MODEL_REQUIRED
        return (self._of_resource[at], None) if is_bound else (group, None)

    def _group(self, model: str | None) -> Group:
        model = model or self._default_model
        return self._of_model.get(model) or self._of_others.get(model) or self._new_group(model)

    @property
    def members(self) -> list[Health]:
        """The deployments that callers have named, as far as they are remembered, and those that are configured."""
        groups = [*self._of_model.values(), *self._of_others.values()]
        return list(dict.fromkeys(member for group in groups for member in group.members))

    def _new_group(self, model: str | None) -> Group:
        served: list[tuple[str | None, Sequence[Deployment]]] = [(None, self.models.group(model))]
        standing_in = self.models.fallback_of(model)
        while standing_in is not None and standing_in not in [name for name, _ in served]:
            served.append((standing_in, self.models.group(standing_in)))
            standing_in = self.models.fallback_of(standing_in)
        group = self._pool.group(model or "", *served)
        group.counted_as = self.models.counted_as(model)
        if model is None or model in self._configured:
            self._of_model[model] = group
        elif len(model) <= MAX_NAME_CHARS:
            if len(self._of_others) >= MAX_REMEMBERED:
                del self._of_others[next(iter(self._of_others))]
            self._of_others[model] = group
        return group
