"""The ledger must see what it is there to see."""

from __future__ import annotations

from tests.faults.ledger import Ledger


def test_what_arrived_once_and_in_order_is_fine() -> None:
    accepted = {"a": ["1", "2"], "b": ["3"]}
    assert Ledger.of(accepted, [("a", "1"), ("b", "3"), ("a", "2")]) == Ledger(3, 0, 0, 0, 0)


def test_loss_repetition_and_disorder_are_told_apart() -> None:
    accepted = {"a": ["1", "2", "3"], "b": ["4", "5"]}
    arrived = [("a", "2"), ("a", "1"), ("a", "2"), ("b", "4"), ("b", "9")]
    assert Ledger.of(accepted, arrived) == Ledger(accepted=5, lost=2, repeated=1, disordered=1, unknown=1)
