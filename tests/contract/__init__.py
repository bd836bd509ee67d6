"""Promises between the package, Kafka and other libraries."""
