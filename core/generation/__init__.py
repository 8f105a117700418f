"""Text from a model, token by token, with edits and watched points at every step."""

from ..seams.where import LimitedEdit, Where
from .chat import Message
from .generate import Interventions, generate, generate_batch, stream_generate
from .prompts import Prompt, chat_ids
from .result import GenerationResult
from .stream import Generation, GenerationStep

__all__ = [
    "Generation",
    "GenerationResult",
    "GenerationStep",
    "Interventions",
    "LimitedEdit",
    "Message",
    "Prompt",
    "Where",
    "chat_ids",
    "generate",
    "generate_batch",
    "stream_generate",
]
