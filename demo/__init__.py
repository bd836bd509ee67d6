"""Real Airflow, real DAGs, and their events coming out of a Kafka broker."""
