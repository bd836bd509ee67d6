"""The contract in other languages: its official validators, and consumers that nobody here wrote."""
