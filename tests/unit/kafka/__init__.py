"""How an event travels."""
