"""Values framed for a Confluent schema registry, by confluent-kafka's own JSON serializer.

For topics whose consumers, connectors or gateways expect every value to begin with the id of its schema.
Needs the extra ``airflow-workflow-events[schema-registry]``; nothing of it is imported before it is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pydantic_core import from_json, to_json

from airflow_workflow_events.errors import (
    ConfigurationError,
    EventSerializationError,
    KafkaAuthenticationError,
    KafkaAuthorizationError,
    KafkaConnectionError,
    KafkaError,
    WorkflowEventsError,
    masked,
    printable,
)
from airflow_workflow_events.events.schema import SCHEMA_PATH
from airflow_workflow_events.forks import critical_section

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.json_schema import JSONSerializer

#: The client's own default is to wait for ever: an event would wait with it.
_CLIENT_DEFAULTS = {"timeout": 10, "max.retries": 2, "retries.max.wait.ms": 1_000}
# How long a registry that said no is left alone: each event of a batch would wait for the same in turn.
_PAUSE_SECONDS = 5.0
_FRAME_BYTES = 5
_REFUSED_SCHEMA = frozenset({409, 422})  # incompatible with what is registered; no schema in its eyes
_ADVICE_ON_COMPATIBILITY = (
    "the event's objects are open, so that fields may be added: set the subject's compatibility to FORWARD"
)


class RegistryValueSerializer:
    """Frames the JSON of events for a schema registry: the ``value_serializer`` of a producer.

    The event's JSON Schema, the file that ships with this package, is registered under the subject
    ``<topic>-value``, and each value begins with a zero byte and the schema's id in four bytes. The JSON
    behind it, the key and the headers stay as they are without a registry.
    :func:`airflow_workflow_events.events.decode` reads such values without asking the registry.

    The first event of a topic waits for the registry, those that follow do not; :meth:`register` has that
    done beforehand. Where the registry does not answer the wait ends after about half a minute, and for the
    five seconds after that further events for the topic fail at once. Safe to use from several threads, and
    in the children of a fork, which get connections of their own.

    Args:
        registry: options of confluent-kafka's ``SchemaRegistryClient``, by its names: ``url`` (required;
            several with commas between them), ``basic.auth.user.info`` (``user:password``),
            ``ssl.ca.location``, ``timeout`` (in seconds, here 10 by default), ... Credentials among them
            stand in no error, log line or repr.
        config: options of confluent-kafka's ``JSONSerializer``, by its names. ``auto.register.schemas``:
            ``False`` only looks the schema up. ``validate``: ``True`` has each event checked against the
            schema as well, which the model has done already. Default: none.

    Raises:
        ConfigurationError: an option is wrong, or the extra is not installed.
    """

    def __init__(self, registry: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> None:
        self._registry = {**_CLIENT_DEFAULTS, **registry}
        self._config = dict(config or {})
        self._schema = SCHEMA_PATH.read_text(encoding="utf-8")
        self._url = _without_credentials(self._registry.get("url"))
        self._secrets = _secrets_of(self._registry)
        self._trouble: dict[str, tuple[float, WorkflowEventsError]] = {}
        self._pid = 0
        self._client, self._serializer = self._of_this_process()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._url}>"

    def __call__(self, value: bytes, topic: str) -> bytes:
        """Return the value with its frame.

        Args:
            value: the JSON of an event.
            topic: where it goes, as the schema's subject depends on it.

        Raises:
            KafkaConnectionError: the registry did not answer, or has trouble of its own.
            KafkaAuthenticationError, KafkaAuthorizationError: it refused the credentials or the permission.
            ConfigurationError: it refused the schema, or does not have it and may not be given it.
            EventSerializationError: the event is not valid by the schema that is asked for.
        """
        if self._trouble and (trouble := self._trouble.get(topic)):
            since, error = trouble
            if monotonic() < since + _PAUSE_SECONDS:
                raise type(error)(str(error))
        return self._framed(value, topic)

    def register(self, topic: str) -> int:
        """Register the schema for a topic, or look it up, and return its id.

        Args:
            topic: the topic.

        Raises:
            KafkaConnectionError: and the others, as for serializing an event.
        """
        framed = self._framed(to_json(json.loads(self._schema)["examples"][0]), topic)
        return int.from_bytes(framed[1:_FRAME_BYTES], "big")

    @property
    def client(self) -> SchemaRegistryClient:
        """The registry's client in this process, e.g. for a ``JSONDeserializer``."""
        return self._of_this_process()[0]

    def _framed(self, value: bytes, topic: str) -> bytes:
        from confluent_kafka.serialization import MessageField, SerializationContext

        _, serializer = self._of_this_process()
        try:
            framed = serializer(value, SerializationContext(topic, MessageField.VALUE))
        except Exception as error:  # noqa: BLE001 - of the client, of its HTTP library, and of rules of the user's
            translated = self._translated(error, topic)
            if not isinstance(translated, EventSerializationError):
                self._trouble[topic] = monotonic(), translated
            raise translated from None
        if framed is None:
            raise EventSerializationError("a rule of the schema registry made nothing of the event")
        self._trouble.pop(topic, None)
        return bytes(framed)

    def _of_this_process(self) -> tuple[SchemaRegistryClient, JSONSerializer]:
        if self._pid != os.getpid():
            # In the child of a fork a connection would be shared, and a lock may be held by nobody.
            with critical_section():  # it imports an HTTP client, and sets SSL up
                self._client, self._serializer = self._connected()
            self._pid = os.getpid()
        return self._client, self._serializer

    def _connected(self) -> tuple[SchemaRegistryClient, JSONSerializer]:
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
            from confluent_kafka.schema_registry.json_schema import JSONSerializer
        except ImportError as error:
            raise ConfigurationError(
                f"{error.name} is missing: pip install 'airflow-workflow-events[schema-registry]'"
            ) from None
        options = {
            "subject.name.strategy": topic_subject_name_strategy,  # its default asks the registry for one
            "validate": False,
            **self._config,
        }
        try:
            client = SchemaRegistryClient.new_client(_with_login_apart(self._registry))
            serializer = JSONSerializer(
                self._schema,
                client,
                to_dict=lambda value, _context: from_json(value),
                conf=options,
                json_encode=to_json,
            )
        except (OSError, TypeError, ValueError) as error:  # OSError: of certificates
            raise ConfigurationError(
                f"the schema registry's client refuses its options: {self._masked(error)}"
            ) from None
        return client, serializer

    def _translated(self, error: Exception, topic: str) -> WorkflowEventsError:
        from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError
        from confluent_kafka.serialization import SerializationError

        place = f"the schema registry at {self._url}"
        if isinstance(error, SchemaRegistryError):
            return _refusal(place, topic, error.http_status_code, self._masked(error))
        if isinstance(error, OAuthTokenError):
            return KafkaAuthenticationError(f"{place} cannot be asked: its OAuth token was not to be had")
        if isinstance(error, SerializationError):
            return EventSerializationError(
                f"the event does not pass its schema in the registry: {self._masked(error)}"
            )
        # Of httpx or httpx2, whichever the client uses.
        if isinstance(error, OSError) or any(
            kind.__name__ == "TransportError" for kind in type(error).__mro__
        ):
            return KafkaConnectionError(
                f"{place} did not answer ({type(error).__name__}: {self._masked(error)}): check the address, "
                "and that it is up"
            )
        return KafkaError(f"{place} could not be asked: {type(error).__name__}: {self._masked(error)}")

    def _masked(self, error: Exception) -> str:
        return printable(masked(str(error), self._secrets))


