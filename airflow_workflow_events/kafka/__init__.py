"""How an event travels: producers, delivery reports, the embedded broker. On confluent-kafka alone."""
