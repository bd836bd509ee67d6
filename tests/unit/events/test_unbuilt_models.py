"""In a new process the models are not built yet, however its first event comes into being."""

import pickle
import sys

import pytest

from tests.events import make_event
from tests.subprocesses import output_of

_IMPORT = (
    "from airflow_workflow_events.events.model import *; from airflow_workflow_events.events import decode\n"
)
_NAMES = 'event_type="a.b", source="x", workflow_id="w", workflow_run_id="r"'
_EVENT = make_event()
_JSON = _EVENT.model_dump_json().encode()

WAYS = {
    "decoded": f"event = decode({_JSON!r})",
    "validated from JSON": f"event = WorkflowEvent.model_validate_json({_JSON!r})",
    "of dicts": f'event = WorkflowEvent({_NAMES}, payload={{"data": {{}}}}, metadata={{"environment": "p"}})',
    "of models": f'event = WorkflowEvent({_NAMES}, metadata=WorkflowEventMetadata(environment="p"))',
    "unpickled": f"import pickle; event = pickle.loads({pickle.dumps(_EVENT)!r})",
    "constructed without validation": (
        f"event = WorkflowEvent.model_construct({_NAMES}, event_id='i', timestamp=None,"
        " payload=WorkflowEventPayload.model_construct(data={}),"
        " metadata=WorkflowEventMetadata.model_construct(environment='p'))"
    ),
    "with a payload class of one's own": (
        "class Orders(WorkflowEventPayload):\n    orders: int = 3\n"
        f"event = WorkflowEvent({_NAMES}, payload=Orders.model_construct(data={{}}),"
        " metadata={'environment': 'p'})"
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_first_event_of_a_process_can_be_written_however_it_was_made(way: str) -> None:
    program = (
        f"{_IMPORT}{WAYS[way]}\n"
        "models = [type(event), type(event.payload), type(event.metadata)]\n"
        "print(all(model.__pydantic_complete__ for model in models), event.model_dump_json())\n"
    )

    built, written = output_of(sys.executable, "-c", program).split(" ", 1)

    assert written.startswith('{"event_id":')
    assert built == "True", "pydantic below 2.14 cannot write a model that is not built"
