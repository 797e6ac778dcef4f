"""What a caller's Cache-Control asks of answers that are kept (RFC 9111 section 5.2.1). Pure."""

import re

from chat_api.caching import Wish

_MAX_AGE = re.compile(r'"?(\d{1,10})"?')
ANY = Wish()


def parse_cache_control(value: bytes | None) -> Wish:
    """The directives that mean something here: no-cache, no-store and max-age. What nobody can read is left out."""
    if not value:
        return ANY
    age, may_be_kept = ANY
    for directive in value.decode("latin-1").lower().split(","):
        name, _, argument = (part.strip() for part in directive.partition("="))
        if name == "no-cache":
            age = 0.0
        elif name == "no-store":
            age, may_be_kept = 0.0, False
        elif name == "max-age" and (read := _MAX_AGE.fullmatch(argument)) is not None:
            age = min(age, float(read[1]))
    return Wish(age, may_be_kept)
