"""A Kafka broker inside the process: librdkafka's mock cluster as a context manager.

It ships with confluent-kafka, starts in milliseconds and serves real clients, of other processes too. It
keeps the newest 5 MB of each partition in memory, and does not enforce idempotence, elect leaders, check
credentials or create topics on request (it makes them on first use): what needs these needs a real Kafka.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import confluent_kafka.cimpl

from airflow_workflow_events.errors import ConfigurationError, KafkaError

_PRODUCER = 0  # rd_kafka_type_t RD_KAFKA_PRODUCER
_ERROR_BYTES = 512
_PRODUCE_API_KEY = 0  # Kafka protocol, ApiKey of Produce

# Not among the signatures, as an older librdkafka lacks it and is good enough without.
_GROUP_DELAY = "rd_kafka_mock_group_initial_rebalance_delay_ms"

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (ctypes.c_void_p, []),
    "rd_kafka_conf_set": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t],
    ),
    "rd_kafka_new": (ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]),
    "rd_kafka_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_err2str": (ctypes.c_char_p, [ctypes.c_int]),
    "rd_kafka_mock_cluster_new": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]),
    "rd_kafka_mock_cluster_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, [ctypes.c_void_p]),
    "rd_kafka_mock_topic_create": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int],
    ),
    "rd_kafka_mock_push_request_errors_array": (
        None,
        [ctypes.c_void_p, ctypes.c_int16, ctypes.c_size_t, ctypes.c_void_p],
    ),
    "rd_kafka_mock_clear_request_errors": (None, [ctypes.c_void_p, ctypes.c_int16]),
    "rd_kafka_mock_broker_set_down": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_up": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_rtt": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int]),
}


class EmbeddedBroker:
    """A Kafka cluster in this process, for demos and tests; not for data.

    Args:
        brokers: how many brokers. Default 1.
        topics: topics to make, with their number of partitions. Others are made on first use, with four.

    Raises:
        ConfigurationError: confluent-kafka's librdkafka lacks the mock cluster (a build of one's own may).

    Example::

        with EmbeddedBroker() as broker:
            producer = WorkflowEventProducer(bootstrap_servers=broker.bootstrap_servers)
    """

    def __init__(self, brokers: int = 1, topics: dict[str, int] | None = None) -> None:
        if brokers < 1:
            raise ConfigurationError(f"brokers is {brokers}: use 1 or more")
        self._brokers = brokers
        self._topics = dict(topics or {})
        self._library = _load()
        self._handle: int | None = None
        self._cluster: int | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` addresses, comma separated, for clients in any process of this machine."""
        servers: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._running())
        return servers.decode()

    def start(self) -> Self:
        """Start the brokers; returns the broker itself.

        Raises:
            KafkaError: librdkafka could not start them.
        """
        if self._cluster is not None:
            return self
        text = ctypes.create_string_buffer(_ERROR_BYTES)
        conf = self._library.rd_kafka_conf_new()
        # Warnings and worse only: the mock announces itself on stderr at notice level.
        self._library.rd_kafka_conf_set(conf, b"log_level", b"4", text, _ERROR_BYTES)
        self._handle = self._library.rd_kafka_new(_PRODUCER, conf, text, _ERROR_BYTES)
        if not self._handle:
            raise KafkaError(f"librdkafka refuses a client: {text.value.decode()}")
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._handle, self._brokers)
        if not self._cluster:
            self.stop()
            raise KafkaError("librdkafka could not start its mock cluster: is a loopback port free?")
        share_out_at_once = getattr(self._library, _GROUP_DELAY, None)
        if share_out_at_once is not None:
            # The first member of a group would otherwise wait three seconds for others to join.
            share_out_at_once(ctypes.c_void_p(self._cluster), ctypes.c_int32(0))
        for topic, partitions in self._topics.items():
            self.create_topic(topic, partitions)
        return self

    def stop(self) -> None:
        """Stop the brokers and forget their messages. Calling it again does nothing."""
        if self._cluster:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        if self._handle:
            self._library.rd_kafka_destroy(self._handle)
        self._cluster = self._handle = None

    def create_topic(self, topic: str, partitions: int = 4) -> None:
        """Make a topic with that many partitions.

        Raises:
            KafkaError: the topic exists already.
        """
        code = self._library.rd_kafka_mock_topic_create(
            self._running(), topic.encode(), partitions, self._brokers
        )
        self._check(code, f"cannot create topic {topic}")

    def take_down(self) -> None:
        """Close every broker's listener and connections, as if Kafka were gone."""
        for broker_id in range(1, self._brokers + 1):
            self._check(self._library.rd_kafka_mock_broker_set_down(self._running(), broker_id), "take_down")

    def bring_up(self) -> None:
        """Open the listeners again, with the messages they had."""
        for broker_id in range(1, self._brokers + 1):
            self._check(self._library.rd_kafka_mock_broker_set_up(self._running(), broker_id), "bring_up")

    def set_round_trip_ms(self, milliseconds: int) -> None:
        """Delay every answer by that many milliseconds; 0 ends it."""
        for broker_id in range(1, self._brokers + 1):
            self._check(
                self._library.rd_kafka_mock_broker_set_rtt(self._running(), broker_id, milliseconds),
                "set_round_trip_ms",
            )

    def fail_produce_requests(self, codes: Sequence[int]) -> None:
        """Answer the next produce requests with errors, one code a request.

        Args:
            codes: Kafka's error codes, e.g. ``confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED``.
        """
        self.fail_requests(_PRODUCE_API_KEY, codes)

    def fail_requests(self, api_key: int, codes: Sequence[int]) -> None:
        """Answer the next requests of a kind with errors, one code a request.

        Args:
            api_key: the kind, by its number in Kafka's protocol, e.g. 22 for ``InitProducerId``.
            codes: Kafka's error codes.
        """
        array = (ctypes.c_int * len(codes))(*codes)
        self._library.rd_kafka_mock_push_request_errors_array(self._running(), api_key, len(codes), array)

    def clear_failures(self) -> None:
        """Take back what :meth:`fail_produce_requests` has not used up."""
        self._library.rd_kafka_mock_clear_request_errors(self._running(), _PRODUCE_API_KEY)

    def _running(self) -> int:
        if self._cluster is None:
            raise ConfigurationError("the embedded broker is not running: use it with 'with' or call start()")
        return self._cluster

    def _check(self, code: int, what: str) -> None:
        if code:
            raise KafkaError(f"{what}: {self._library.rd_kafka_err2str(code).decode()}")


def _load() -> ctypes.CDLL:
    # Looking symbols up through the extension module also searches the librdkafka it is linked to, wherever
    # the wheel, a distribution or a build of one's own has put that.
    library = ctypes.CDLL(confluent_kafka.cimpl.__file__)
    try:
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
    except AttributeError as error:
        raise ConfigurationError(
            f"this librdkafka has no mock cluster ({error}): use the confluent-kafka wheel"
        ) from None
    return library
