"""The ASGI application for any server (`uvicorn app:app`); `python app.py` serves it by itself."""

import os
import sys
from typing import Any


def __getattr__(name: str) -> Any:
    """`app`, built from the environment when a server asks for it: importing this module reads no settings."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from chat_api.app import create_app
    from chat_api.loading import load_or_exit, warn_of_lone_counting

    settings = load_or_exit()
    workers = os.environ.get("WEB_CONCURRENCY", "")  # which uvicorn and gunicorn read
    warn_of_lone_counting(settings, os.environ, int(workers) if workers.isdecimal() else 1)
    if settings.upstream == "emulator":
        print("No ENDPOINT is set: the built-in Azure OpenAI emulator answers.", file=sys.stderr)  # noqa: T201
    return create_app(settings)


if __name__ == "__main__":
    from chat_api.cli import main

    main(["serve", *sys.argv[1:]])
