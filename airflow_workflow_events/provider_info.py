"""What Airflow reads about this provider: plain data.

Every ``airflow`` process imports this module, so it imports nothing. Airflow checks it against its schemas at
start-up, and an invalid one makes ``import airflow`` fail.
"""

from __future__ import annotations

from typing import Any

CONNECTION_TYPE = "workflow_events"
CONFIG_SECTION = "workflow_events"
DEFAULT_CONNECTION = "workflow_events_default"

_INTEGRATION = "Workflow Events"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description, in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-workflow-events",
        "name": "Workflow Events",
        "description": "Workflow lifecycle events on Apache Kafka.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://kafka.apache.org/",
                "tags": ["apache", "kafka", "protocol"],
            }
        ],
        "hooks": [{"integration-name": _INTEGRATION, "python-modules": ["airflow_workflow_events.hooks"]}],
        "sensors": [
            {"integration-name": _INTEGRATION, "python-modules": ["airflow_workflow_events.sensors"]}
        ],
        "triggers": [
            {"integration-name": _INTEGRATION, "python-modules": ["airflow_workflow_events.triggers"]}
        ],
        "operators": [
            {"integration-name": _INTEGRATION, "python-modules": ["airflow_workflow_events.operators"]}
        ],
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": "airflow_workflow_events.hooks.WorkflowEventHook",
                "hook-name": "Workflow Events (Kafka)",
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
        "cli": ["airflow_workflow_events.commands.get_cli_commands"],
        "notifications": ["airflow_workflow_events.notifications.WorkflowEventNotifier"],
        "task-decorators": [
            {
                "name": "workflow_event",
                "class-name": "airflow_workflow_events.decorators.workflow_event_task",
            }
        ],
        "config": {
            CONFIG_SECTION: {
                "description": "Workflow lifecycle events on Apache Kafka.",
                "options": OPTIONS,
            }
        },
    }


UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema", "login", "password"],
    "relabeling": {"host": "Broker host", "port": "Broker port"},
    "placeholders": {"host": "kafka.example.com", "port": "9092"},
}


def _text(label: str, description: str, section: str, *, format: str | None = None) -> dict[str, Any]:  # noqa: A002
    schema: dict[str, Any] = {"type": ["string", "null"], "section": section}
    if format is not None:
        schema["format"] = format
    return {"label": label, "description": description, "schema": schema}


def _choice(
    label: str, description: str, section: str, choices: dict[str, str], unset: str
) -> dict[str, Any]:
    return {
        "label": label,
        "description": description,
        "schema": {
            "type": ["string", "null"],
            "enum": [*choices, None],
            # Without a name of its own the empty choice shows as the word "null".
            "values_display": {**choices, "null": unset},
            "section": section,
        },
    }


def _milliseconds(label: str, description: str, section: str) -> dict[str, Any]:
    return {
        "label": label,
        "description": description,
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 2_147_483_647, "section": section},
    }


# Named as librdkafka names them: Airflow stores a field under its bare name in the connection's extra, so an
# extra written for the stock Kafka connection means the same here.
CONNECTION_FIELDS: dict[str, Any] = {
    "bootstrap.servers": _text(
        "More brokers",
        "Further bootstrap servers as host:port, comma separated. Any one that answers is enough to find the "
        "whole cluster; two or three make the start safe against one being down.",
        "Brokers",
    ),
    "topic": _text(
        "Default topic", "Where events go unless a task says otherwise. Blank: workflow-events.", "Events"
    ),
    "environment": _text(
        "Environment",
        "Written into metadata.environment of every event, e.g. prod. Blank: [workflow_events] environment.",
        "Events",
    ),
    "cloudevents": _choice(
        "CloudEvents",
        "How events are laid out. Binary keeps the JSON untouched and adds ce_ headers; structured wraps it.",
        "Events",
        {"binary": "binary (default)", "structured": "structured", "off": "off"},
        "default",
    ),
    "security.protocol": _choice(
        "Security protocol",
        "How to talk to the brokers. Use SASL_SSL for a login over TLS.",
        "Security",
        {
            "PLAINTEXT": "PLAINTEXT - neither login nor TLS",
            "SSL": "SSL - TLS, login by certificate if any",
            "SASL_PLAINTEXT": "SASL_PLAINTEXT - login without TLS",
            "SASL_SSL": "SASL_SSL - login over TLS",
        },
        "default (PLAINTEXT)",
    ),
    "sasl.mechanism": _choice(
        "SASL mechanism",
        "How to log in. OAUTHBEARER on Amazon MSK or Google Managed Kafka fetches its tokens by itself.",
        "Security",
        {
            "PLAIN": "PLAIN",
            "SCRAM-SHA-256": "SCRAM-SHA-256",
            "SCRAM-SHA-512": "SCRAM-SHA-512",
            "OAUTHBEARER": "OAUTHBEARER",
            "GSSAPI": "GSSAPI (Kerberos)",
        },
        "none",
    ),
    "sasl.username": _text("User", "For PLAIN and SCRAM.", "Security"),
    "sasl.password": _text("Password", "For PLAIN and SCRAM. Masked in logs.", "Security", format="password"),
    "ssl.ca.location": _text(
        "CA certificates",
        "Path of a PEM file on every Airflow host. Blank: the system's own certificates.",
        "Security",
    ),
    "ssl.certificate.location": _text(
        "Client certificate", "Path of a PEM file, where the brokers ask for a certificate.", "Security"
    ),
    "ssl.key.location": _text("Client key", "Path of the certificate's private key in PEM.", "Security"),
    "ssl.key.password": _text(
        "Client key password", "If the private key has one. Masked in logs.", "Security", format="password"
    ),
    "acks": _choice(
        "Acknowledgements",
        "Who must have an event before it counts as delivered. All in-sync replicas is the only choice that "
        "survives the loss of a broker.",
        "Delivery",
        {"all": "all in-sync replicas (default)", "1": "1 - the leader alone", "0": "0 - nobody"},
        "default",
    ),
    "delivery.timeout.ms": _milliseconds(
        "Delivery timeout (ms)",
        "How long an event may take, retries included, before it counts as failed. Blank: 120000.",
        "Delivery",
    ),
    "request.timeout.ms": _milliseconds(
        "Request timeout (ms)", "How long a broker may take to answer one request. Blank: 30000.", "Delivery"
    ),
    "connect.timeout.ms": _milliseconds(
        "Connect timeout (ms)",
        "How long to look for a broker before a task or the connection test gives up. Blank: 10000.",
        "Delivery",
    ),
    "config": {
        "label": "librdkafka options",
        "description": "Any other option by its librdkafka name, which wins over the fields above, e.g. "
        '{"compression.type": "zstd"}.',
        "schema": {"type": ["object", "null"], "section": "Advanced"},
    },
}


