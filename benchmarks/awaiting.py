"""Seconds from an event's delivery report to the end of the task that waited for it, by Airflow's own record.

The sensors wait together, each for an event of its own. One event goes out at a time, after the task before
has ended, at a random phase of the loops of triggerer and scheduler.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from dataclasses import dataclass

from airflow_workflow_events import WorkflowEventProducer
from benchmarks import sensors
from benchmarks.children import MeasurementError
from benchmarks.deployed import Deployed, awaited
from benchmarks.footprint import clients

_LONGEST_PAUSE_SECONDS = 1.0
# The official sensors sleep for five seconds after an event that is another's. Publishing meanwhile would
# measure nothing but what is left of these.
_POLLS_AGAIN_SECONDS = 6.0
_NOBODYS = 1_000_000
# How long a task has to have been deferred before it goes on: Airflow's [workers] min_heartbeat_interval and
# more, see airflow_workflow_events.triggers.resume_after_seconds. Who waits in earnest has waited for longer.
_RESUMABLE_SECONDS = 9.0
_ENDED_SECONDS = 120.0
_GROUP_SECONDS = 120.0


@dataclass(frozen=True)
class Scenario:
    """So many sensors of a contender wait, in each of some runs, and so many get their event.

    Args:
        name: the contender.
        sensors: how many of its sensors wait at once.
        events: how many of them get their event, at most.
        runs: how many runs, one after the other.
        others: how many events that nobody waits for are published right before each of them.
        budget_seconds: after so many seconds of a run no further event is published.
    """

    name: str
    sensors: int
    events: int = 1
    runs: int = 1
    others: int = 0
    budget_seconds: float = 120.0


def measure(airflow: Deployed, servers: str, scenario: Scenario, chance: random.Random) -> list[float]:
    """Have sensors wait, in one run of their DAG, publish events and return the seconds of each."""
    dag_id = sensors.dag_id(scenario.name, scenario.sensors)
    run_id = airflow.begin(dag_id)
    _await_waiting(airflow, servers, scenario.name, scenario.sensors, run_id)
    shortest_pause = _POLLS_AGAIN_SECONDS if scenario.name == "official" and scenario.events > 1 else 0.0
    over_at = time.monotonic() + scenario.budget_seconds
    taken: list[float] = []
    with WorkflowEventProducer(servers, topic=sensors.topic_of(dag_id)) as producer:
        for number in chance.sample(range(scenario.sensors), scenario.events):
            # What is random here is the phase.
            time.sleep(shortest_pause + chance.uniform(0, _LONGEST_PAUSE_SECONDS))
            others = [awaited(_NOBODYS + other, run_id) for other in range(scenario.others)]
            reports = producer.publish_events([*others, awaited(number, run_id)])
            reported_at = time.time()
            if not all(report.delivered for report in reports):
                raise MeasurementError(f"an event for {dag_id} was not delivered")
            taken.append(_ended_at(airflow, dag_id, run_id, number) - reported_at)
            if time.monotonic() > over_at:
                break
    if len(taken) < scenario.sensors:
        airflow.request("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", {"state": "failed"})
    return taken


def _await_waiting(airflow: Deployed, servers: str, name: str, count: int, run_id: str) -> None:
    """Wait until every sensor has begun to wait in earnest, and would be served."""
    dag_id = sensors.dag_id(name, count)
    if name == "ours_poking":
        scheduler = airflow.pid("scheduler")  # the workers are its children
        airflow.await_states(dag_id, run_id, {"running": count})
        airflow.await_condition(lambda: clients(scheduler) >= count, _GROUP_SECONDS, f"{count} consumers")
        return
    airflow.await_states(dag_id, run_id, {"deferred": count})
    airflow.await_triggers(dag_id, run_id, count)
    if name == "official":
        await_groups(airflow, servers, sensors.topic_of(dag_id), count)
    resumable_at = time.monotonic() + _RESUMABLE_SECONDS
    airflow.await_condition(
        lambda: time.monotonic() >= resumable_at, 2 * _RESUMABLE_SECONDS, "a task to be resumable"
    )


def await_groups(airflow: Deployed, servers: str, topic: str, count: int) -> None:
    """Wait until so many official sensors have their partitions of a topic."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": servers})

    def assigned() -> bool:
        groups = admin.describe_consumer_groups([sensors.group_id(number) for number in range(count)])
        return all(
            any(
                partition.topic == topic
                for member in group.result().members
                for partition in member.assignment.topic_partitions
            )
            for group in groups.values()
        )

    airflow.await_condition(assigned, _GROUP_SECONDS, f"{count} groups to have their partitions")


def _ended_at(airflow: Deployed, dag_id: str, run_id: str, number: int) -> float:
    """Wait until a sensor has ended and return when, as a Unix time."""
    query = "SELECT state, end_date FROM task_instance WHERE dag_id = ? AND run_id = ? AND map_index = ?"

    def ended() -> tuple[str, str] | None:
        [(state, end_date)] = airflow.select(query, dag_id, run_id, number)
        return (state, end_date) if state in {"success", "failed"} else None

    state, end_date = airflow.await_condition(ended, _ENDED_SECONDS, f"sensor {number} of {dag_id} to end")
    if state != "success":
        raise MeasurementError(f"sensor {number} of {dag_id} ended as {state}")
    return dt.datetime.fromisoformat(end_date).replace(tzinfo=dt.UTC).timestamp()
