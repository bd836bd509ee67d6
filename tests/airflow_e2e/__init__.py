"""Real Airflow processes, real DAGs, and their events read from a broker."""
