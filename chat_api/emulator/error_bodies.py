"""The bodies of Azure's errors, in the words of its front end, its models and its API management."""

from typing import Any


def front_end(code: str, message: str) -> dict[str, Any]:
    """An error body of Azure's front end."""
    return {"error": {"code": code, "message": message}}


_CALLED = {
    "chat/completions": "ChatCompletions_Create",
    "completions": "Completions_Create",
    "embeddings": "Embeddings_Create",
    "responses": "Responses_Create",
}  # what errors call the operations


def rate_limit(operation: str, version: str, seconds: int, exceeded: str = "token rate limit") -> dict[str, Any]:
    """The body of a 429, in the words that Azure had until late 2025."""
    return front_end(
        "429",
        f"Requests to the {_CALLED.get(operation, operation)} Operation under Azure OpenAI API version {version} have "
        f"exceeded {exceeded} of your current OpenAI S0 pricing tier. {_retry(seconds)}",
    )


def rate_limit_of(
    deployment: str, region: str, operation: str, version: str, seconds: int, exceeded: str
) -> dict[str, Any]:
    """The body of a 429, in the words that Azure has had since."""
    return front_end(
        "429",
        f"Your requests to {deployment} for {deployment} in {region} have exceeded {exceeded} for your current "
        f"AIServices S0 pricing tier. This request was for {_CALLED.get(operation, operation)} under Azure OpenAI API "
        f"version {version}. {_retry(seconds)}",
    )


def _retry(seconds: int) -> str:
    return f"Please retry after {seconds} second{'s' * (seconds != 1)}."


SERVER_ERROR = {
    "error": {
        "message": "The server had an error while processing your request. Sorry about that!",
        "type": "server_error",
        "param": None,
        "code": None,
    }
}
EVENT_ERROR = {
    "error": {
        "message": "The model is out of capacity (emulated).",
        "type": "server_error",
        "code": "rate_limit_exceeded",
    }
}
VIOLENT = {"violence": {"filtered": True, "severity": "medium"}}
PROMPT_FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": VIOLENT},
    }
}
NOT_FOUND = front_end("404", "Resource not found")
NO_VERSION_ON_V1 = front_end("BadRequest", "api-version query parameter is not allowed when using /v1 path")
NO_DEPLOYMENT = front_end(
    "DeploymentNotFound",
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, "
    "please wait a moment and try again.",
)
BAD_KEY = front_end(
    "401",
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource.",
)
BAD_TOKEN = {
    "statusCode": 401,
    "message": "Unauthorized. Access token is missing, invalid, audience is incorrect "
    "(https://cognitiveservices.azure.com), or have expired.",
}