def _refusal(place: str, topic: str, status: int, text: str) -> WorkflowEventsError:
    if status == 401:
        return KafkaAuthenticationError(f"{place} refused the credentials: {text}")
    if status == 403:
        return KafkaAuthorizationError(f"{place} does not permit it for topic {topic}: {text}")
    if status == 404:
        return ConfigurationError(
            f"{place} has no such schema for topic {topic}: {text}; register it, or leave "
            "auto.register.schemas on"
        )
    if status in _REFUSED_SCHEMA:
        return ConfigurationError(
            f"{place} refused the schema for topic {topic}: {text}; {_ADVICE_ON_COMPATIBILITY}"
        )
    return KafkaConnectionError(f"{place} has trouble: {text}")


def _with_login_apart(registry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with the login of the address in an option of its own: httpx logs addresses."""
    options, url = dict(registry), registry.get("url")
    if not isinstance(url, str) or "@" not in url:
        return options
    logins, addresses = set[str](), list[str]()
    for part in url.split(","):
        address = urlsplit(part.strip())
        login, _, host = address.netloc.rpartition("@")
        logins.add(login)
        addresses.append(address._replace(netloc=host).geturl())
    if len(logins) > 1:
        raise ConfigurationError(
            "the addresses of the schema registry have different logins: use one, in basic.auth.user.info"
        )
    if options.get("basic.auth.user.info"):
        raise ConfigurationError("a login is in the address and in basic.auth.user.info: use the latter")
    options["url"] = ",".join(addresses)
    options["basic.auth.user.info"] = unquote(logins.pop())
    return options


def _without_credentials(url: object) -> str:
    parts = [urlsplit(part.strip()) for part in url.split(",")] if isinstance(url, str) else []
    return ",".join(f"{part.scheme}://{part.netloc.rpartition('@')[2]}" for part in parts) or "no address"


def _secrets_of(registry: Mapping[str, Any]) -> set[str]:
    """Return what may not be shown: passwords, tokens, and the credentials in addresses."""
    found: set[str] = set()
    for name, value in registry.items():
        if not isinstance(value, str):
            continue
        if name == "url":
            for part in value.split(","):
                credentials = urlsplit(part.strip()).netloc.rpartition("@")[0]
                found |= {credentials, credentials.partition(":")[2], unquote(credentials.partition(":")[2])}
        elif name == "basic.auth.user.info":
            found |= {value, value.partition(":")[2]}
        elif any(word in name for word in ("password", "secret", "token", "proxy")):
            found.add(value)
    return found
