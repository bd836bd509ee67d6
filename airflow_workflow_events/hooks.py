"""Where Airflow's connection becomes a producer."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_workflow_events.compat import AirflowException, mask_secret

from airflow.providers.apache.kafka.hooks.base import KafkaBaseHook

from airflow_workflow_events.connection_safety import checked
from airflow_workflow_events.errors import ConfigurationError, KafkaError, WorkflowEventsError
from airflow_workflow_events.forks import critical_section, unlocked_cached_property
from airflow_workflow_events.provider_info import CONNECTION_TYPE, DEFAULT_CONNECTION, UI_FIELD_BEHAVIOUR
from airflow_workflow_events.settings import Settings, default_conn_id

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_workflow_events.kafka.consumer import WorkflowEventConsumer
    from airflow_workflow_events.kafka.producer import WorkflowEventProducer

_Client = TypeVar("_Client")

# What this hook reads from the extra itself; everything else there is librdkafka's.
_OWN_FIELDS = ("topic", "environment", "cloudevents", "connect.timeout.ms", "config")
# A stock Kafka connection may serve consumers too; a producer would only warn about these.
_CONSUMER_FIELDS = ("group.id", "group.instance.id", "auto.offset.reset", "enable.auto.commit")
# librdkafka warns about options of producers in a consumer, and the other way round.
_CONSUMER_PREFIXES = (
    "fetch.",
    "queued.",
    "client.rack",
    "check.crcs",
    "isolation.level",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
)
_LOOKED_UP = frozenset({"_looked_up", "topic", "environment", "get_conn"})
_CLIENT_ID = "airflow-workflow-events"
_DEFAULT_PORT = 9092
_HAS_PORT = re.compile(r"^(?:[^:]+|\[[^\]]+\]):\d+$")
# A person waits for the answer of the test button.
_TEST_TIMEOUT_MS = 5_000
_TOPIC_TIMEOUT_SECONDS = 3.0


class WorkflowEventHook(KafkaBaseHook):
    """Makes producers and consumers from an Airflow connection.

    Built on the Kafka provider's hook, so Amazon MSK IAM, Google Managed Kafka and the allow-list of OAuth
    callbacks work as they do there. Takes a connection of type ``workflow_events``, or a stock ``kafka`` one.

    Args:
        workflow_events_conn_id: the connection. Default ``None``: ``[workflow_events] conn_id``, which is
            ``"workflow_events_default"`` unless it is set.
    """

    conn_name_attr = "workflow_events_conn_id"
    default_conn_name = DEFAULT_CONNECTION
    conn_type = CONNECTION_TYPE
    hook_name = "Workflow Events (Kafka)"

    def __init__(self, workflow_events_conn_id: str | None = None) -> None:
        conn_id = workflow_events_conn_id or default_conn_id()
        super().__init__(kafka_config_id=conn_id)  # type: ignore[no-untyped-call]
        self.workflow_events_conn_id = conn_id

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was looked up: a pickled hook, or a copy, holds no secret and looks up again."""
        return {name: value for name, value in vars(self).items() if name not in _LOOKED_UP}

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the form shows the standard fields, for Airflows that do not read provider info."""
        return {key.replace("-", "_"): value for key, value in UI_FIELD_BEHAVIOUR.items()}

    @property
    def connection(self) -> Connection:
        """The Airflow connection, looked up once."""
        return self._looked_up.connection

    @unlocked_cached_property
    def _looked_up(self) -> _LookedUp:
        with critical_section():  # a secrets backend may take any lock
            return _LookedUp(self.get_connection(self.workflow_events_conn_id))

    @property
    def fields(self) -> dict[str, Any]:
        """The connection's fields that are not librdkafka's, blank ones left out."""
        extra = _extra(self.connection)
        return {name: extra[name] for name in _OWN_FIELDS if name in extra}

    @unlocked_cached_property
    def topic(self) -> str:
        """The default topic: the connection's, or ``[workflow_events] topic``."""
        with critical_section():
            return str(self.fields.get("topic") or Settings.load().topic)

    @unlocked_cached_property
    def environment(self) -> str:
        """The environment of events: the connection's, or ``[workflow_events] environment``."""
        with critical_section():
            return str(self.fields.get("environment") or Settings.load().environment)

    @unlocked_cached_property
    def get_conn(self) -> Any:
        """An admin client of confluent-kafka, made once: what the Kafka provider calls the connection."""
        return self._get_client(self._build_config())

    def get_producer(self, **overrides: Any) -> WorkflowEventProducer:
        """Return a new producer for the connection. The caller closes it, best with ``with``.

        Args:
            **overrides: parameters of the producer that win over the connection's fields.

        Raises:
            ConfigurationError: the connection has no brokers, or a field that cannot be used.
            KafkaConnectionError: no broker answered, unless ``connect=False``.
            KafkaAuthenticationError: the broker refused the credentials.
        """
        from airflow_workflow_events.kafka.producer import WorkflowEventProducer

        if "cloudevents" in self.fields:
            overrides.setdefault("cloudevents", self.fields["cloudevents"])
        return self._make(WorkflowEventProducer, self.client_options(), overrides)

    def get_consumer(self, **overrides: Any) -> WorkflowEventConsumer:
        """Return a new consumer for the connection. The caller closes it, best with ``with``.

        Of the connection's librdkafka options it takes those that say how to reach the brokers, and those of
        consumers; its ``group.id`` is not used, as a group's members share the events: name one here.

        Args:
            **overrides: parameters of the consumer that win over the connection's fields.

        Raises:
            ConfigurationError: the connection has no brokers, or a field or parameter cannot be used.
            KafkaConnectionError: no broker answered, unless ``connect=False``.
            KafkaAuthenticationError: the broker refused the credentials.
        """
        from airflow_workflow_events.kafka.consumer import WorkflowEventConsumer

        return self._make(WorkflowEventConsumer, self.consumer_options(), overrides)

    def client_options(self) -> dict[str, Any]:
        """Return the connection's librdkafka options, completed by the Kafka provider. Holds the secrets."""
        from airflow_workflow_events.kafka.config import SECRET_OPTIONS

        config = self._build_config()
        with critical_section():
            for name in SECRET_OPTIONS & config.keys():
                # Airflow masks by the name of the key, and misses ssl.key.pem and the like.
                mask_secret(str(config[name]))
        return config

    def consumer_options(self) -> dict[str, Any]:
        """Return those of :meth:`client_options` that a consumer understands."""
        from airflow_workflow_events.kafka.topics import connection_options

        config = self.client_options()
        own = {name: value for name, value in config.items() if name.startswith(_CONSUMER_PREFIXES)}
        return {**connection_options(config), **own}

    def _make(
        self, client: Callable[..., _Client], config: dict[str, Any], overrides: dict[str, Any]
    ) -> _Client:
        """Make a client of the connection's librdkafka options and the parameters that win over them."""
        from airflow_workflow_events.kafka.config import ALIASES, OPTION_OF_PARAMETER, whole_number

        # A client lets config win over its parameters; here the caller's word is the last.
        given = {OPTION_OF_PARAMETER.get(name) for name in overrides}
        own_config = {name: value for name, value in config.items() if name not in given}
        for name, value in (overrides.pop("config", None) or {}).items():
            own_config[ALIASES.get(name, name)] = value
        options: dict[str, Any] = {"topic": self.topic, "client_id": _CLIENT_ID, **overrides}
        try:
            if "connect.timeout.ms" in self.fields:  # as text, in a connection made by hand
                options.setdefault("connect_timeout_ms", whole_number(self.fields, "connect.timeout.ms"))
            return client(**options, config=own_config)
        except ConfigurationError as error:
            raise ConfigurationError(f"connection {self.workflow_events_conn_id!r}: {error}") from None
        except KafkaError as error:
            raise type(error)(
                f"connection {self.workflow_events_conn_id!r}: {error}",
                name=error.name,
                retriable=error.retriable,
            ) from None

    def test_connection(self) -> tuple[bool, str]:
        """Try the connection out, for the button in Airflow's UI; writes nothing.

        Returns:
            Whether events could be published to the default topic, and what is wrong if not: brokers
            unreachable, credentials refused, topic missing, no permission to write to it.
        """
        from airflow_workflow_events.kafka.topics import check_writable

        try:
            with self.get_producer(connect_timeout_ms=_TEST_TIMEOUT_MS) as producer:
                permitted = check_writable(
                    producer.client_config, self.topic, timeout_seconds=_TOPIC_TIMEOUT_SECONDS
                )
        except KafkaError as error:
            return False, self._unnamed(error)
        except (WorkflowEventsError, AirflowException, ValueError) as error:
            return False, f"The connection is not usable: {self._unnamed(error)}"
        if not permitted:
            return True, f"Connected to Kafka; topic {self.topic} exists, its permissions were not told."
        return True, f"Connected to Kafka; events can be published to topic {self.topic}."

    def _unnamed(self, error: Exception) -> str:
        """Leave out the connection's name: Airflow's UI has a connection tested under a random one."""
        name = f"connection {self.workflow_events_conn_id!r}"
        return str(error).replace(f"{name}: ", "").replace(name, "the connection")

    def _build_config(self) -> dict[str, Any]:
        """Return librdkafka's options of the connection, checked, and completed by the Kafka provider."""
        name = f"connection {self.workflow_events_conn_id!r}"
        options = _librdkafka_options(self.connection)
        if not options.get("bootstrap.servers"):
            raise ConfigurationError(
                f"{name} names no broker: fill in Broker host and port, or bootstrap.servers in its extra, "
                'e.g. {"bootstrap.servers": "kafka:9092"}'
            )
        try:
            with critical_section():  # it may import a cloud's library
                return _Completion(checked(options)).completed()
        except ConfigurationError as error:
            raise ConfigurationError(f"{name}: {error}") from None


