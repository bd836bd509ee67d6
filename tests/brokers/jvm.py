"""Apache Kafka brokers run from Maven's jars: no container, no installation."""

from __future__ import annotations

import atexit
import base64
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # noqa: TID253
    AdminClient,
    NewTopic,
)

from tests.brokers import secure_listener
from tests.brokers.jars import KafkaUnavailable, kafka_jars
from tests.brokers.metadata import QUIET, metadata_from
from tests.brokers.node import make_nodes, node_properties
from tests.brokers.secure_listener import SecureListener
from tests.waiting import await_condition

__all__ = ["KafkaCluster", "KafkaStartError", "KafkaUnavailable", "SecureListener", "kafka_jars"]

_START_TIMEOUT_SECONDS = 90.0
_LEADER_TIMEOUT_SECONDS = 30.0
# Enough for a lone broker. Nodes that leave together wait, in vain, for a majority to approve.
_STOP_GRACE_SECONDS = 2.0


class KafkaStartError(Exception):
    """A broker did not become ready; the message ends with the tail of its log."""


class KafkaCluster:
    """A KRaft cluster, each node of which is broker and controller, that lives in a ``with`` block.

    The PLAINTEXT listener is open to everybody on this machine. With three brokers, topics have three
    replicas and ``min.insync.replicas`` is 2. Not safe for use by several threads at once.
    """

    broker_ids: tuple[int, ...]
    """All brokers, running or not: 1, 2, ..."""
    bootstrap_servers: str
    """Comma-separated ``host:port`` of every broker's PLAINTEXT listener."""
    secure: SecureListener | None
    """How to reach the listeners with TLS; ``None`` unless the cluster was made with ``secure=True``."""

    def __init__(
        self,
        jars: Path,
        work_dir: Path,
        brokers: int = 1,
        secure: bool = False,
        auto_create_topics: bool = True,
    ) -> None:
        """Choose ports, write settings and, when ``secure``, make certificates; nothing is started yet.

        Args:
            jars: what ``kafka_jars`` returned.
            work_dir: an empty directory, or one to be created, for data, logs and keys.
            brokers: how many brokers.
            secure: whether there are a SASL_SSL and an SSL listener, with authorisation, as well.
            auto_create_topics: whether the brokers create topics that clients merely ask for.
        """
        self._jars = jars.absolute()
        self._nodes = make_nodes(work_dir.absolute(), brokers)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._paused: set[int] = set()
        # Brokers end with the thread that starts them, so this is one of the cluster's own: they must
        # outlive a test's short-lived thread that restarts one.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-spawner")
        self._creator_pid = os.getpid()
        self.broker_ids = tuple(self._nodes)
        self.bootstrap_servers = ",".join(node.address for node in self._nodes.values())
        self.secure = None
        properties = {"auto.create.topics.enable": str(auto_create_topics).lower()}
        if secure:
            self.secure, certificates = secure_listener.make_secure_listener(
                work_dir.absolute() / "tls", list(self._nodes.values())
            )
            properties |= secure_listener.broker_properties(self.secure, certificates)
        for node in self._nodes.values():
            node.write_configuration(node_properties(node, self._nodes, secure=secure) | properties)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Prepare the log directories, start all brokers and wait until they are ready.

        Raises:
            KafkaStartError: when one of them fails, or 90 seconds were not enough.
        """
        # For where the kernel does not end brokers along with this process.
        atexit.register(self._stop_at_exit)
        try:
            self._format()
            for number in self.broker_ids:
                self._spawn(number)
            self.await_ready()
            if self.secure is not None:
                secure_listener.create_acls(self._admin())
                self._await_secure(self.secure)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all brokers: with SIGTERM, and after two seconds with SIGKILL. Does nothing the second time."""
        for number in tuple(self._paused):
            self.resume(number)
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + _STOP_GRACE_SECONDS
        for process in self._processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        self._spawner.shutdown()
        atexit.unregister(self._stop_at_exit)

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        replication_factor: int | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """Create a topic and wait until every running broker names a leader for each partition.

        Args:
            replication_factor: the default ``None`` means one replica on each broker, at most three.
            config: topic settings, none by default.

        Raises:
            confluent_kafka.KafkaException: when the cluster refuses.
        """
        replicas = replication_factor or min(3, len(self._nodes))
        topic = NewTopic(name, partitions, replicas, config=dict(config or {}))
        admin = self._admin()  # named, since the request dies with its client
        admin.create_topics([topic], request_timeout=30)[name].result()

        def led_everywhere() -> bool:
            return all(self._leaders(number, name, partitions) for number in self._reachable())

        what = f"leaders of all partitions of {name}"
        await_condition(led_everywhere, timeout_seconds=_LEADER_TIMEOUT_SECONDS, what=what)

    def leader(self, topic: str, partition: int) -> int:
        """The id of the broker that leads the partition, as a running broker sees it.

        Waits up to 30 seconds for there to be one. Until the cluster has noticed a ``kill``, which
        takes some seconds, this may be the dead broker.
        """

        def leaders() -> list[int] | None:
            views = (self._leaders(number, topic, partition + 1) for number in self._reachable())
            return next((view for view in views if view), None)

        what = f"a leader of {topic} [{partition}]"
        found = await_condition(leaders, timeout_seconds=_LEADER_TIMEOUT_SECONDS, what=what)
        assert found is not None
        return found[partition]

    def kill(self, broker_id: int) -> None:
        """End a broker with SIGKILL; its data stays for ``start_broker``."""
        process = self._processes.pop(broker_id)
        self._paused.discard(broker_id)
        process.kill()
        process.wait()

    def start_broker(self, broker_id: int, *, wait_until_ready: bool = True) -> None:
        """Start a broker that was killed, with the data and ports it had.

        Args:
            wait_until_ready: by default this goes on to ``await_ready``, which needs a majority of
                the cluster's nodes to run; pass false to start the first of several.

        Raises:
            ValueError: when the broker is running.
        """
        if broker_id in self._processes:
            raise ValueError(f"Broker {broker_id} is running")
        self._spawn(broker_id)
        if wait_until_ready:
            self.await_ready()

    def pause(self, broker_id: int) -> None:
        """Halt a broker with SIGSTOP: its connections stay open and nothing answers."""
        self._processes[broker_id].send_signal(signal.SIGSTOP)
        self._paused.add(broker_id)

    def resume(self, broker_id: int) -> None:
        """Undo ``pause``."""
        self._processes[broker_id].send_signal(signal.SIGCONT)
        self._paused.discard(broker_id)

    def await_ready(self) -> None:
        """Wait until every broker that runs and is not paused answers, and knows all the others.

        Raises:
            KafkaStartError: when a broker has ended, or 90 seconds were not enough.
        """

        def ready() -> bool:
            for number, process in self._processes.items():
                if process.poll() is not None:
                    raise self._start_error(f"Broker {number} ended with {process.returncode}", [number])
            expected = self._reachable()
            return all(expected <= self._brokers_seen_by(number) for number in expected)

        self._await_start(ready, "an answer from every broker")

    def _format(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        users = [] if self.secure is None else secure_listener.scram_format_arguments(self.secure)
        # All at once, because most of the time goes into starting a Java machine.
        running = {
            number: self._spawn_command(number, [*node.format_command(self._jars, cluster_id), *users])
            for number, node in self._nodes.items()
        }
        failed = [number for number, process in running.items() if process.wait() != 0]
        if failed:
            raise self._start_error("Formatting the log directory failed", failed)

    def _spawn(self, broker_id: int) -> None:
        command = self._nodes[broker_id].run_command(self._jars)
        self._processes[broker_id] = self._spawn_command(broker_id, command)

    def _spawn_command(self, broker_id: int, command: list[str]) -> subprocess.Popen[bytes]:
        return self._spawner.submit(self._nodes[broker_id].spawn, command).result()

    def _stop_at_exit(self) -> None:
        # A forked child inherits the registration, and must not end its parent's brokers.
        if os.getpid() == self._creator_pid:
            self.stop()

    def _start_error(self, what: str, broker_ids: Iterable[int]) -> KafkaStartError:
        return KafkaStartError("\n".join([what, *(self._nodes[number].log_tail() for number in broker_ids)]))

    def _await_start(self, condition: Callable[[], bool], what: str) -> None:
        try:
            await_condition(condition, timeout_seconds=_START_TIMEOUT_SECONDS, what=what)
        except AssertionError as error:
            raise self._start_error(str(error), self._processes) from None

    def _await_secure(self, secure: SecureListener) -> None:
        """Wait until each broker lets ``writer`` log in and ask for a topic, which takes its grants."""

        def granted(address: str) -> bool:
            topic = secure_listener.TOPIC_PREFIX + "grants-probe"
            metadata = metadata_from(address, secure.client_settings("writer"), topic)
            error = None if metadata is None else metadata.topics[topic].error
            return error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART

        for node in self._nodes.values():
            self._await_start(partial(granted, node.secure_address), "the users' permissions")

    def _reachable(self) -> set[int]:
        return self._processes.keys() - self._paused

    def _brokers_seen_by(self, broker_id: int) -> set[int]:
        metadata = metadata_from(self._nodes[broker_id].address, {})
        return set() if metadata is None else set(metadata.brokers)

    def _leaders(self, broker_id: int, topic: str, partitions: int) -> list[int] | None:
        """Leaders of the first ``partitions`` partitions in one broker's view; ``None`` if one is missing."""
        metadata = metadata_from(self._nodes[broker_id].address, {})
        if metadata is None or topic not in metadata.topics:
            return None
        known = metadata.topics[topic].partitions
        leaders = [known[number].leader if number in known else -1 for number in range(partitions)]
        return None if -1 in leaders else leaders

    def _admin(self) -> AdminClient:
        # A new client each time: an old one may be holding back from a broker that was away.
        servers = ",".join(self._nodes[number].address for number in sorted(self._reachable()))
        return AdminClient({"bootstrap.servers": servers, **QUIET})
