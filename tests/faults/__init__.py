"""Faults, and what becomes of the events: ``make faults`` injects them in full and prints a table.

``make test`` runs the same tests with fewer repetitions. Each row of docs/guarantees.md names one of them.
"""
