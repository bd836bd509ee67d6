"""What is printed, copied or pickled shows no secret."""

from __future__ import annotations

import json
import pickle

from airflow_workflow_events.callbacks import workflow_event_callback
from airflow_workflow_events.hooks import WorkflowEventHook
from airflow_workflow_events.kafka.registry import _with_login_apart
from airflow_workflow_events.notifications import WorkflowEventNotifier
from airflow_workflow_events.operators import PublishWorkflowEventOperator
from tests.unit.airflow_side.connections import Connections

DATA = {"note": "sesame-open"}


def test_the_data_of_a_callback_a_notifier_or_an_operator_is_not_printed() -> None:
    operator = PublishWorkflowEventOperator(task_id="publish", event_type="a.b", data=DATA)

    for printed in (workflow_event_callback(data=DATA), WorkflowEventNotifier(data=DATA), operator):
        assert "sesame" not in f"{printed!r} {printed}"


def test_a_pickled_hook_has_nothing_of_its_connection_and_looks_it_up_again(connections: Connections) -> None:
    hook = WorkflowEventHook(connections.add(host="kafka", password="sesame-open", extra={"topic": "a"}))
    assert hook.connection.password == "sesame-open"
    assert hook.topic == "a"

    dumped = pickle.dumps(hook)
    assert b"sesame" not in dumped
    again = pickle.loads(dumped)
    assert (again.topic, again.connection.password) == ("a", "sesame-open")


def test_a_debugger_that_lists_a_hooks_attributes_shows_nothing_of_its_connection(
    connections: Connections,
) -> None:
    hook = WorkflowEventHook(
        connections.add(
            host="kafka",
            password="sesame-open",
            extra={"topic": "a", "config": {"sasl.password": "sesame-shut"}},
        )
    )
    assert hook.topic == "a"
    assert hook.fields["config"] == {"sasl.password": "sesame-shut"}
    assert hook.connection is hook.connection

    shown = json.dumps(vars(hook), default=lambda thing: getattr(thing, "__dict__", repr(thing)))
    assert "sesame" not in f"{shown} {vars(hook)} {hook!r}"


def test_a_login_in_the_registrys_address_is_not_in_the_address_that_is_asked() -> None:
    given = {"url": "https://me:p%40ss@a.example:8081,https://me:p%40ss@b.example/x", "timeout": 3}

    assert _with_login_apart(given) == {
        "url": "https://a.example:8081,https://b.example/x",
        "basic.auth.user.info": "me:p@ss",
        "timeout": 3,
    }
