"""What went wrong in an exchange, as its record has it: in `error`, and in the answer. Pure."""

from chat_api.conversations import Record, filtered_names, words


def failures(record: Record) -> list[str]:
    """What went wrong, in words: what the caller was told, what the answer says if that is more, what was filtered."""
    code, message = failure(record.members.get("error"))
    said = record.within("answer").get("error")
    said_code, said_message = failure(said)
    pairs = [(code, message)]
    if said_message not in message or not (code or message):
        pairs.append((said_code, said_message))
    texts = [f"error: {': '.join(filter(None, pair))}" for pair in pairs if any(pair)]
    inner = said.get("innererror") if isinstance(said, dict) else None
    filtered = filtered_names(inner.get("content_filter_result")) if isinstance(inner, dict) else []
    return texts + ([f"[filtered: {', '.join(filtered)}]"] if filtered else [])


def failure(error: object) -> tuple[str, str]:
    """An error's code and message; "" for what it does not say."""
    if not isinstance(error, dict):
        return "", words(error or None)
    code, message = error.get("code") or error.get("type"), error.get("message")
    return words(code or None), words(message or None)
