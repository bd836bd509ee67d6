"""The outbox: what it accepts, and how it is kept."""
