"""What is handled, and what of it a group's brokers have confirmed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from time import monotonic, sleep

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from airflow_workflow_events.errors import KafkaTimeoutError
from airflow_workflow_events.kafka.connection import Connection
from airflow_workflow_events.kafka.positions import Place, place_of

log: logging.Logger = logging.getLogger(__name__)

_COMMIT_SECONDS = 30.0
_AGAIN_SECONDS = 0.1
# A commit takes milliseconds. Who waits for longer takes part in what the group does meanwhile.
_SERVE_AFTER_SECONDS = 1.0

# Commits that fail with these are no news: there was nothing to commit, or the group is sharing out anew.
_PASSING = frozenset(
    {
        KafkaError._NO_OFFSET,  # noqa: SLF001 - its public name
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.STALE_MEMBER_EPOCH,
    }
)
# While the group's broker is away, starts or moves, trying again is all there is to do.
_TRANSIENT = frozenset(
    {
        KafkaError._WAIT_COORD,  # noqa: SLF001 - its public name
        KafkaError._TRANSPORT,  # noqa: SLF001 - its public name
        KafkaError._TIMED_OUT,  # noqa: SLF001 - its public name
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.REQUEST_TIMED_OUT,
        # The group is sharing out anew; what is left to this member can be committed after that.
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.STALE_MEMBER_EPOCH,
    }
)


class Commits:
    """Stores positions with librdkafka, which commits them, and waits for the brokers' word where asked to.

    Args:
        connection: of the consumer, for its warnings.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stored: dict[Place, int] = {}  # and perhaps not committed

    def store(self, consumer: confluent_kafka.Consumer, positions: Mapping[Place, int]) -> None:
        """Have positions committed in the background, on a rebalance and on closing."""
        if not positions:
            return
        # A partition that has gone to another member meanwhile is committed there, from before these events.
        assigned = set(map(place_of, consumer.assignment()))
        own = {place: offset for place, offset in positions.items() if place in assigned}
        if not own:
            return
        try:
            consumer.store_offsets(offsets=_partitions(own))
        except KafkaException as error:
            log.debug("not stored: %s", error)
        else:
            self._stored.update(own)

    def forget(self, places: Iterable[Place]) -> None:
        """Commit nothing more of partitions that were taken away."""
        for place in places:
            self._stored.pop(place, None)

    def commit(self, consumer: confluent_kafka.Consumer, serve: Callable[[], None]) -> KafkaError | None:
        """Commit what is stored and wait for the brokers' word; return why they refused.

        Raises:
            KafkaTimeoutError: none came within 30 seconds.
        """
        wanted = dict(self._stored)
        deadline = monotonic() + _COMMIT_SECONDS
        while wanted:
            refused = self._ask(consumer, wanted, serve, deadline)
            if refused is None:
                for place, offset in wanted.items():
                    if self._stored.get(place) == offset:
                        del self._stored[place]
                return None
            if refused.code() not in _TRANSIENT or monotonic() >= deadline:
                return refused
            serve()
            sleep(_AGAIN_SECONDS)
            # A partition that was taken away meanwhile is for others to commit.
            wanted = {place: offset for place, offset in wanted.items() if place in self._stored}
        return None

    def note(self, error: KafkaError | None, partitions: list[TopicPartition] | None) -> None:
        """Take what became of a commit; librdkafka's ``on_commit``."""
        refused = error or _first_error(partitions or [])
        if refused is not None and refused.code() not in _PASSING:
            self._connection.warn(
                f"a commit failed and is tried again: {self._connection.safe_text(refused)}"
            )

    def _ask(
        self,
        consumer: confluent_kafka.Consumer,
        wanted: Mapping[Place, int],
        serve: Callable[[], None],
        deadline: float,
    ) -> KafkaError | None:
        """Commit and wait for the answer.

        In a thread: librdkafka's synchronous commit waits as long as a session lasts, or longer, and the
        other kind's answer comes only with messages that nobody has asked for yet.
        """
        answers: list[KafkaError | None] = []
        is_answered = threading.Event()

        def commit() -> None:
            try:
                answers.append(
                    _first_error(consumer.commit(offsets=_partitions(wanted), asynchronous=False) or [])
                )
            except KafkaException as error:
                answers.append(error.args[0])
            except RuntimeError:  # the consumer was closed meanwhile
                answers.append(KafkaError(KafkaError._DESTROY))  # noqa: SLF001 - its public name
            finally:
                is_answered.set()

        threading.Thread(target=commit, name="workflow-events-commit", daemon=True).start()
        serve_at = monotonic() + _SERVE_AFTER_SECONDS
        while not is_answered.wait(_AGAIN_SECONDS):
            if monotonic() >= deadline:
                raise KafkaTimeoutError(
                    f"no broker answered a commit within {_COMMIT_SECONDS:g} s; its outcome is unknown, and "
                    "what it was about may be delivered again",
                    name="_TIMED_OUT",
                )
            if monotonic() >= serve_at:
                serve()
        return answers[0]


def _first_error(partitions: Iterable[TopicPartition]) -> KafkaError | None:
    return next((one.error for one in partitions if one.error is not None), None)


def _partitions(positions: Mapping[Place, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()]
