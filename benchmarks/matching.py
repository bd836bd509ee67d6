"""What the official sensor asks of a message. A module of its own, as the triggerer imports it."""

from __future__ import annotations

import json
from typing import Any


def match(message: Any, *, workflow_id: str, workflow_run_id: str) -> dict[str, Any] | None:
    """Return the event of a Kafka message where it is the one that a sensor waits for."""
    event: dict[str, Any] = json.loads(message.value())
    if (event["workflow_id"], event["workflow_run_id"]) == (workflow_id, workflow_run_id):
        return event
    return None
