"""Airflow's UI in a real browser."""
