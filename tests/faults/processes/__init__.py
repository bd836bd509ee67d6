"""Programs that the fault suite starts, and ends."""
