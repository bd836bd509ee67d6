"""The SASL_SSL and SSL listeners of a test cluster: settings, users and what these may do."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # noqa: TID253
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tests.brokers.certificates import Certificates, make_certificates
from tests.brokers.node import Node
from tests.waiting import await_condition

TOPIC_PREFIX = "events-"
"""The users' permissions are for topics whose names begin with this."""

GRANTED_PREFIX = "granted-"
"""The users with the documented grants have them for topics whose names begin with this."""

CLIENT_CERTIFICATE_USER = "CN=test client"
"""Whom the SSL listener takes the bearer of the client certificate for."""

_SCRAM_MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512")
_PREFIX = "listener.name.sasl_ssl"
_TLS_PREFIX = "listener.name.ssl"
_SECURITY = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class SecureListener:
    """How clients reach the SASL_SSL listener.

    It takes SCRAM-SHA-256, SCRAM-SHA-512, PLAIN, and OAUTHBEARER with unsecured tokens (whose ``sub``
    claim is believed as it stands). A client certificate is optional; one that is shown must come
    from the same authority.
    """

    bootstrap_servers: str
    """Comma-separated ``host:port`` of every broker's secure listener."""
    mutual_tls_servers: str
    """Comma-separated ``host:port`` of every broker's SSL listener: no SASL, the client certificate is
    required, and its subject is a user with the permissions of ``writer``."""
    ca_location: str
    """Path of the authority's certificate, PEM."""
    users: dict[str, str] = field(repr=False)
    """Passwords by user name, random for each cluster.

    ``writer`` may describe, create and write topics named ``events-*``, and write idempotently;
    ``reader`` may describe and read topics named ``events-*``, with any consumer group;
    ``publisher`` and ``waiter`` have exactly the grants that docs/security.md gives to those who publish
    and to those who wait, for topics named ``granted-*``, and for no group;
    ``nobody`` can log in and may do nothing.
    """
    client_certificate_location: str
    """Path of a client certificate, PEM."""
    client_key_location: str
    """Path of that certificate's key, PEM, not encrypted."""
    expired_client_certificate_location: str
    """Path of a client certificate for the same key that was valid until yesterday."""
    expired_servers: str
    """Comma-separated ``host:port`` of TLS listeners whose certificate was valid until yesterday."""
    misnamed_servers: str
    """Comma-separated ``host:port`` of TLS listeners whose certificate is for another host."""

    def client_settings(self, user: str, mechanism: str = "SCRAM-SHA-512") -> dict[str, str]:
        """Settings for a confluent_kafka client that logs in as ``user``, without a client certificate.

        Args:
            user: one of ``users``.
            mechanism: a SASL mechanism with a password, or ``OAUTHBEARER``.
        """
        settings = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": self.ca_location,
            "sasl.mechanism": mechanism,
        }
        if mechanism == "OAUTHBEARER":
            return settings | {
                "enable.sasl.oauthbearer.unsecure.jwt": "true",
                "sasl.oauthbearer.config": f"principal={user}",
            }
        return settings | {"sasl.username": user, "sasl.password": self.users[user]}


def make_secure_listener(directory: Path, nodes: Sequence[Node]) -> tuple[SecureListener, Certificates]:
    """Make certificates in ``directory``, and passwords for the listeners of these nodes."""
    certificates = make_certificates(directory)
    listener = SecureListener(
        bootstrap_servers=",".join(node.secure_address for node in nodes),
        mutual_tls_servers=",".join(node.tls_address for node in nodes),
        ca_location=str(certificates.ca),
        users={user: secrets.token_hex(16) for user in ("writer", "reader", "nobody", "publisher", "waiter")},
        client_certificate_location=str(certificates.client_certificate),
        client_key_location=str(certificates.client_key),
        expired_client_certificate_location=str(certificates.expired_client_certificate),
        expired_servers=",".join(node.expired_address for node in nodes),
        misnamed_servers=",".join(node.misnamed_address for node in nodes),
    )
    return listener, certificates


