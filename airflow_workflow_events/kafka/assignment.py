"""Which partitions a consumer reads: those its group gives it, or without a group all there are."""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from airflow_workflow_events import errors
from airflow_workflow_events.kafka import cooperation
from airflow_workflow_events.kafka.beginnings import Beginnings, committed_of
from airflow_workflow_events.kafka.connection import Connection
from airflow_workflow_events.kafka.consumer_config import METADATA_REFRESH_MS
from airflow_workflow_events.kafka.positions import Beginning, Place, StartFrom, place_of, resolve
from airflow_workflow_events.kafka.reports import translate
from airflow_workflow_events.kafka.topic_ids import TopicIds

log: logging.Logger = logging.getLogger(__name__)

# Brokers get this long for one answer.
_ANSWER_SECONDS = 5.0
# Asked for again and again, and nothing notices a stop meanwhile.
_METADATA_SECONDS = 2.0
# How often a consumer without a group looks for new partitions; librdkafka does it for groups.
_DISCOVERY_SECONDS = METADATA_REFRESH_MS / 1000
_ABSENT_TOPIC_SECONDS = 1.0
_IDS_SECONDS = 2.0
_ASK_AGAIN_SECONDS = 0.5

#: Without a permission or a place in the group there is nothing to wait for.
FINAL = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.INVALID_GROUP_ID,
    }
)
#: The topic is not there, or not yet.
ABSENT = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001 - its public name


