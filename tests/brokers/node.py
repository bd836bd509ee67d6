"""One node of a test cluster: its ports, its files, and the commands that run it."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
_PORTS = 6

# For short runs: compiling hard and collecting garbage in parallel do not pay.
_JVM_FLAGS = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")

# Linux only: asks the kernel to kill the process when the thread that started it ends, then becomes
# the command. A small program and not a ``preexec_fn``, which is unsafe in a process with threads.
_DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit("the test process is gone already")
os.execvp(sys.argv[2], sys.argv[2:])
"""

_LOG4J_PROPERTIES = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1}: %m%n%throwable
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
# Dumps of all settings, which would fill the tail that a failed start shows.
logger.settings.name = org.apache.kafka.common.config
logger.settings.level = warn
"""


@dataclass(frozen=True)
class Node:
    """A broker and controller in one process; its ports are on 127.0.0.1."""

    id: int
    directory: Path
    port: int
    controller_port: int
    secure_port: int
    tls_port: int
    expired_port: int
    misnamed_port: int

    @property
    def address(self) -> str:
        """``host:port`` of the PLAINTEXT listener."""
        return f"{HOST}:{self.port}"

    @property
    def secure_address(self) -> str:
        """``host:port`` of the SASL_SSL listener."""
        return f"{HOST}:{self.secure_port}"

    @property
    def tls_address(self) -> str:
        """``host:port`` of the SSL listener."""
        return f"{HOST}:{self.tls_port}"

    @property
    def expired_address(self) -> str:
        """``host:port`` of the TLS listener whose certificate has expired."""
        return f"{HOST}:{self.expired_port}"

    @property
    def misnamed_address(self) -> str:
        """``host:port`` of the TLS listener whose certificate is for another host."""
        return f"{HOST}:{self.misnamed_port}"

    def write_configuration(self, properties: Mapping[str, str]) -> None:
        """Write the files that both commands read."""
        self.directory.mkdir(parents=True)
        (self.directory / "log4j2.properties").write_text(_LOG4J_PROPERTIES)
        lines = [f"{key}={value}\n" for key, value in properties.items()]
        self._properties_file.write_text("".join(lines))

    def format_command(self, jars: Path, cluster_id: str) -> list[str]:
        """The command that prepares the log directory, to which ``--add-scram`` may be appended."""
        # With an equals sign, because a random id may begin with a dash.
        arguments = ["format", f"--cluster-id={cluster_id}", "--config", str(self._properties_file)]
        return self._java(jars, "kafka.tools.StorageTool", *arguments)

    def run_command(self, jars: Path) -> list[str]:
        """The command that runs the broker."""
        return self._java(jars, "kafka.Kafka", str(self._properties_file))

    def spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a command whose output goes to the node's log; it ends when the calling thread does."""
        if sys.platform == "linux":
            wrapper = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
            command = [*wrapper, *command]
        with self._log_file.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # An interrupt typed at a terminal is for the tests, which then stop the broker in order.
                start_new_session=True,
            )

    def log_tail(self) -> str:
        """The last 4000 characters of the log, under a heading."""
        log = self._log_file.read_text(errors="replace") if self._log_file.exists() else ""
        return f"--- end of the log of broker {self.id} ---\n{log[-4000:]}"

    @property
    def _properties_file(self) -> Path:
        return self.directory / "server.properties"

    @property
    def _log_file(self) -> Path:
        return self.directory / "broker.log"

    def _java(self, jars: Path, main_class: str, *arguments: str) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}"
        return ["java", *_JVM_FLAGS, log4j, "-cp", f"{jars}/*", main_class, *arguments]


def make_nodes(work_dir: Path, count: int) -> dict[int, Node]:
    """Nodes numbered from 1, with ports that are free now."""
    ports = _free_ports(_PORTS * count)
    return {
        number: Node(number, work_dir / f"broker-{number}", *ports[_PORTS * (number - 1) : _PORTS * number])
        for number in range(1, count + 1)
    }


def node_properties(node: Node, nodes: Mapping[int, Node], *, secure: bool) -> dict[str, str]:
    """Broker settings for tests, without those of the secure listeners beyond their addresses."""
    count = len(nodes)
    replicas = str(min(3, count))
    in_sync = "2" if count >= 3 else "1"
    listeners = f"PLAINTEXT://{node.address},CONTROLLER://{HOST}:{node.controller_port}"
    if secure:
        listeners += (
            f",SASL_SSL://{node.secure_address},SSL://{node.tls_address}"
            f",EXPIRED://{node.expired_address},MISNAMED://{node.misnamed_address}"
        )
    voters = ",".join(f"{other.id}@{HOST}:{other.controller_port}" for other in nodes.values())
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "log.dirs": str(node.directory / "data"),
        "listeners": listeners,
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL,EXPIRED:SSL,MISNAMED:SSL"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": voters,
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        # A dead broker or controller is noticed within three seconds instead of nine and more.
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",
        "controller.quorum.election.timeout.ms": "1000",
        "controller.quorum.fetch.timeout.ms": "1500",
        "controller.quorum.election.backoff.max.ms": "500",
        "controller.quorum.request.timeout.ms": "1500",
        # Consumers get their partitions at once, and may ask for short sessions.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # The least the log cleaner takes: its default would be a third of the heap.
        "log.cleaner.dedupe.buffer.size": "2097152",
    }
    for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        properties[f"{topic}.replication.factor"] = replicas
        # Internal topics are made when first used, and 50 partitions each take a while.
        properties[f"{topic}.num.partitions"] = "4"
    for topic in ("transaction.state.log", "share.coordinator.state.topic"):
        properties[f"{topic}.min.isr"] = in_sync
    return properties


def _free_ports(count: int) -> list[int]:
    """Ports nobody listens on, below those the kernel gives to outgoing connections.

    One of the latter could be taken, by a client that goes on trying to reach a killed broker, before
    the broker is back.
    """
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            port = random.SystemRandom().randrange(15_000, 32_000)
            candidate = held.enter_context(socket.socket())
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue
            ports.append(port)
    return ports
