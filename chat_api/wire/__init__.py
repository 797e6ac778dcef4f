"""The upstream hop itself: HTTP/1.1 over pooled connections, on asyncio and httptools; raw header pairs and bytes.

It decides nothing and changes nothing: what it is given goes out, what comes is handed on, and whatever goes
wrong is one of the exceptions that `failures` makes.
"""

from chat_api.wire.transport import WireTransport

__all__ = ["WireTransport"]
