"""Airflow context, run or task -> workflow event. Translation only: nothing here publishes."""