class Assignment:
    """The partitions of one librdkafka consumer, and where they begin.

    Args:
        topics: what to read.
        start: where partitions begin that the group has committed nothing of.
        connection: of the consumer, for its warnings.
        patience_seconds: how long partitions may be on their way before their absence counts as idleness, in
            seconds.
        incremental: whether the group takes and gives partitions one by one.
        wait: waits so many seconds; returns whether the consumer was stopped.
        on_gone: told which partitions were taken away.
        topic_ids: notices that a topic was made again; asked without a group.
    """

    def __init__(
        self,
        topics: Sequence[str],
        start: StartFrom | dt.datetime | dt.timedelta,
        connection: Connection,
        *,
        patience_seconds: float,
        incremental: bool,
        wait: Callable[[float], bool],
        on_gone: Callable[[set[Place]], None],
        topic_ids: TopicIds,
    ) -> None:
        self.beginnings: Beginnings = Beginnings(start)
        self.moves: Counter[Place] = Counter()
        """How often each partition was taken away: what was fetched of it before is delivered again."""
        self._topics = topics
        self._connection = connection
        self._patience_seconds = patience_seconds
        self._incremental = incremental
        self._wait = wait
        self._on_gone = on_gone
        self._topic_ids = topic_ids
        self._made_again: set[str] = set()
        self._ask_ids_at = 0.0
        self._fresh: dict[Place, int] = {}  # where partitions began that the group had committed nothing of
        self._discover_at = 0.0
        self._has_joined = False
        self._waiting_since: float | None = None

    @property
    def is_settled(self) -> bool:
        """Without a group: whether it is known of every topic where it begins, or that it is not there."""
        return all(map(self.beginnings.is_settled, self._topics))

    @property
    def is_awaited(self) -> bool:
        """Whether there is no partition for the moment, but there may soon be."""
        since = self._waiting_since
        return not self._has_joined and (since is None or monotonic() < since + self._patience_seconds)

    def begin_to_wait(self) -> bool:
        """Begin the time in which partitions are on their way; return whether it begins now."""
        if self._waiting_since is not None:
            return False
        self._waiting_since = monotonic()
        return True

    def discover(self, consumer: confluent_kafka.Consumer) -> None:
        """Without a group: assign the partitions that are not assigned yet, if it is time to look for some.

        Raises:
            KafkaAuthorizationError: a topic may not be read.
        """
        self._made_again |= self._topic_ids.made_again()
        if self._has_joined and monotonic() >= self._ask_ids_at:
            self._ask_ids_at = monotonic() + _IDS_SECONDS
            self._topic_ids.ask(self._topics)
        if monotonic() < self._discover_at and not self._made_again:
            return
        self._discover_at = monotonic() + _DISCOVERY_SECONDS
        for topic in self._made_again:
            self._give_back(consumer, topic)
        self._made_again.clear()
        added: list[Beginning] = []
        try:
            for topic in self._topics:
                found = [
                    one
                    for one in self._partitions_of(consumer, topic)
                    if place_of(one) not in self.beginnings.begun
                ]
                added += self.beginnings.of(consumer, found)
        except KafkaException as error:
            self._discover_at = monotonic() + _ABSENT_TOPIC_SECONDS
            self._connection.warn(
                f"the brokers do not say where to begin: {self._connection.safe_text(error.args[0])}"
            )
            return
        self._has_joined = True
        self._connection.accept()
        self.beginnings.begin(added)
        if added:
            consumer.incremental_assign([one.partition for one in added])

    def _give_back(self, consumer: confluent_kafka.Consumer, topic: str) -> None:
        """Do without the partitions of a topic that was made again: all that it has now is new."""
        self._connection.warn(f"topic {topic} was deleted and made again; all of it is read")
        gone = {place for place in self.beginnings.begun if place[0] == topic}
        consumer.incremental_unassign([TopicPartition(*place) for place in gone])
        self.moves.update(gone)
        self.beginnings.make_new(topic)
        self._on_gone(gone)

    def look(self, consumer: confluent_kafka.Consumer) -> None:
        """See which partitions there are at first, as far as the brokers say so now.

        Not when partitions are assigned: ``list_topics`` leaves confluent-kafka without the state that the
        next callback asserts, which ends the process.

        Raises:
            KafkaAuthorizationError: a topic may not be read.
        """
        try:
            for topic in self._topics:
                if not self.beginnings.has_seen(topic):
                    self._partitions_of(consumer, topic)
        except KafkaException as error:
            log.debug("not seen yet: %s", self._connection.safe_text(error.args[0]))

    def miss(self, topic: str) -> None:
        """Take note that a topic does not exist: all of it will be new."""
        self.beginnings.see(topic)
        self._connection.accept()
        if all(map(self.beginnings.was_absent, self._topics)):
            self._has_joined = True  # a group shares nothing out as long as there is no topic
        self._warn_of_absence(topic)

    def _warn_of_absence(self, topic: str) -> None:
        self._connection.warn(
            f"topic {topic} does not exist yet (check its name); its events are read once it does"
        )

    def offsets_of(
        self, consumer: confluent_kafka.Consumer, start: dt.datetime | StartFrom
    ) -> dict[Place, int]:
        """Return for each partition that is read the offset at which it would begin.

        Raises:
            KafkaError: the brokers do not say.
        """
        partitions = [TopicPartition(topic, partition) for topic, partition in self.beginnings.begun]
        try:
            found = resolve(consumer, partitions, start, _ANSWER_SECONDS) if partitions else []
        except KafkaException as error:
            raise translate(error.args[0], self._connection.safe_text(error.args[0])) from None
        return {place_of(one.partition): max(one.partition.offset, 0) for one in found}

    def assign_at(self, consumer: confluent_kafka.Consumer, positions: Mapping[Place, int]) -> None:
        """Without a group: go on reading each partition at an offset; see the client's ``assign_at``."""
        begun = self.beginnings.begun
        self.moves.update(begun.keys())
        consumer.assign(
            [
                TopicPartition(topic, partition, positions.get((topic, partition), began))
                for (topic, partition), began in begun.items()
            ]
        )

    def on_assign(self, consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        """Begin to read what the group gives; called by librdkafka."""
        while True:
            try:
                committed, fresh = self._begin_of(consumer, partitions)
                break
            except KafkaException as error:
                if error.args[0].code() in FINAL:
                    raise reading_error(
                        error.args[0], self._connection, topic=", ".join(self._topics)
                    ) from None
                text = self._connection.safe_text(error.args[0])
                self._connection.warn(f"the brokers do not say where the group left off: {text}")
            # Nothing is read meanwhile, so there is nothing to lose by waiting for a broker to come back.
            if self._wait(_ASK_AGAIN_SECONDS):
                consumer.unassign()
                return
        self._has_joined = True
        self._connection.accept()
        found = committed + [one.partition for one in fresh]
        self.beginnings.begin(fresh)
        (consumer.incremental_assign if self._incremental else consumer.assign)(found)
        # Nought is the beginning, too: an offset that is gone is followed by the oldest one.
        self._keep(consumer, [TopicPartition(*place_of(one), max(one.offset, 0)) for one, _ in fresh])
        log.info("reading %s", ", ".join(f"{one.topic}[{one.partition}]" for one in found) or "nothing")

    def on_revoke(self, consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        """Give partitions back; called by librdkafka."""
        gone = {place_of(one) for one in partitions}
        self.moves.update(gone)
        self.beginnings.forget(gone)
        self._on_gone(gone)
        self._has_joined = False
        self._waiting_since = monotonic()
        if self._incremental:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    def on_lost(self, consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        """Do without partitions that others have already; called by librdkafka."""
        self._connection.warn("the group gave this consumer's partitions to others; it joins again")
        self.on_revoke(consumer, partitions)

    def _begin_of(
        self, consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]
    ) -> tuple[list[TopicPartition], list[Beginning]]:
        """Return where the group left off, and where the partitions begin that it has never committed."""
        committed, rest = committed_of(consumer, partitions)
        # Where this very client began counts also where that could not be committed.
        committed += [
            TopicPartition(*place_of(one), self._fresh[place_of(one)])
            for one in rest
            if place_of(one) in self._fresh
        ]
        fresh = [one for one in rest if place_of(one) not in self._fresh]
        return committed, self.beginnings.of(consumer, fresh)

    def _keep(self, consumer: confluent_kafka.Consumer, numbers: list[TopicPartition]) -> None:
        """Commit where partitions begin, although nothing is handled yet.

        Whoever gets a partition next would otherwise find another end of it, and miss what came in between.
        """
        if not numbers:
            return
        self._fresh.update({place_of(one): one.offset for one in numbers})
        try:
            consumer.store_offsets(offsets=numbers)  # committed later at the latest
            consumer.commit(offsets=numbers, asynchronous=False)
        except KafkaException as error:
            log.debug("where partitions begin is committed later: %s", error)

    def _partitions_of(self, consumer: confluent_kafka.Consumer, topic: str) -> Iterable[TopicPartition]:
        """Return a topic's partitions, and remember which ones it had when it was first seen."""
        ask = partial(consumer.list_topics, topic, timeout=_METADATA_SECONDS)
        found = cooperation.call(ask).topics[topic]
        self._connection.accept()
        if found.error is None:
            self.beginnings.see(topic, found.partitions)
            return [TopicPartition(topic, partition) for partition in sorted(found.partitions)]
        if found.error.code() in FINAL:
            raise reading_error(found.error, self._connection, topic)
        if found.error.code() not in ABSENT:
            raise KafkaException(found.error)
        self.beginnings.see(topic)
        self._discover_at = monotonic() + _ABSENT_TOPIC_SECONDS
        self._warn_of_absence(topic)
        return []


def reading_error(error: KafkaError, connection: Connection, topic: str | None = None) -> errors.KafkaError:
    """Return librdkafka's error as one of this package's, with advice for whoever reads ``topic``."""
    text = connection.safe_text(error)
    return translate(error, text, topic=topic, group=connection.group_id, reads=True)
