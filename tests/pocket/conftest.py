"""One tokenizer for all tests: building it takes two seconds."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from mlxray.pocket.tokenizer import build_tokenizer


@pytest.fixture(scope="session")
def built() -> Tokenizer:
    return build_tokenizer()