class _LookedUp:
    """Keeps a connection out of ``vars()`` of the hook, which debuggers, serializers and some logs show."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __repr__(self) -> str:
        return "<a connection>"


class _Completion(KafkaBaseHook):
    """The Kafka provider's own hook on options that are ready: it adds the tokens of cloud services.

    It reads ``self.get_connection(...).extra_dejson``, so it is answered with the options here: checked,
    callbacks resolved, blanks gone, host and port put in, the other hook's fields left out.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._options = options

    def completed(self) -> dict[str, Any]:
        """Return the options with what the Kafka provider adds."""
        if hasattr(KafkaBaseHook, "_build_config"):
            return dict(self._build_config())
        # Before 1.15.1 it completes the options on the way to its client. Not by the attribute: before
        # Python 3.12 a cached_property holds one lock for all hooks of a process.
        config: dict[str, Any] = KafkaBaseHook.get_conn.func(self)  # type: ignore[attr-defined]
        return config

    def get_connection(self, conn_id: str) -> Any:  # type: ignore[override] # noqa: ARG002
        """Answer with the options."""
        return SimpleNamespace(extra_dejson=self._options)

    def _get_client(self, config: dict[str, Any]) -> dict[str, Any]:
        return config


def _extra(connection: Connection) -> dict[str, Any]:
    extra: object = connection.extra_dejson
    if not isinstance(extra, dict):
        raise ConfigurationError(
            f"connection {connection.conn_id!r}: its extra is a JSON {type(extra).__name__}: "
            'use an object, e.g. {"bootstrap.servers": "kafka:9092"}'
        )
    return _filled(extra)


