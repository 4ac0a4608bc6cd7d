"""A server that many tests ask; they leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.runtime.server.harness import Running, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as made:
        yield made
        made.until_idle()
