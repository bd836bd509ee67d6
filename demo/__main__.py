"""``make demo``: real Airflow runs the example DAGs, and their events come out of a Kafka broker.

Environment: ``BOOTSTRAP_SERVERS`` to use a broker of your own instead of the embedded one, ``KEEP=1`` to
leave Airflow running until ctrl-C, ``SAVE_HTML`` for a file to save what was shown to. Ends with 0 only if
every expected event was consumed and is valid.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Self

import confluent_kafka
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from airflow_workflow_events import (
    EmbeddedBroker,
    EventSource,
    WorkflowEvent,
    WorkflowEventMetadata,
    WorkflowEventPayload,
    WorkflowEventProducer,
    WorkflowEventsError,
)
from airflow_workflow_events.events import DEFAULT_TOPIC
from airflow_workflow_events.kafka.group_offsets import GroupOffsets
from demo.deployment import AirflowDeployment, DeploymentError
from demo.expectations import (
    EXPECTED,
    PUBLISHING,
    SERVICE,
    STARTED,
    STARTED_BY,
    WAITING,
    Checklist,
    task_of,
)

DAGS = Path(__file__).parent.parent / "dags_example"
CONNECTION_ID = "workflow_events_default"
EVENT_SECONDS = 100
WAIT_SECONDS = 90
_SENSORS = 4
_WIDE = 96


class Display:
    """A table of the events as they arrive; on a terminal it is live, elsewhere a line an event."""

    def __init__(self, console: Console, expected: int) -> None:
        self._console = console
        self._table = Table(title="Events on Kafka", title_justify="left", box=SIMPLE_HEAD)
        columns = ("UTC", "event_type and task", "workflow_id", "by", "at")
        # A narrow terminal shows what matters whole rather than everything cut short.
        self._columns = columns if console.width >= _WIDE else columns[:3]
        for column in self._columns:
            self._table.add_column(column, no_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("events"),
            TimeElapsedColumn(),
            console=console,
        )
        self._bar = self._progress.add_task("starting", total=expected)
        self._live = Live(self._render(), console=console, refresh_per_second=8)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()
        else:
            self._console.print(self._table)

    def say(self, text: str) -> None:
        """Say what is going on."""
        self._progress.update(self._bar, description=text)
        if not self._console.is_terminal:
            self._console.print(f"[dim]{datetime.now(UTC):%H:%M:%S}[/] {text}")

    def show(self, event: WorkflowEvent, message: confluent_kafka.Message) -> None:
        """Add an event."""
        cells = (
            f"{event.timestamp:%H:%M:%S}",
            f"[{_colour(str(event.event_type))}]{event.event_type}[/] {task_of(event) or ''}",
            event.workflow_id.removeprefix("example_"),
            event.metadata.emitted_by or "",
            f"{message.partition()}:{message.offset()}",
        )
        self._table.add_row(*cells[: len(self._columns)])
        self._progress.advance(self._bar)
        if self._console.is_terminal:
            self._live.update(self._render())
        else:
            self._console.print(f"  {event.event_type} of {event.workflow_id}")

    def _render(self) -> RenderableType:
        return Group(self._table, self._progress)


def main() -> int:
    """Run the demo; return the exit code."""
    console = Console(record=True, width=None if sys.stdout.isatty() else 100)
    # SIGINT too: a shell that starts this in the background leaves it ignored, and Python keeps it so.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    home = Path(tempfile.mkdtemp(prefix="workflow-events-demo-"))
    keep_logs = False
    try:
        problems = _run(console, home)
        keep_logs = bool(problems)
        for problem in problems:
            console.print(f"[red]missing or wrong:[/] {problem}")
        if problems:
            console.print(f"The logs are in {home / 'logs'}")
        return 1 if problems else 0
    except DeploymentError as error:
        keep_logs = any(home.iterdir())
        console.print(f"[red]{error}[/]")
        return 1
    except KeyboardInterrupt:
        console.print("stopped; everything was cleaned up")
        return 130
    finally:
        if not keep_logs:
            shutil.rmtree(home, ignore_errors=True)


def _run(console: Console, home: Path) -> list[str]:
    started = time.monotonic()
    run_id = f"demo__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
    checklist = Checklist(run_id)
    with ExitStack() as stack:
        servers = os.environ.get("BOOTSTRAP_SERVERS", "")
        kind = "your broker"
        if not servers:
            broker = stack.enter_context(EmbeddedBroker(topics={DEFAULT_TOPIC: 3}))
            servers, kind = broker.bootstrap_servers, "the embedded broker"
        consumer = stack.enter_context(_Consumer(servers))
        display = Display(console, checklist.expected_count)
        airflow = stack.enter_context(
            AirflowDeployment(
                home,
                DAGS,
                connections={
                    CONNECTION_ID: {
                        "conn_type": "workflow_events",
                        "extra": {"bootstrap.servers": servers, "environment": "demo"},
                    }
                },
                config={"core.test_connection": "Enabled"},
                on_progress=display.say,
            )
        )
        with display:
            display.say(f"starting Airflow, events go to {kind} at {servers}")
            airflow.start()
            airflow.await_dags({*WAITING, *PUBLISHING, STARTED})
            _begin_to_wait(airflow, servers, run_id)
            display.say("four tasks and a DAG wait in the triggerer, with one consumer for all of them")
            for dag_id in PUBLISHING:
                airflow.trigger(dag_id, run_id)
            _publish_as_a_service(servers, run_id)
            display.say("runs are under way")
            deadline = time.monotonic() + EVENT_SECONDS
            while not checklist.complete and time.monotonic() < deadline:
                message = consumer.poll()
                if message is not None and (event := checklist.take(message)) is not None:
                    display.show(event, message)
            display.say("all events arrived" if checklist.complete else "gave up waiting")
        seconds = time.monotonic() - started
        problems = [*checklist.missing, *checklist.problems]
        if not problems:
            count = f"{len(checklist.arrived)} of {checklist.expected_count} expected events"
            where = f"{len(EXPECTED) - 1} DAGs in real Airflow processes and a service"
            console.print(f"[green]{count} were consumed and validated[/] in {seconds:.0f} s, from {where}.")
        if os.environ.get("KEEP") == "1":
            _keep(console, airflow, servers)
    if path := os.environ.get("SAVE_HTML"):
        console.save_html(path)
    return problems


def _begin_to_wait(airflow: AirflowDeployment, servers: str, run_id: str) -> None:
    """Have the waiting DAGs' sensors deferred, and the asset's watcher at work."""
    for dag_id in WAITING:
        airflow.trigger(dag_id, run_id)
    # The watcher begins at the end of the topic, so what it is to see must come after its position is known.
    group_id = airflow.run_python(
        "from airflow_workflow_events.triggers import WorkflowEventTrigger\n"
        f"print(WorkflowEventTrigger(workflow_id={STARTED_BY!r}).effective_group_id)"
    ).split()[-1]
    offsets = GroupOffsets(lambda: {"bootstrap.servers": servers, "log_level": 0})
    airflow.await_condition(
        lambda: offsets.committed(group_id, DEFAULT_TOPIC), WAIT_SECONDS, "the watcher to be at work"
    )
    offsets.forget(group_id)

    def are_deferred() -> bool:
        tasks = [
            task
            for dag_id in WAITING
            for task in airflow.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
            if task["task_id"].startswith("wait_for")
        ]
        return len(tasks) == _SENSORS and all(task["state"] == "deferred" for task in tasks)

    airflow.await_condition(are_deferred, WAIT_SECONDS, "the sensors to wait")


def _publish_as_a_service(servers: str, run_id: str) -> None:
    """Publish what one of the sensors waits for, without Airflow."""
    event = WorkflowEvent(
        event_type="orders.imported",
        source=EventSource.FASTAPI,
        workflow_id=SERVICE,
        workflow_run_id=run_id,
        payload=WorkflowEventPayload(data={"rows": 1_280}),
        metadata=WorkflowEventMetadata(environment="demo"),
    )
    with WorkflowEventProducer(servers) as producer:
        if not producer.publish_event(event):
            raise DeploymentError(f"the service's event did not reach {servers}")


def _keep(console: Console, airflow: AirflowDeployment, servers: str) -> None:
    console.print(
        f"\nAirflow is at [bold]{airflow.url}[/], user [bold]{airflow.user}[/], password "
        f"[bold]{airflow.password}[/]\n(its connection comes from the environment, and is not in the list)\n"
        f"Kafka is at [bold]{servers}[/], topic [bold]{DEFAULT_TOPIC}[/], for example:\n",
        soft_wrap=True,
    )
    # On a line of its own, however narrow the terminal: it is there to be copied.
    console.print(f"kcat -b {servers} -t {DEFAULT_TOPIC} -C -f '%h\\n%s\\n'", soft_wrap=True, markup=False)
    console.print("\nEnd with ctrl-C.")
    while True:
        signal.pause()


class _Consumer:
    """Reads the topic from where it ends now."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        # Its log would bury what is said here about a broker that does not answer.
        options = {"group.id": f"demo-{os.getpid()}", "enable.auto.commit": False, "log_level": 0}
        self._consumer = confluent_kafka.Consumer({"bootstrap.servers": servers, **options})

    def __enter__(self) -> Self:
        try:
            # The producer knows best why a broker does not answer.
            WorkflowEventProducer(self._servers, config={"log_level": 0}).close()
            metadata = self._consumer.list_topics(DEFAULT_TOPIC, timeout=10)
        except (WorkflowEventsError, confluent_kafka.KafkaException) as error:
            self._consumer.close()
            raise DeploymentError(f"BOOTSTRAP_SERVERS cannot be used: {error}") from None
        partitions = [
            confluent_kafka.TopicPartition(DEFAULT_TOPIC, partition)
            for partition in metadata.topics[DEFAULT_TOPIC].partitions or [0]
        ]
        for partition in partitions:
            partition.offset = self._consumer.get_watermark_offsets(partition, timeout=10)[1]
        self._consumer.assign(partitions)
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def poll(self) -> confluent_kafka.Message | None:
        """Return the next message, waiting a little."""
        message = self._consumer.poll(0.2)
        return None if message is None or message.error() else message


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _colour(event_type: str) -> str:
    for part, colour in (
        ("fail", "red"),
        ("retry", "yellow"),
        ("deadline", "yellow"),
        ("completed", "green"),
        ("started", "cyan"),
    ):
        if part in event_type:
            return colour
    return "magenta"


if __name__ == "__main__":
    sys.exit(main())
