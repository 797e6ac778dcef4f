"""What the conversation log is told of an exchange: raw, so that the call itself has nothing to do for it."""

from msgspec import Struct


class Exchange(Struct):
    """One exchange, when it has ended. Whoever writes it down reads the bytes; the call only hands them over."""

    at: float  # when it began, in seconds since 1970
    request_id: str
    key: str  # the name of the client key; "" without one
    address: str  # the client's
    path: str  # that was asked: "/v1/gpt/chat", "/v1/chat/completions"
    operation: str  # "chat/completions", "completions", "responses"
    model: str  # that was asked for; ""
    request: bytes  # the JSON body that was asked, in OpenAI's words (also for /v1/gpt/chat)
    has_words: bool = True  # False where only its facts are logged (`meta`)
    deployment: str = ""  # the label of who answered, or was asked last; "" for nobody
    attempts: int = 0  # how many deployments were asked
    status: int = 0  # that the caller got, or would have got
    is_stream: bool = False  # the answer is events, not JSON
    answer: list[bytes] = []  # the answer's body in pieces, as the upstream gave it
    ended: str = "complete"  # or "client left", "broken", "refused"
    error_code: str = ""
    error: str = ""  # in words; no key is ever in it
    first_byte_seconds: float | None = None  # from its beginning to the head of the answer
    seconds: float = 0.0  # from its beginning to its end
    cache: str = ""  # "hit", "miss", "shared", "bypass"; "" where nothing is kept
