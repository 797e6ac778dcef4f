"""The settings table: for every setting its names, default, what it accepts, what it means, and its parser.

`sample.env`, the README's table and the error messages all say what stands here; tests keep them alike.
"""

from chat_api.setting import Setting
from chat_api.settings_cache import CACHE
from chat_api.settings_limits import CALLER_LIMITS
from chat_api.settings_log import CONVERSATIONS
from chat_api.settings_serving import CALLERS, DEFAULTS, LIMITS, SERVER
from chat_api.settings_upstream import AZURE, MODELS, OTHERS, PROXY_FORM, SEVERAL

__all__ = [
    "CACHE",
    "CALLERS",
    "CALLER_LIMITS",
    "CONVERSATIONS",
    "DEFAULTS",
    "GROUPS",
    "LIMITS",
    "MODELS",
    "PROXY_FORM",
    "SERVER",
    "SEVERAL",
    "TABLE",
    "Setting",
]

GROUPS = {
    "Where to listen": SERVER,
    "Who may call": CALLERS,
    "How much callers may take": CALLER_LIMITS,
    "What is kept and shared": CACHE,
    "Azure OpenAI": AZURE,
    "Models": MODELS,
    "Several deployments": SEVERAL,
    "Other upstreams and proxies": OTHERS,
    "Defaults for what a request leaves out": DEFAULTS,
    "Limits and logging": LIMITS,
    "Conversation log": CONVERSATIONS,
}
TABLE: tuple[Setting, ...] = tuple(setting for group in GROUPS.values() for setting in group)
