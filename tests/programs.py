"""Programs that are no Python packages: a test that needs one is skipped without it, but never in CI."""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(*names: str) -> str:
    """Return the path of the first of these programs that is installed."""
    for name in names:
        if path := shutil.which(name):
            return path
    reason = f"{' or '.join(names)} is not installed"
    if os.environ.get("CI"):
        pytest.fail(f"in CI nothing is left out, but {reason}", pytrace=False)
    pytest.skip(reason)