def _filled(extra: dict[str, Any]) -> dict[str, Any]:
    """Leave out what was left blank in the form."""
    return {name: value for name, value in extra.items() if value is not None and value != ""}


def _librdkafka_options(connection: Connection) -> dict[str, Any]:
    from airflow_workflow_events.kafka.config import ALIASES

    extra = _extra(connection)
    advanced = extra.get("config") or {}
    if not isinstance(advanced, dict):
        raise ConfigurationError(
            f"connection {connection.conn_id!r}: config must be a JSON object of librdkafka options"
        )
    options = {
        ALIASES.get(name, name): value
        for name, value in extra.items()
        if name not in _OWN_FIELDS and name not in _CONSUMER_FIELDS
    }
    options.update({ALIASES.get(name, name): value for name, value in _filled(advanced).items()})
    # Airflow's own fields of a login; the form hides them, a connection in a URI has them.
    for name, value in (("sasl.username", connection.login), ("sasl.password", connection.password)):
        if value:
            options.setdefault(name, value)
    servers = options.get("bootstrap.servers")
    # A connection made by hand may hold a list.
    text = ",".join(map(str, servers)) if isinstance(servers, list) else str(servers or "")
    protocol = str(options.get("security.protocol", "PLAINTEXT")).upper()
    try:
        listed = _addresses(text, protocol)
        hosts = [_with_port(host, connection.port) for host in _addresses(connection.host or "", protocol)]
    except ConfigurationError as error:
        raise ConfigurationError(f"connection {connection.conn_id!r}: {error}") from None
    if together := list(dict.fromkeys(part for part in [*hosts, *listed] if part)):
        options["bootstrap.servers"] = ",".join(together)
    return options


def _addresses(text: str, protocol: str) -> list[str]:
    """Return the brokers of a list, whose items may have a scheme: PLAINTEXT://host:port, kafka://host."""
    from airflow_workflow_events.kafka.config import SECURITY_PROTOCOLS

    addresses = []
    for part in text.split(","):
        scheme, _, address = part.strip().rpartition("://")
        if scheme.upper() in SECURITY_PROTOCOLS and scheme.upper() != protocol:
            # librdkafka would drop the broker, and report that none answers.
            raise ConfigurationError(
                f"a broker is at {scheme}:// but security.protocol is {protocol}: make them the same"
            )
        addresses.append(address)
    return addresses


def _with_port(host: str, port: int | None) -> str:
    """Return ``host:port``; people also write the port, or several hosts, into the host field."""
    if not host or _HAS_PORT.search(host):
        return host
    if ":" in host and not host.startswith("["):  # a bare IPv6 address
        host = f"[{host}]"
    return f"{host}:{port or _DEFAULT_PORT}"
