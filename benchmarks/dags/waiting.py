"""A DAG for each contender and number of sensors, without any other task."""

from __future__ import annotations

from airflow.sdk import DAG

from benchmarks import sensors

for name, counts in sensors.COUNTS.items():
    for count in counts:
        dag_id = sensors.dag_id(name, count)
        contender = sensors.contender(name, sensors.topic_of(dag_id), "{{ run_id }}")
        with DAG(dag_id, schedule=None, max_active_tasks=max(count, 1)):
            contender.sensor.partial(
                task_id=sensors.TASK_ID, timeout=sensors.TIMEOUT_SECONDS, **contender.common
            ).expand_kwargs([contender.own(number) for number in range(count)])
