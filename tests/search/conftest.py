"""What tests of the method share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from search.kernels import native


@pytest.fixture
def plain_layers() -> Iterator[None]:
    """Layers in plain PyTorch, whose parts can be listened to."""
    native.choose("off")
    yield
    native.choose("auto")
