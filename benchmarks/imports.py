"""What importing the package costs a process that parses DAGs, in fresh interpreters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks import children

_TEMPLATE = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
{statements}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
airflow = sorted(name for name in sys.modules if name.partition(".")[0] == "airflow")
print(json.dumps({{"wall": wall, "cpu": cpu, "airflow": airflow}}))
"""

CONTENDERS = {
    "libraries_lazy": "import pydantic, confluent_kafka",
    # Importing pydantic alone loads next to nothing of it; the first use of BaseModel does.
    "libraries": "import confluent_kafka\nfrom pydantic import BaseModel",
    # The first model a program defines has pydantic look for plugins; a package with models cannot avoid it.
    "libraries_model": """
import confluent_kafka
from pydantic import BaseModel
class Model(BaseModel):
    text: str
""",
    "libraries_used": """
import confluent_kafka
from pydantic import BaseModel
producer = confluent_kafka.Producer({"bootstrap.servers": "localhost:9092", "log_level": 0})
producer.flush()
del producer
""",
    "ours": "from airflow_workflow_events import WorkflowEvent, WorkflowEventProducer",
    "ours_used": """
from airflow_workflow_events import WorkflowEvent, WorkflowEventProducer
producer = WorkflowEventProducer(connect=False, config={"log_level": 0})
producer.close()
del producer
""",
}


def measure(rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give wall and CPU seconds of one contender after the other, and the Airflow modules it loaded."""
    names = tuple(CONTENDERS)
    for name in names:  # once for the disk's cache and the byte code
        children.run("-c", _TEMPLATE.format(statements=CONTENDERS[name]))
    for number in range(rounds):
        start = number % len(names)
        for name in (*names[start:], *names[:start]):
            yield name, children.run("-c", _TEMPLATE.format(statements=CONTENDERS[name]))
