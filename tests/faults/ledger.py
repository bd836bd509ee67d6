"""What was accepted, compared with what arrived."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Message

from tests.broker import event_of


@dataclass(frozen=True, slots=True)
class Ledger:
    """The difference between what was accepted and what is on the topic.

    Attributes:
        accepted: how many events were accepted.
        lost: accepted ids that never arrived.
        repeated: deliveries beyond the first of an id.
        disordered: ordering keys whose events arrived first in another order than they were accepted in.
        unknown: ids that arrived and that nobody noted as accepted: their process died in between.
    """

    accepted: int
    lost: int
    repeated: int
    disordered: int
    unknown: int

    @classmethod
    def of(cls, accepted: Mapping[str, Sequence[str]], arrived: Iterable[tuple[str, str]]) -> Ledger:
        """Compare.

        Args:
            accepted: event ids by ordering key, in the order in which they were accepted.
            arrived: ordering key and event id of each delivery, in the order of the log.
        """
        ids = {event_id for of_key in accepted.values() for event_id in of_key}
        first: dict[str, list[str]] = {}
        seen: set[str] = set()
        repeated = 0
        for key, event_id in arrived:
            if event_id in seen:
                repeated += 1
                continue
            seen.add(event_id)
            first.setdefault(key, []).append(event_id)
        disordered = 0
        for key, of_key in accepted.items():
            arrived_of_key = [event_id for event_id in first.get(key, []) if event_id in ids]
            disordered += arrived_of_key != [event_id for event_id in of_key if event_id in seen]
        return cls(
            accepted=len(ids),
            lost=len(ids - seen),
            repeated=repeated,
            disordered=disordered,
            unknown=len(seen - ids),
        )

    @classmethod
    def of_messages(cls, accepted: Mapping[str, Sequence[str]], messages: Iterable[Message]) -> Ledger:
        """Compare with the messages of a topic; those of a partition in the order of its log."""
        events = map(event_of, messages)
        return cls.of(accepted, ((event.ordering_key, event.event_id) for event in events))
