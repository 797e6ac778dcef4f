"""Which deployment answers for which model: the table made of the settings, and its list in OpenAI's shape. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from chat_api.errors import RequestError
from chat_api.types import Deployment

MAX_LISTED = 20  # of the models that an error names

Group = Sequence[Deployment]  # deployments that answer for the same model, or one server under several keys


class UnknownModel(RequestError):
    """The model is none of those that are configured, and only those are served."""

    status = 404
    code = "model_not_found"


class Models:
    """The table of one upstream.

    Args:
        groups: model → the deployments that answer for it.
        default: where calls go that name no model, and what belongs to no deployment (files, batches);
            its name is the default model's, or "".
        unknown: what a model outside the table gets: `pass` (it is the name of a deployment), `default` or `reject`.
        fallbacks: model → the model that answers when none of its deployments can; nowhere back to where it began.
    """

    def __init__(
        self,
        groups: Mapping[str, Group],
        default: Group,
        unknown: str = "pass",
        fallbacks: Mapping[str, str] | None = None,
    ) -> None:
        self._groups = dict(groups)
        self._default = tuple(default)
        self._unknown = unknown
        self._fallbacks = dict(fallbacks or {})
        self._default_names = frozenset(one.name for one in self._default)
        # Every deployment of the table, the default one first.
        self.deployments = (*self._default, *(one for group in groups.values() for one in group))
        self._by_deployment: dict[str, list[Deployment]] = {}
        for one in dict.fromkeys(one for group in groups.values() for one in group if one.name):
            self._by_deployment.setdefault(one.name, []).append(one)
        first = {one.name.lower(): model for model, group in reversed(self._groups.items()) for one in group}
        self._counted_as = {**first, **{model.lower(): model for model in self._groups}}  # Azure knows no case

    @property
    def names(self) -> list[str]:
        """The models that are known, in the order they were configured."""
        own = [self._default[0].name] if self._default and self._default[0].name else []
        return list(dict.fromkeys([*self._groups, *(name for name in own if name not in self._by_deployment)]))

    @property
    def served(self) -> list[tuple[str, Deployment]]:
        """Each model with each of its deployments; the default ones under their own names."""
        named = [(one.name, one) for one in self._default if one.name]
        return list(dict.fromkeys([*named, *((model, one) for model, group in self._groups.items() for one in group)]))

    @property
    def relays_list(self) -> bool:
        """Whether the server knows its models better than we do: it is OpenAI-compatible, and nothing is mapped."""
        return not self._groups and self._default[0].kind == "openai"

    def resource(self) -> Group:
        """Where calls go that concern no model."""
        return self._default

    def group(self, model: str | None) -> Group:
        """The deployments that answer for a model; for None the default model's.

        Raises:
            RequestError: no model was named and there is no default one.
            UnknownModel: it is not in the table, and only the table is served.
        """
        if not model:
            return self._default_group()
        found = self._groups.get(model) or self._by_deployment.get(model)
        if found:
            return found
        if model in self._default_names:
            return self._default
        if self._unknown == "pass":
            return [replace(one, name=model) for one in self._default]
        if self._unknown == "default":
            return self._default_group()
        names = self.names
        known = ", ".join(names[:MAX_LISTED]) + (", …" if len(names) > MAX_LISTED else "")
        raise UnknownModel(f'model "{model[:200]}" is not served here; it takes {known or "none"}', param="model")

    def counted_as(self, model: str | None) -> str:
        """The one name under which a model is limited and counted, however it is called; "" for none.

        A deployment's own name stands for the first model that it answers for, and a name that nobody has
        configured for the default model where that answers for it.
        """
        default = self._default[0].name if self._default else ""
        known = self._counted_as.get((model or default).lower())
        if known is not None:
            return known
        is_default = not model or model in self._default_names or self._unknown == "default"
        return self._counted_as.get(default.lower(), default) if is_default else model or ""

    def fallback_of(self, model: str | None) -> str | None:
        """The model that answers when none of a model's deployments can, if there is one; for None the default's.

        Whatever gets the default model's deployments has its fallback. Asked again and again this comes to an end.
        """
        if model and model in self._fallbacks:
            return self._fallbacks[model]
        is_known = model in self._groups or model in self._by_deployment
        if model and (is_known or not (model in self._default_names or self._unknown == "default")):
            return None
        default = self._default[0].name
        last = default
        while last in self._fallbacks:
            last = self._fallbacks[last]
        return self._fallbacks.get(default) if model != last else None

    def _default_group(self) -> Group:
        default = self._default[0]
        if default.name:
            return self._groups.get(default.name) or self._by_deployment.get(default.name) or self._default
        if default.kind == "openai":
            return self._default  # the server has a word in it itself
        message = "no model: send the name of a deployment as model, or set DEPLOYMENT_NAME on the server"
        raise RequestError(message, param="model", code="missing_model")

    def listing(self, created: int, allowed: Collection[str] | None = None) -> dict[str, Any]:
        """The table as OpenAI lists models, or those of it that are `allowed`."""
        names = [name for name in self.names if allowed is None or name in allowed]
        return {"object": "list", "data": [_entry(name, created) for name in names]}

    def entry(self, model: str, created: int) -> dict[str, Any]:
        """One model of the table, as OpenAI describes it.

        Raises:
            UnknownModel: it is not in the table.
        """
        if model not in self.names:
            known = ", ".join(self.names[:MAX_LISTED])
            raise UnknownModel(f'model "{model[:200]}" is not in the list; it has {known or "none"}', param="model")
        return _entry(model, created)


def _entry(name: str, created: int) -> dict[str, Any]:
    """`permission`, `root` and `parent` left OpenAI's shape in 2023; chat UIs of that time read them."""
    permission = {
        "id": f"modelperm-{name}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "chat-api",
        "permission": [permission],
        "root": name,
        "parent": None,
    }
