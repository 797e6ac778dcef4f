"""Starlette that answers by itself, with what it has in memory: no gateway that is built with it can be cheaper.

`uvicorn benchmarks.by_itself:app` serves it.
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.answers import completion

ANSWER = completion(1)


async def chat(request: Request) -> Response:
    """Read what is asked, and answer."""
    await request.body()
    return Response(ANSWER, media_type="application/json")


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