def _option(
    description: str, kind: str, default: str | None, example: str | None, *, sensitive: bool = False
) -> dict[str, Any]:
    return {
        **({"sensitive": True} if sensitive else {}),
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": default,
    }


OPTIONS: dict[str, Any] = {
    "conn_id": _option(
        "Connection of operators, sensors, triggers, hooks, callbacks, notifiers and the listener where none "
        "is named.",
        "string",
        DEFAULT_CONNECTION,
        "kafka_events",
    ),
    "topic": _option(
        "Topic of events where neither the connection nor the caller names one.",
        "string",
        "workflow-events",
        "prod.workflow-events",
    ),
    "environment": _option(
        "metadata.environment of events where neither the connection nor the caller names one.",
        "string",
        "default",
        "prod",
    ),
    "source_instance": _option(
        "Name of this Airflow deployment, written into metadata.source_instance and part of every lifecycle "
        "event's id. Set it where several deployments share a topic, and never change it.",
        "string",
        None,
        "airflow-eu",
    ),
    "callback_timeout_seconds": _option(
        "The longest that a callback or a notifier may take, connection lookup and delivery included.",
        "float",
        "10",
        "5",
    ),
    "conf_keys": _option(
        "Comma separated keys of a run's conf that may be copied into its events. By default none is.",
        "string",
        None,
        "region,batch_id",
    ),
    "mask_keys": _option(
        "Comma separated globs of names in events, in any case of letters, behind which every text and "
        "number is masked, beside the names that tell of a secret by themselves.",
        "string",
        None,
        "*_iban,customer_*",
    ),
    "unmask_keys": _option(
        "Comma separated globs of names behind which nothing is masked for its name, though it tells of a "
        "secret. Wins over mask_keys and over Airflow's own sensitive names.",
        "string",
        None,
        "token_hint,session_id",
    ),
    "listener": _option(
        "Publish the events of every DAG: runs that start, complete or fail, tasks that start, complete, "
        "fail, retry or are skipped. Needs a restart. Without outbox_url the outbox is a file in "
        "AIRFLOW_HOME.",
        "boolean",
        "False",
        "True",
    ),
    "dags_allow": _option(
        "Globs of DAG ids that the listener publishes, comma separated. By default all.",
        "string",
        None,
        "sales_*,orders",
    ),
    "dags_deny": _option("Globs of DAG ids that it does not publish.", "string", None, "tmp_*"),
    "tasks_allow": _option(
        "Globs of task ids that the listener publishes. By default all.", "string", None, "load_*"
    ),
    "tasks_deny": _option("Globs of task ids that it does not publish.", "string", None, "wait_*"),
    "event_types": _option(
        "Globs of event types that the listener publishes. By default all.", "string", None, "workflow.*"
    ),
    "task_topic": _option(
        "Topic of the listener's task events. By default that of all events.",
        "string",
        None,
        "workflow-task-events",
    ),
    "connection_code_allowlist": _option(
        "Comma separated values that connections may give options which load or run code: files in "
        "plugin.library.paths and ssl.engine.location, a command in sasl.kerberos.kinit.cmd. By default such "
        "options are refused in connections. For callbacks: [apache_kafka] callback_allowlist.",
        "string",
        None,
        "/opt/kafka/libmonitoring-interceptor.so",
    ),
    "outbox_url": _option(
        "SQLAlchemy URL of an outbox, in SQLite for one host or PostgreSQL for many. With one, callbacks and "
        "notifiers put their events there first, and `airflow workflow-events relay` delivers them. "
        "By default there is none.",
        "string",
        None,
        "sqlite:////opt/airflow/workflow_events/outbox.db",
        sensitive=True,
    ),
    "outbox_max_rows": _option(
        "How many events the outbox may hold, parked ones included.", "integer", "1000000", "100000"
    ),
    "outbox_max_bytes": _option(
        "How many bytes the events in the outbox may take.", "integer", "1073741824", "104857600"
    ),
    "outbox_max_age_hours": _option(
        "An event that has waited in the outbox for longer is parked.", "float", "168", "24"
    ),
    "outbox_when_full": _option(
        "What happens at these bounds: refuse the new event, or drop_oldest, parked ones first.",
        "string",
        "refuse",
        "drop_oldest",
    ),
}
