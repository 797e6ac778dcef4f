"""The settings of the conversation log."""

from chat_api.setting import Setting, between
from chat_api.setting_parsers import LOG_CHAT

CONVERSATIONS = (
    Setting(
        "LOG_CHAT",
        "log_chat",
        LOG_CHAT[0],
        " or ".join(LOG_CHAT),
        "Whether conversations are logged: what was asked and answered, or with `meta` everything but the words.",
    ),
    Setting(
        "LOG_DIR",
        "log_dir",
        None,
        "the path of a folder that can be written",
        "Folder of the conversation log; it is made if it is missing. Unset: `log` beside `.env`.",
    ),
    Setting(
        "LOG_MAX_FILE_BYTES",
        "int",
        100 * 1024 * 1024,
        "a whole number of bytes from 1",
        "How large a file of the conversation log gets; each day (UTC) has one of its own in any case.",
        between(1),
    ),
    Setting(
        "LOG_KEEP_DAYS",
        "int",
        0,
        "a whole number of days from 0 to 36500 (0 keeps them for ever)",
        "Days that files of the conversation log are kept beyond their own.",
        between(0, 36500),
    ),
)
