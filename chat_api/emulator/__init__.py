"""An Azure OpenAI resource that runs here: same paths, headers, shapes and faults, deterministic answers.

It exists so that the gateway can be tried without an Azure account, and so that any client can
provoke any fault by asking for a deployment of its name (`fault-429`, `fault-cut`, …).
"""

from chat_api.emulator.app import DEFAULT_DEPLOYMENT, DEPLOYMENTS, Emulator
from chat_api.emulator.exchange import REGION, checked_region
from chat_api.emulator.faults import FAULTS
from chat_api.emulator.latency import Latency
from chat_api.emulator.latency import parse as parse_latency
from chat_api.emulator.outages import Outage
from chat_api.emulator.outages import parse as parse_outage
from chat_api.emulator.quotas import Limit
from chat_api.emulator.server import open_emulator, run_emulator

__all__ = [
    "DEFAULT_DEPLOYMENT",
    "DEPLOYMENTS",
    "FAULTS",
    "REGION",
    "Emulator",
    "Latency",
    "Limit",
    "Outage",
    "checked_region",
    "open_emulator",
    "parse_latency",
    "parse_outage",
    "run_emulator",
]
