"""The trigger: what Airflow stores of it, who it is to Kafka, and what a context says it has brought."""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import (
    AssetEventDagRunReference,
    AssetReferenceAssetEventDagRun,
)

from airflow_workflow_events import EventType, WorkflowEvent, triggers
from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.kafka.intake import ReceivedEvent
from airflow_workflow_events.kafka.positions import StartFrom
from airflow_workflow_events.triggers import (
    WorkflowEventTrigger,
    as_json,
    resume_after_seconds,
    triggering_workflow_events,
)
from tests.airflow_names import since_airflow
from tests.events import make_event
from tests.unit.airflow_side.contexts import make_run, task_context
from tests.unit.kafka.scripted import Record

_MOMENT = "2026-01-02T03:04:05+00:00"
_EVERYTHING: dict[str, Any] = {
    "workflow_id": ["orders", "billing_*"],
    "workflow_run_id": "run-1",
    "event_type": "orders.loaded",
    "source": "shop",
    "environment": "prod",
    "data": {"rows": {"$gte": 100}},
    "fail_on": ["workflow.failed", "workflow.skipped"],
    "topic": "elsewhere",
    "start_from": _MOMENT,
    "group_id": "mine",
    "workflow_events_conn_id": "other",
    "once": True,
    "end_from_trigger": True,
    "until": _MOMENT,
    "queue": "events",
}


def received(**fields: Any) -> ReceivedEvent:
    """An event as it comes out of a topic."""
    taken = Record(0, 0, 1, make_event(**fields)).taken
    assert isinstance(taken, ReceivedEvent)
    return taken


def test_it_says_what_it_waits_for_and_where() -> None:
    assert str(WorkflowEventTrigger(workflow_id="orders", topic="t", fail_on="workflow.failed")) == (
        "EventFilter(workflow_id='orders', event_type='workflow.completed') on topic t of "
        "workflow_events_default since latest, failing on workflow.failed"
    )


def test_a_topic_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="topic 'a b' is not a legal Kafka topic"):
        WorkflowEventTrigger(topic="a b")


@pytest.mark.parametrize("group_id", ["", " ", "a\0b", 7])
def test_a_group_that_has_no_name_is_refused(group_id: Any) -> None:
    with pytest.raises(ConfigurationError, match="group_id is"):
        WorkflowEventTrigger(group_id=group_id)


def test_airflow_stores_what_is_no_default_alone() -> None:
    assert WorkflowEventTrigger().serialize() == (
        "airflow_workflow_events.triggers.WorkflowEventTrigger",
        {"event_type": "workflow.completed"},
    )
    assert WorkflowEventTrigger(event_type=None, workflow_id="orders").serialize()[1] == {
        "event_type": None,
        "workflow_id": "orders",
    }


def test_every_parameter_is_stored_and_makes_the_same_trigger_again() -> None:
    assert _EVERYTHING.keys() == inspect.signature(WorkflowEventTrigger).parameters.keys()
    stored = WorkflowEventTrigger(**_EVERYTHING).serialize()[1]

    assert stored == _EVERYTHING
    assert WorkflowEventTrigger(**stored).serialize()[1] == stored


@pytest.mark.parametrize("name", sorted(_EVERYTHING))
def test_each_parameter_alone_is_stored(name: str) -> None:
    stored = WorkflowEventTrigger(**{name: _EVERYTHING[name]}).serialize()[1]

    assert stored == {"event_type": "workflow.completed"} | {name: _EVERYTHING[name]}


def test_what_is_given_as_enum_or_tuple_is_stored_as_json() -> None:
    trigger = WorkflowEventTrigger(
        event_type=EventType.WORKFLOW_FAILED, workflow_id=("a", "b"), fail_on=["c"]
    )

    assert trigger.serialize()[1] == {
        "event_type": "workflow.failed",
        "workflow_id": ["a", "b"],
        "fail_on": "c",
    }
    assert type(trigger.serialize()[1]["event_type"]) is str