def broker_properties(listener: SecureListener, certificates: Certificates) -> dict[str, str]:
    """The broker's settings for the listeners ``SASL_SSL`` and ``SSL``, and for authorisation."""
    plain_users = " ".join(f'user_{user}="{password}"' for user, password in listener.users.items())
    stores = {
        _PREFIX: certificates.server_key_and_certificate,
        _TLS_PREFIX: certificates.server_key_and_certificate,
        "listener.name.expired": certificates.expired_server,
        "listener.name.misnamed": certificates.misnamed_server,
    }
    properties = {
        f"{prefix}.{name}": value
        for prefix, store in stores.items()
        for name, value in {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(certificates.ca),
        }.items()
    } | {
        f"{_TLS_PREFIX}.ssl.client.auth": "required",
        # With the listener's prefix, because Kafka ignores the bare setting on SASL_SSL listeners.
        f"{_PREFIX}.ssl.client.auth": "requested",
        f"{_PREFIX}.sasl.enabled.mechanisms": ",".join((*_SCRAM_MECHANISMS, "PLAIN", "OAUTHBEARER")),
        f"{_PREFIX}.plain.sasl.jaas.config": f"{_SECURITY}.plain.PlainLoginModule required {plain_users};",
        # Without options and handlers this is Kafka's built-in unsecured validation of tokens.
        f"{_PREFIX}.oauthbearer.sasl.jaas.config": (
            f"{_SECURITY}.oauthbearer.OAuthBearerLoginModule required;"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # Whoever comes through the PLAINTEXT listener: the brokers themselves, and the tests' set-up.
        "super.users": "User:ANONYMOUS",
    }
    for mechanism in _SCRAM_MECHANISMS:
        key = f"{_PREFIX}.{mechanism.lower()}.sasl.jaas.config"
        properties[key] = f"{_SECURITY}.scram.ScramLoginModule required;"
    return properties


def scram_format_arguments(listener: SecureListener) -> list[str]:
    """Arguments with which Kafka's StorageTool creates the SCRAM users along with the log directory."""
    return [
        argument
        for mechanism in _SCRAM_MECHANISMS
        for user, password in listener.users.items()
        for argument in ("--add-scram", f"{mechanism}=[name={user},password={password}]")
    ]


def create_acls(admin: AdminClient) -> None:
    """Grant the users their permissions; brokers other than the answering one may learn of it later.

    Args:
        admin: a client of the PLAINTEXT listener.
    """
    prefixed, literal = ResourcePatternType.PREFIXED, ResourcePatternType.LITERAL
    # One request, so that a broker that knows any of these grants knows them all.
    grants = [
        *(
            grant
            for writer in ("writer", CLIENT_CERTIFICATE_USER)
            for grant in (
                *_grants(writer, ResourceType.TOPIC, TOPIC_PREFIX, prefixed, "DESCRIBE", "CREATE", "WRITE"),
                *_grants(writer, ResourceType.BROKER, "kafka-cluster", literal, "IDEMPOTENT_WRITE"),
            )
        ),
        *_grants("reader", ResourceType.TOPIC, TOPIC_PREFIX, prefixed, "DESCRIBE", "READ"),
        *_grants("reader", ResourceType.GROUP, "*", literal, "DESCRIBE", "READ"),
        *_grants("publisher", ResourceType.TOPIC, GRANTED_PREFIX, prefixed, "DESCRIBE", "WRITE"),
        *_grants("waiter", ResourceType.TOPIC, GRANTED_PREFIX, prefixed, "DESCRIBE", "READ"),
        *_grants(
            CLIENT_CERTIFICATE_USER, ResourceType.TOPIC, GRANTED_PREFIX, prefixed, "DESCRIBE", "READ", "WRITE"
        ),
    ]
    for future in admin.create_acls(grants, request_timeout=30).values():
        future.result()


def grant(open_servers: str, user: str, *grants: str) -> None:
    """Grant a user permissions, and wait until a broker knows of them.

    Args:
        open_servers: the PLAINTEXT listener of a cluster of one broker.
        user: the principal's name.
        grants: each as ``"Write topic events-1"``, ``"Read group reports"``, ``"Read group reports-*"`` or
            ``"IdempotentWrite cluster kafka-cluster"``; an asterisk at the end makes it a prefix.
    """
    admin = AdminClient({"bootstrap.servers": open_servers, "log_level": 0})
    wanted = [_binding(user, *text.split()) for text in grants]
    for future in admin.create_acls(wanted, request_timeout=30).values():
        future.result()
    anything: Any = None  # the filter takes it for every name and host, whatever its type says
    everything = AclBindingFilter(
        ResourceType.ANY, anything, ResourcePatternType.ANY, f"User:{user}", anything,
        AclOperation.ANY, AclPermissionType.ANY,
    )  # fmt: skip

    def known() -> bool:
        return len(admin.describe_acls(everything, request_timeout=30).result()) >= len(wanted)

    await_condition(known, timeout_seconds=30, what=f"the grants of {user}")


def unsecured_token(user: str) -> Callable[[str], tuple[str, float]]:
    """A callback that returns a token without a signature (RFC 7519, section 6)."""

    def part(document: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    def token(_config: str) -> tuple[str, float]:
        now = int(time.time())
        claims = {"sub": user, "iat": now, "exp": now + 600}
        return f"{part({'alg': 'none'})}.{part(claims)}.", now + 600.0

    return token


def _binding(user: str, operation: str, kind: str, name: str) -> AclBinding:
    kinds = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.BROKER}
    code = "".join(f"_{letter}" if letter.isupper() else letter for letter in operation).strip("_").upper()
    pattern = ResourcePatternType.PREFIXED if name.endswith("*") else ResourcePatternType.LITERAL
    return _grants(user, kinds[kind], name.removesuffix("*"), pattern, code)[0]


def _grants(
    user: str, kind: ResourceType, name: str, pattern: ResourcePatternType, *operations: str
) -> list[AclBinding]:
    return [
        AclBinding(kind, name, pattern, f"User:{user}", "*", AclOperation[operation], AclPermissionType.ALLOW)
        for operation in operations
    ]
