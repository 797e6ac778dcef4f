"""What `chat-api check` shows of the settings; the commands themselves are run in test_lifecycle."""

from pathlib import Path

import pytest

from chat_api.loading import shown
from chat_api.settings import load

EAST, WEST = "https://east.openai.azure.com", "https://west.openai.azure.com"


@pytest.mark.parametrize(
    ("environ", "name", "expected"),
    [
        pytest.param({}, "ENDPOINT", "", id="no-endpoint"),
        pytest.param({"ENDPOINT": f"{EAST}/openai/v1/"}, "ENDPOINT", EAST, id="endpoint"),
        pytest.param({"ENDPOINT": f"{EAST},{WEST}/"}, "ENDPOINT", f"{EAST},{WEST}", id="endpoints"),
        pytest.param({"ENDPOINT": EAST}, "KEY", "", id="no-key"),
        pytest.param({"ENDPOINT": EAST, "KEY": "SECRET"}, "KEY", "***", id="key"),
        pytest.param({"ENDPOINT": f"{EAST},{WEST}", "KEY": "SECRET"}, "KEY", "***", id="key-for-all"),
        pytest.param({"ENDPOINT": f"{EAST},{WEST}", "KEY": "SECRET1,SECRET2"}, "KEY", "***,***", id="keys"),
        pytest.param({"OPERATOR_KEY": "SECRET"}, "OPERATOR_KEY", "***", id="operator-key"),
        pytest.param({}, "MODEL_FALLBACK", "", id="no-fallback"),
        pytest.param({"MODEL_FALLBACK": "a=b, b=c"}, "MODEL_FALLBACK", "a=b,b=c", id="fallbacks"),
        pytest.param({"RETRY_WAIT": "1.50"}, "RETRY_WAIT", "1.5", id="seconds"),
    ],
)
def test_shown(environ: dict[str, str], name: str, expected: str) -> None:
    """A setting is shown as it is used, in the words of a `.env` file; of a key that it is there, no more."""
    assert shown(load(environ, Path("/none/.env")), name) == expected
