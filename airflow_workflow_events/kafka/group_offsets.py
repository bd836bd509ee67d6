"""What consumer groups have committed, read and written for groups that nobody has joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import confluent_kafka
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from airflow_workflow_events.errors import KafkaError
from airflow_workflow_events.kafka.config import without_secrets
from airflow_workflow_events.kafka.consumer_client import Place
from airflow_workflow_events.kafka.reports import translate
from airflow_workflow_events.kafka.topics import connection_options

_ANSWER_SECONDS = 10.0


class GroupOffsets:
    """Reads and commits offsets of any number of groups through one client.

    A consumer commits for its own group alone, so a consumer that many groups share cannot commit for them.

    Args:
        config: librdkafka's configuration; what it says about the connection is taken.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        # Slow to import, and needed by triggers alone.
        from confluent_kafka.admin import AdminClient

        self._config = connection_options(config)
        self._client = AdminClient(self._config)

    def places(self, topic: str) -> list[Place]:
        """Return topic and partition of each of a topic's partitions; none where there is no such topic.

        Raises:
            KafkaAuthorizationError: the topic may not be seen.
            KafkaError: the brokers do not say.
        """
        try:
            # Asked for all topics, as asking for one makes it where brokers make topics by themselves.
            found = self._client.list_topics(timeout=_ANSWER_SECONDS).topics.get(topic)
        except confluent_kafka.KafkaException as error:
            raise self._translated(error.args[0]) from None
        return [(topic, partition) for partition in sorted(found.partitions)] if found is not None else []

    def committed(self, group_id: str, places: Iterable[Place]) -> dict[Place, int]:
        """Return for each topic and partition the offset that comes next, where one is committed.

        Raises:
            KafkaAuthorizationError: the group may not be read.
            KafkaError: the brokers do not say.
        """
        partitions = [TopicPartition(topic, partition) for topic, partition in places]
        if not partitions:
            return {}
        answer = self._client.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group_id, partitions)], request_timeout=_ANSWER_SECONDS
        )[group_id]
        return {(one.topic, one.partition): one.offset for one in self._partitions(answer) if one.offset >= 0}

    def commit(self, group_id: str, positions: Mapping[Place, int]) -> None:
        """Commit for each topic and partition the offset that comes next.

        Raises:
            KafkaAuthorizationError: the group may not commit.
            KafkaError: the brokers refused, or did not answer.
        """
        if not positions:
            return
        offsets = [
            TopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()
        ]
        answer = self._client.alter_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group_id, offsets)], request_timeout=_ANSWER_SECONDS
        )[group_id]
        self._partitions(answer)

    def _partitions(self, answer: Any) -> list[TopicPartition]:
        try:
            found: list[TopicPartition] = answer.result(timeout=_ANSWER_SECONDS + 1).topic_partitions
        except confluent_kafka.KafkaException as error:
            raise self._translated(error.args[0]) from None
        for one in found:
            if one.error is not None:
                raise self._translated(one.error)
        return found

    def _translated(self, error: confluent_kafka.KafkaError) -> KafkaError:
        return translate(error, without_secrets(error.str(), self._config))
