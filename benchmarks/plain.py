"""The gateway that one would write in an afternoon: Starlette, one httpx client, answers relayed as they come.

Its upstream's URL is the environment variable PLAIN_UPSTREAM. `uvicorn benchmarks.plain:app` serves it.
"""

import contextlib
import os
from collections.abc import AsyncIterator
from typing import TypedDict

import httpx2 as httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


class State(TypedDict):
    """What lives as long as the app."""

    client: httpx.AsyncClient


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    """One client for all requests."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=1000)
    async with httpx.AsyncClient(base_url=os.environ["PLAIN_UPSTREAM"], limits=limits, timeout=600) as client:
        yield {"client": client}


async def chat(request: Request) -> Response:
    """Relay one chat completion."""
    client: httpx.AsyncClient = request.state.client
    body = await request.json()
    if not body.get("stream"):
        answer = await client.post(request.url.path, json=body)
        return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])
    call = client.build_request("POST", request.url.path, json=body)
    answer = await client.send(call, stream=True)
    return StreamingResponse(
        answer.aiter_raw(),
        answer.status_code,
        media_type=answer.headers["content-type"],
        background=BackgroundTask(answer.aclose),
    )


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])], lifespan=lifespan)
