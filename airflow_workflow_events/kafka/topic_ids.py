"""Noticing that a topic was deleted and made again, by the id that Kafka gives each topic.

A consumer at offset 3 of the old topic reads on at offset 3 of the new one, as long as that has more records
by the time of its next fetch: librdkafka tells of offsets that are out of range and of nothing else. Names,
offsets and leader epochs repeat; ids do not. Source: KIP-516.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaException

from airflow_workflow_events import forks
from airflow_workflow_events.errors import WorkflowEventsError, printable, text_of
from airflow_workflow_events.kafka.oauth import with_first_token
from airflow_workflow_events.kafka.topics import connection_options

log: logging.Logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 5.0


class TopicIds:
    """Remembers the ids of topics. Asking never blocks: an answer is looked at the next time.

    Brokers that know no ids, such as the embedded one, do not answer; they are not asked again.

    Args:
        config: librdkafka's configuration, of which the options of the connection are taken.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = connection_options(config)
        self._client: Any = None
        self._known: dict[str, str] = {}
        self._asked: dict[str, Future[Any]] = {}
        self._is_answered = True

    def made_again(self) -> set[str]:
        """Return the topics of which an answer has come that they have another id than before."""
        found = set()
        for topic, answer in list(self._asked.items()):
            if not answer.done():
                continue
            del self._asked[topic]
            topic_id = self._id_in(answer)
            if topic_id is not None and self._known.setdefault(topic, topic_id) != topic_id:
                self._known[topic] = topic_id
                found.add(topic)
        return found

    def ask(self, topics: Iterable[str]) -> None:
        """Ask for the ids of topics that are not being asked for."""
        wanted = [topic for topic in topics if topic not in self._asked]
        if not wanted or not self._is_answered:
            return
        if self._client is None and not self._connect():
            return
        self._asked.update(
            self._client.describe_topics(
                confluent_kafka.TopicCollection(wanted), request_timeout=_ANSWER_SECONDS
            )
        )

    def close(self) -> None:
        """Give the client up; nothing is asked any more."""
        self._client, self._is_answered = None, False
        self._asked.clear()

    def leave_to_parent(self) -> None:
        """In the child of a fork: forget the parent's client without touching it."""
        if self._client is not None:
            # Destroying it would wait for threads that do not exist here.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._client))
        self.close()

    def _connect(self) -> bool:
        from confluent_kafka.admin import AdminClient  # slow to import

        try:
            config = with_first_token(self._config, _ANSWER_SECONDS, log.debug)
            with forks.critical_section():  # librdkafka and SSL set up what all clients share
                self._client = AdminClient({**config, "log_level": 0})  # the consumer says what is wrong
        except (WorkflowEventsError, KafkaException, ValueError, TypeError) as error:
            log.warning("whether topics are made again is not noticed: %s", printable(text_of(error)))
            self.close()
            return False
        return True

    def _id_in(self, answer: Future[Any]) -> str | None:
        try:
            return str(answer.result().topic_id)
        except KafkaException as error:
            if not self._known and error.args[0].code() == confluent_kafka.KafkaError._TIMED_OUT:  # noqa: SLF001 - its public name
                log.debug("the brokers do not tell the ids of topics")
                self.close()
            return None  # it does not exist now, may not be seen, or no broker answers: asked again
