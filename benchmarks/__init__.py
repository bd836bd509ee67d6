"""What the package costs, measured beside what one would use instead: ``python -m benchmarks``.

Machines and their load differ, so each figure is a ratio of medians whose two sides were measured in turn, in
one run. Every contender is a process of its own; brokers are others, whose CPU time is not counted.
"""