def test_changing_what_was_stored_changes_no_trigger() -> None:
    trigger = WorkflowEventTrigger(workflow_id="orders")
    trigger.serialize()[1].clear()

    assert trigger.serialize()[1]["workflow_id"] == "orders"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"start_from": "yesterday"}, "start_from is 'yesterday': use 'latest', 'earliest', or a moment"),
        ({"start_from": "2026-01-02T03:04:05"}, "with a time zone"),
        ({"start_from": dt.datetime.now(dt.UTC)}, "start_from is datetime"),
        ({"start_from": None}, "start_from is None"),
        ({"start_from": "committed"}, "start_from is 'committed'"),
        ({"workflow_id": ""}, "workflow_id is ''"),
        ({"event_type": []}, r"event_type is \[\]"),
        ({"source": 7}, "source is 7"),
        ({"fail_on": [""]}, r"fail_on is \[''\]: use an event type"),
        ({"data": {"rows": {"$gte": None}}}, r"data\['rows'\].\$gte must be a number or a text"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_refused_by_name(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        WorkflowEventTrigger(**parameters)


def test_it_starts_at_an_end_or_a_moment() -> None:
    assert WorkflowEventTrigger().start is StartFrom.LATEST
    assert WorkflowEventTrigger(start_from="earliest").start is StartFrom.EARLIEST
    assert WorkflowEventTrigger(start_from=_MOMENT).start == dt.datetime.fromisoformat(_MOMENT)


def test_a_watchers_group_stays_the_same_from_release_to_release() -> None:
    """A change here has every watcher lose its position."""
    assert WorkflowEventTrigger(workflow_id="orders").effective_group_id == (
        "airflow-workflow-events.948ac08c843edadc"
    )


def test_the_group_is_of_the_parameters_but_for_where_to_begin(set_options: Callable[..., None]) -> None:
    set_options(source_instance="eu")
    none_of_it = {"group_id", "start_from", "queue"}
    without = {name: value for name, value in _EVERYTHING.items() if name not in none_of_it}
    groups = [WorkflowEventTrigger(**{name: value}).effective_group_id for name, value in without.items()]
    base = WorkflowEventTrigger().effective_group_id

    assert len({base, *groups}) == len(without) + 1
    assert WorkflowEventTrigger(start_from="earliest").effective_group_id == base
    assert WorkflowEventTrigger(event_type=["workflow.completed"]).effective_group_id == base
    assert base.startswith("airflow-workflow-events.eu.")


def test_two_airflows_have_two_groups(set_options: Callable[..., None]) -> None:
    trigger, groups = WorkflowEventTrigger(workflow_id="orders"), set()
    for name in ("eu", "us"):
        set_options(source_instance=name)
        groups.add(trigger.effective_group_id)

    assert len(groups) == 2


def test_a_group_that_is_named_is_taken_as_it_stands(set_options: Callable[..., None]) -> None:
    set_options(source_instance="eu")

    assert WorkflowEventTrigger(group_id="mine").effective_group_id == "mine"


@since_airflow(3, 3, "watchers share no stream")
def test_watchers_of_the_same_position_share_a_stream_and_sensors_share_none() -> None:
    orders = WorkflowEventTrigger(workflow_id="orders")

    assert orders.shared_stream_key() == WorkflowEventTrigger(workflow_id="orders").shared_stream_key()
    others = [
        orders,
        WorkflowEventTrigger(workflow_id="billing"),
        WorkflowEventTrigger(workflow_id="orders", topic="elsewhere"),
        WorkflowEventTrigger(workflow_id="orders", group_id="mine"),
        WorkflowEventTrigger(workflow_id="orders", group_id="mine", topic="elsewhere"),
        WorkflowEventTrigger(workflow_id="orders", group_id="mine", workflow_events_conn_id="other"),
    ]
    assert len({one.shared_stream_key() for one in others}) == len(others)
    assert WorkflowEventTrigger(workflow_id="orders", once=True).shared_stream_key() is None


def test_an_event_is_success_or_failure_or_somebody_elses() -> None:
    trigger = WorkflowEventTrigger(workflow_id="orders", fail_on="workflow.failed", data={"rows": 3})
    good = received(workflow_id="orders", data={"rows": 3})
    bad = received(workflow_id="orders", event_type="workflow.failed")

    assert trigger.judge(good) == {"failed": False, "event": as_json(good)}
    assert trigger.judge(bad) == {"failed": True, "event": as_json(bad)}, "whatever data it has"
    assert trigger.judge(received(workflow_id="orders", data={"rows": 4})) is None
    assert trigger.judge(received(workflow_id="billing", event_type="workflow.failed")) is None


def test_without_fail_on_no_event_is_failure() -> None:
    assert WorkflowEventTrigger().judge(received(event_type="workflow.failed")) is None


def test_what_is_both_waited_for_and_a_failure_is_a_failure() -> None:
    trigger = WorkflowEventTrigger(event_type="workflow.*", fail_on="workflow.failed")
    found = trigger.judge(received(event_type="workflow.failed"))

    assert found is not None
    assert found["failed"]


def asset_event(extra: dict[str, Any], name: str = "orders") -> AssetEventDagRunReference:
    """An asset's event as a run has it that was started by it."""
    return AssetEventDagRunReference(
        asset=AssetReferenceAssetEventDagRun(name=name, uri=name, extra={}),
        extra=extra,
        source_task_id=None,
        source_dag_id=None,
        source_run_id=None,
        source_map_index=None,
        source_aliases=[],
        timestamp=dt.datetime.now(dt.UTC),
    )


def context_of(*events: AssetEventDagRunReference) -> dict[str, Any]:
    """The context of a task in a run that these have started."""
    return task_context(run=make_run(consumed_asset_events=list(events)))


def from_trigger(event: WorkflowEvent) -> dict[str, Any]:
    """The extra of an asset event that a trigger has fired."""
    return {"from_trigger": True, "payload": event.model_dump(mode="json", exclude_none=True)}


def test_the_events_that_started_a_run_are_returned_the_oldest_first_through_whichever_asset_they_came() -> (
    None
):
    began = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
    first, second, third = (make_event(timestamp=began + dt.timedelta(seconds=number)) for number in range(3))
    context = context_of(
        asset_event({"rows": 3}),  # of a task that has updated the asset
        asset_event(from_trigger(second), "billing"),
        asset_event(from_trigger(third)),
        asset_event(from_trigger(first)),
    )

    assert triggering_workflow_events(context) == [first, second, third]


@pytest.mark.parametrize("context", [{}, {"triggering_asset_events": None}])
def test_a_run_that_no_asset_has_started_was_started_by_no_event(context: dict[str, Any]) -> None:
    assert triggering_workflow_events(context) == []
    assert triggering_workflow_events(context_of()) == []


@pytest.mark.parametrize(
    "extra",
    [
        None,
        {},
        {"from_trigger": True},
        {"from_rest_api": True},
        *(
            {"from_trigger": True, "payload": payload}
            for payload in (
                None,
                True,
                7,
                "a Kafka message",
                [{"event_id": "1"}],
                {"key": "a.csv"},
                {"event_id": "1"},
            )
        ),
    ],
)
def test_what_others_have_put_into_an_asset_event_is_passed_over(
    extra: Any, caplog: pytest.LogCaptureFixture
) -> None:
    event = make_event()
    other, own = asset_event({}, "file"), asset_event(from_trigger(event))
    other.extra = extra

    assert triggering_workflow_events({"triggering_asset_events": {"a": [other], "b": [own]}}) == [event]
    assert not caplog.records


def test_an_event_that_cannot_be_read_is_passed_over_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    extra = from_trigger(make_event())
    extra["payload"] |= {"event_id": "1\nforged", "metadata": {"environment": "prod", "version": "2.0"}}

    assert triggering_workflow_events(context_of(asset_event(extra))) == []
    (record,) = caplog.records
    assert "event 1\\nforged" in record.getMessage()
    assert "2.0" in record.getMessage()
    assert record.getMessage().isprintable()


def test_a_task_is_started_again_after_airflow_has_heard_that_its_worker_ended(
    set_options: Callable[..., None],
) -> None:
    assert resume_after_seconds() == 8
    set_options("workers", min_heartbeat_interval=20)
    assert resume_after_seconds() == 23


def test_a_trigger_queue_is_stored_and_passed_on_to_an_airflow_that_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[str | None] = []

    def init(self: object, *, queue: str | None = None) -> None:
        taken.append(queue)

    monkeypatch.setattr("airflow.triggers.base.BaseEventTrigger.__init__", init)
    monkeypatch.setattr(triggers, "_BASE_TAKES_QUEUE", True)
    trigger = WorkflowEventTrigger(queue="events")

    _, stored = trigger.serialize()

    assert taken == ["events"]
    assert stored["queue"] == trigger.queue == "events"
    assert WorkflowEventTrigger(**stored).serialize()[1] == stored


def test_a_watcher_keeps_its_position_when_it_moves_to_another_trigger_queue() -> None:
    moved = WorkflowEventTrigger(workflow_id="w", queue="events")

    assert moved.effective_group_id == WorkflowEventTrigger(workflow_id="w").effective_group_id
