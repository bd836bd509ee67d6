"""Promises that hold for every input, looked for with generated ones."""
