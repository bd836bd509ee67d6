"""Real message brokers for the tests, started as processes on this machine."""
