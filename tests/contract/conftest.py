"""What the tests of several promises of the consumer share."""

from __future__ import annotations

import pytest

from tests.contract.consuming import new_group


@pytest.fixture(params=["group", "no group"])
def maybe_group(request: pytest.FixtureRequest) -> str | None:
    """A consumer group, and none."""
    return new_group() if request.param == "group" else None
