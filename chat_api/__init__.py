"""A chat gateway for Azure OpenAI: one prompt in, one answer out."""

__version__ = "0.1.0"
