"""OpenAI's client for Node, the npm package chatgpt and a strict event-stream parser, unchanged, over sockets."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers import gateway

FOLDER = Path(__file__).parent / "node"
MAPPER = "gpt-3.5-turbo=gpt-4o-mini,embed=text-embedding-3-small,whisper=whisper-1,image=gpt-image-1"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (FOLDER / "node_modules" / "openai").is_dir(),
    reason="npm packages are not installed (npm ci --prefix tests/node)",
)


@pytest.mark.parametrize("version", ["2024-10-21", "v1"])
def test_node_clients(version: str) -> None:
    """Every check of clients.mjs holds: each operation, odd and broken streams, each error class, both flavours."""
    limits = {"FIRST_BYTE_TIMEOUT": "5", "IDLE_TIMEOUT": "1"}
    with gateway(API_VERSION=version, MODEL_MAPPER=MAPPER, **limits) as server:
        command = ["node", "clients.mjs", f"http://127.0.0.1:{server.port}"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=50)

    results: dict[str, str] = json.loads(re.findall(r"^\{.*\}$", done.stdout, re.MULTILINE)[-1])
    assert {name: result for name, result in results.items() if result != "ok"} == {}
    assert len(results) > 90
