"""On what the figures were measured: the machine, and the versions of everything that took part."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from benchmarks.subjects import ROOT, nginx_binary

_PACKAGES = ("uvicorn", "starlette", "httpx2", "uvloop", "httptools")


def described() -> dict[str, str]:
    """The machine and the versions, each by its name."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "nginx": _nginx_version(),
        **versions,
        "revision": _revision(),
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.machine()


def _nginx_version() -> str:
    binary = nginx_binary()
    if binary is None:
        return "not on this machine"
    return _output([binary, "-v"]).rpartition("/")[2]


def _revision() -> str:
    git = shutil.which("git")
    revision = _output([git, "rev-parse", "--short", "HEAD"]) if git else ""
    changed = _output([git, "status", "--porcelain", "--", "chat_api", "app.py"]) if git and revision else ""
    return f"{revision}, with changes" if changed else revision or "unknown"


def _output(command: list[str]) -> str:
    """What a command prints; "" if it fails."""
    done = subprocess.run(  # noqa: S603 - our own command
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""
