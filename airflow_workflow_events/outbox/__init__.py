"""Why no event is lost: a table that accepts events, and a relay that delivers them. SQLAlchemy Core only."""
