"""What consumer groups have committed, read and written for groups that nobody has joined."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError as Code
from confluent_kafka import KafkaException, TopicPartition

from airflow_workflow_events import forks
from airflow_workflow_events.errors import KafkaError, KafkaTimeoutError
from airflow_workflow_events.kafka.assignment import FINAL, reading_error
from airflow_workflow_events.kafka.config import IDLE_OPTIONS, check_group_id
from airflow_workflow_events.kafka.connection import Connection, refused_configuration
from airflow_workflow_events.kafka.consumer_client import Place
from airflow_workflow_events.kafka.oauth import with_first_token
from airflow_workflow_events.kafka.topics import connection_options

_ANSWER_SECONDS = 10.0
# Without members there is no session, but this is how long librdkafka waits for the group's coordinator
# before it gives a commit up; so none is left over when a client is closed.
_COORDINATOR_SECONDS = 6.0
_POLL_SECONDS = 0.005
_FIRST_SLICE_SECONDS = 0.5
_UNANSWERED = frozenset({Code._TIMED_OUT, Code._WAIT_COORD, Code._TRANSPORT})  # noqa: SLF001 - their public names
# Each client has a thread for every broker, and connections; who commits often keeps them.
_MAX_CLIENTS = 8
_MAX_IDLE_SECONDS = 120.0


class GroupOffsets:
    """Reads and commits the offsets of any number of groups; for one thread at a time.

    The groups have no members: whoever reads for many of them reads without a group. A client commits for
    one group alone, so a few are kept. librdkafka's admin client would do for all groups, but an answer that
    comes too late, as after an outage, ends its process (confluentinc/librdkafka, issue 4605).

    Args:
        get_config: returns librdkafka's configuration; what it says about the connection is taken. Called for
            each client, which is replaced when it fails, as a password may have been changed meanwhile.
    """

    def __init__(self, get_config: Callable[[], Mapping[str, Any]]) -> None:
        self._get_config = get_config
        self._clients: dict[str, _Client] = {}  # in the order in which they were used

    def committed(self, group_id: str, topic: str) -> dict[Place, int] | None:
        """Return the offset that comes next in each partition of which one is committed.

        Returns:
            ``None`` where there is no such topic.

        Raises:
            ConfigurationError: librdkafka refuses the configuration, or the group's name is none.
            KafkaAuthorizationError: the topic may not be seen.
            KafkaError: the brokers do not say, or refuse.
        """
        client = self._client_of(group_id)
        try:
            return client.committed(topic)
        except KafkaError:
            self.forget(group_id)
            raise

    def commit(self, group_id: str, positions: Mapping[Place, int]) -> None:
        """Commit for each topic and partition the offset that comes next.

        Raises:
            ConfigurationError: librdkafka refuses the configuration.
            KafkaError: the brokers refused, or did not answer.
        """
        if not positions:
            return
        client = self._client_of(group_id)
        try:
            client.commit(positions)
        except KafkaError:
            self.forget(group_id)
            raise

    def forget(self, group_id: str) -> None:
        """Give the client of a group up, if there is one."""
        client = self._clients.pop(group_id, None)
        if client is not None:
            client.close()

    def _client_of(self, group_id: str) -> _Client:
        for other, client in list(self._clients.items()):
            is_too_many = len(self._clients) >= _MAX_CLIENTS and group_id not in self._clients
            if other != group_id and (is_too_many or client.used_at < monotonic() - _MAX_IDLE_SECONDS):
                self.forget(other)
        found = self._clients.pop(group_id, None)
        if found is None or found.is_of_parent:
            found = _Client(self._get_config(), group_id)
        self._clients[group_id] = found
        found.used_at = monotonic()
        return found


class _Client:
    """A librdkafka consumer that reads nothing."""

    def __init__(self, config: Mapping[str, Any], group_id: str) -> None:
        check_group_id(group_id)
        self.used_at = monotonic()
        self.is_of_parent: bool = False
        self._config = connection_options(config)
        self._connection = Connection({**self._config, "group.id": group_id})
        self._answers: list[tuple[Code | None, list[TopicPartition]]] = []
        answers, note = self._answers, self._connection.note
        with_token = with_first_token(self._config, _ANSWER_SECONDS, self._connection.note_token_failure)
        try:
            with forks.critical_section():  # librdkafka and SSL set up what all clients share
                self._consumer = confluent_kafka.Consumer(
                    {
                        **IDLE_OPTIONS,
                        **with_token,
                        "group.id": group_id,
                        "session.timeout.ms": int(_COORDINATOR_SECONDS * 1000),
                        "enable.auto.commit": False,
                        "error_cb": note,
                        "on_commit": lambda error, partitions: answers.append((error, partitions)),
                    },
                    logger=self._connection.log,
                )
        except (KafkaException, ValueError, TypeError) as error:
            raise refused_configuration(error, config) from None
        _open_clients.add(self)

    def committed(self, topic: str) -> dict[Place, int] | None:
        began = monotonic()
        try:
            if not self._connection.was_accepted:
                ask = partial(self._consumer.list_topics, topic)
                self._connection.prove(lambda seconds: ask(timeout=seconds), self._serve, _ANSWER_SECONDS)
            found = self._consumer.list_topics(topic, timeout=_ANSWER_SECONDS).topics[topic]
            if found.error is not None:
                if found.error.code() == Code.UNKNOWN_TOPIC_OR_PART:
                    return None
                raise self._translated(found.error, began, topic)
            answer = self._committed([TopicPartition(topic, one) for one in sorted(found.partitions)], began)
        except KafkaException as error:
            raise self._translated(error.args[0], began, topic) from None
        self._check(answer, began)
        return {(one.topic, one.partition): one.offset for one in answer if one.offset >= 0}

    def _committed(self, asked: list[TopicPartition], began: float) -> list[TopicPartition]:
        """Ask in slices: that the group is refused is told beside the answer, which then never comes."""
        seconds = _FIRST_SLICE_SECONDS
        while True:
            try:
                return self._consumer.committed(asked, timeout=seconds)
            except KafkaException as error:
                self._serve()
                if error.args[0].code() not in _UNANSWERED or monotonic() > began + _ANSWER_SECONDS:
                    raise
            seconds = min(seconds * 2, max(began + _ANSWER_SECONDS - monotonic(), _FIRST_SLICE_SECONDS))

    def _serve(self, seconds: float = 0) -> None:
        """Serve callbacks; raises where the brokers refuse the group, which they tell a consumer here."""
        message = self._consumer.poll(seconds)
        error = None if message is None else message.error()
        if error is not None and error.code() in FINAL:
            raise KafkaException(error)

    def commit(self, positions: Mapping[Place, int]) -> None:
        began = monotonic()
        self._answers.clear()
        try:
            # Not with asynchronous=False, which may wait for ever.
            self._consumer.commit(offsets=[TopicPartition(*place, at) for place, at in positions.items()])
        except KafkaException as error:
            raise self._translated(error.args[0], began) from None
        while not self._answers:
            if monotonic() > began + _ANSWER_SECONDS:
                raise self._translated(Code(Code._TIMED_OUT), began)  # noqa: SLF001 - its public name
            try:
                self._serve(_POLL_SECONDS)
            except KafkaException as error:
                raise self._translated(error.args[0], began) from None
        refused, partitions = self._answers[0]
        if refused is not None:
            raise self._translated(refused, began)
        self._check(partitions, began)

    def close(self) -> None:
        if self.is_of_parent:
            return
        # It may wait for a broker that is away.
        threading.Thread(target=self._consumer.close, name="workflow-events-closing", daemon=True).start()
        _open_clients.discard(self)

    def leave_to_parent(self) -> None:
        """In the child of a fork: never destroy it, which would wait for threads that do not exist here."""
        self.is_of_parent = True
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._consumer))

    def _check(self, partitions: list[TopicPartition], began: float) -> None:
        for one in partitions:
            if one.error is not None:
                raise self._translated(one.error, began)

    def _translated(self, error: Code, began: float, topic: str | None = None) -> KafkaError:
        if error.code() in _UNANSWERED:
            if (refusal := self._connection.refusal()) is not None:
                return refusal
            self._consumer.poll(0)  # what was wrong is told to the callback
            reason = self._connection.trouble_since(began) or "no answer"
            return KafkaTimeoutError(f"no broker answered about the group ({reason})", name=error.name())
        return reading_error(error, self._connection, topic)


_open_clients: weakref.WeakSet[_Client] = weakref.WeakSet()


def _in_child() -> None:
    for client in list(_open_clients):
        client.leave_to_parent()


forks.register(after_in_child=_in_child)
