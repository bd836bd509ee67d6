"""Where snippets with credentials are executed: a real Kafka with TLS, SASL and ACLs.

What the documentation names stands for what the test's Kafka has:

=============================================  =======================================================
``kafka:9092``                                 the SASL_SSL listener
``kafka.example.com:9093``                     the SSL listener that demands a client certificate
``/etc/kafka/ca.pem``                          the certificate of its authority
``/etc/kafka/client.pem``                      a client certificate
``/etc/kafka/client.key``                      its key, encrypted with ``KAFKA_KEY_PASSWORD``
``sasl_username="workflow-events"``            the user ``writer``, with ``KAFKA_PASSWORD`` as password
``https://login.example.com/oauth2/token``     a token endpoint that knows ``KAFKA_CLIENT_SECRET``
=============================================  =======================================================
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # noqa: TID253
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from airflow_workflow_events.events.model import DEFAULT_TOPIC
from tests.brokers.metadata import metadata_from
from tests.brokers.secure_listener import CLIENT_CERTIFICATE_USER, SecureListener
from tests.docs.identity_provider import IdentityProvider
from tests.waiting import await_condition

_CLIENT = "workflow-events"
_USER = "writer"


@dataclass(frozen=True)
class SecureSite:
    """A secure Kafka in the documentation's words.

    Attributes:
        replacements: what to put in place of what, in code.
        environment: the environment variables that the code reads.
        open_servers: the listener that asks nobody for credentials.
    """

    replacements: dict[str, str]
    environment: dict[str, str]
    open_servers: str

    def at_this_broker(self, code: str) -> str:
        """Have code use this Kafka in place of the documented one."""
        for documented, actual in self.replacements.items():
            code = code.replace(documented, actual)
        return code


@contextmanager
def secure_site(listener: SecureListener, open_servers: str, directory: Path) -> Iterator[SecureSite]:
    """Prepare what the documentation takes for granted: the topic, the grants, an encrypted key, tokens.

    Args:
        listener: the listeners with TLS.
        open_servers: the listener without.
        directory: for the encrypted key.
    """
    _grant(open_servers)
    _await_grant(listener)
    environment = {
        "KAFKA_PASSWORD": listener.users[_USER],
        "KAFKA_KEY_PASSWORD": secrets.token_hex(16),
        "KAFKA_CLIENT_SECRET": secrets.token_hex(16),
    }
    key = directory / "client.key"
    _encrypt(Path(listener.client_key_location), key, environment["KAFKA_KEY_PASSWORD"])
    with IdentityProvider((_CLIENT, environment["KAFKA_CLIENT_SECRET"]), _USER) as provider:
        yield SecureSite(
            {
                "kafka:9092": listener.bootstrap_servers,
                "kafka.example.com:9093": listener.mutual_tls_servers,
                "/etc/kafka/ca.pem": listener.ca_location,
                "/etc/kafka/client.pem": listener.client_certificate_location,
                "/etc/kafka/client.key": str(key),
                'sasl_username="workflow-events"': f'sasl_username="{_USER}"',
                "https://login.example.com": provider.url,
            },
            environment,
            open_servers,
        )


def _grant(open_servers: str) -> None:
    """Grant what the documentation says the producer needs."""
    admin = AdminClient({"bootstrap.servers": open_servers, "log_level": 0})
    try:
        admin.create_topics([NewTopic(DEFAULT_TOPIC, 4)], request_timeout=30)[DEFAULT_TOPIC].result()
    except KafkaException as error:
        if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
            raise
    grants = [
        AclBinding(
            ResourceType.TOPIC, DEFAULT_TOPIC, ResourcePatternType.LITERAL,
            f"User:{user}", "*", operation, AclPermissionType.ALLOW,
        )
        for user in (_USER, CLIENT_CERTIFICATE_USER)
        for operation in (AclOperation.WRITE, AclOperation.DESCRIBE)
    ]  # fmt: skip
    for future in admin.create_acls(grants, request_timeout=30).values():
        future.result()


def _await_grant(listener: SecureListener) -> None:
    def granted() -> bool:
        address = listener.bootstrap_servers.partition(",")[0]
        metadata = metadata_from(address, listener.client_settings(_USER), DEFAULT_TOPIC)
        return metadata is not None and metadata.topics[DEFAULT_TOPIC].error is None

    await_condition(granted, timeout_seconds=30, what="the grants")


def _encrypt(source: Path, target: Path, password: str) -> None:
    command = ["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", str(source), "-out", str(target)]
    subprocess.run(
        [*command, "-passout", "stdin"],
        input=password,
        text=True,
        check=True,
        capture_output=True,
        timeout=60,
    )
