"""Airflow as it runs in production, compared with its own database row by row."""
