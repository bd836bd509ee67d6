"""The rows of the matrix: how a client presents itself to a Kafka that enforces what it was told."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_workflow_events.errors import (
    ConfigurationError,
    KafkaAuthenticationError,
    KafkaAuthorizationError,
    KafkaConnectionError,
    WorkflowEventsError,
)
from tests.brokers.certificates import Certificates
from tests.brokers.secure_listener import SecureListener, grant

CANARY = "canary-7f3a-password"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
WRITES, READS, IN_GROUP = "writes", "reads", "in a group"

Config = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """A Kafka that enforces.

    Attributes:
        listener: its listeners.
        open_servers: the listener without login and TLS.
        foreign: certificates of an authority that it does not know.
        topic: a topic that exists.
        missing_topic: one that does not.
    """

    listener: SecureListener
    open_servers: str
    foreign: Certificates
    topic: str
    missing_topic: str

    def tls(self, servers: str | None = None, **options: Any) -> Config:
        """TLS without a login."""
        return {
            "bootstrap.servers": servers or self.listener.mutual_tls_servers,
            "security.protocol": "SSL",
            "ssl.ca.location": self.listener.ca_location,
            **{name.replace("_", "."): value for name, value in options.items()},
        }

    def sasl(self, user: str, mechanism: str = "SCRAM-SHA-512", **options: Any) -> Config:
        """A login over TLS."""
        return {
            **self.listener.client_settings(user, mechanism),
            **{name.replace("_", "."): value for name, value in options.items()},
        }

    def as_somebody(self, *grants: str) -> Config:
        """Log in as a new principal with these grants and no others."""
        user = f"somebody-{uuid.uuid4()}"
        if grants:
            grant(
                self.open_servers,
                user,
                *(text.format(topic=self.topic, missing=self.missing_topic) for text in grants),
            )
        return self.listener.client_settings(user, "OAUTHBEARER")


@dataclass(frozen=True)
class Cell:
    """A row.

    Attributes:
        config: makes the client's configuration, for a surface that writes or one that reads.
        error: what it comes to. ``None``: the event arrives.
        words: cause and remedy, as regular expressions of which each must be found.
        surfaces: where it applies. Default: to those that write and those that read.
        on_missing_topic: whether it is about the topic that does not exist.
    """

    config: Callable[[Site, str], Mapping[str, Any]]
    error: type[WorkflowEventsError] | None = None
    words: tuple[str, ...] = ()
    surfaces: tuple[str, ...] = (WRITES, READS)
    on_missing_topic: bool = False


def _user(kind: str) -> str:
    return "publisher" if kind == WRITES else "waiter"


def _certificate(site: Site, path: str | None = None, key: str | None = None) -> Config:
    return site.tls() | {
        "ssl.certificate.location": path or site.listener.client_certificate_location,
        "ssl.key.location": key or site.listener.client_key_location,
    }


def _logged_in(mechanism: str, **options: Any) -> Callable[[Site, str], Config]:
    return lambda site, kind: site.sasl(_user(kind), mechanism, **options)


GOOD: dict[str, Cell] = {
    **{f"SASL_SSL, {mechanism}": Cell(_logged_in(mechanism)) for mechanism in (*MECHANISMS, "OAUTHBEARER")},
    "mutual TLS": Cell(lambda site, _: _certificate(site)),
}

_LOGIN, _RIGHTS = KafkaAuthenticationError, KafkaAuthorizationError

REFUSED: dict[str, Cell] = {
    **{
        f"wrong password, {mechanism}": Cell(
            _logged_in(mechanism, sasl_password=CANARY),
            _LOGIN,
            ("check sasl.username, sasl.password",),
        )
        for mechanism in MECHANISMS
    },
    "unknown user": Cell(
        lambda site, kind: site.sasl(_user(kind), sasl_username="stranger"), _LOGIN, ("check sasl.username",)
    ),
    "wrong mechanism": Cell(
        lambda site, _: (
            site.tls(site.listener.mutual_tls_servers)
            | {
                "ssl.certificate.location": site.listener.client_certificate_location,
                "ssl.key.location": site.listener.client_key_location,
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "PLAIN",
                "sasl.username": "publisher",
                "sasl.password": CANARY,
            }
        ),
        _LOGIN,
        ("takes no login",),
    ),
    "no login": Cell(
        lambda site, _: site.tls(site.listener.bootstrap_servers), _LOGIN, ("wants a login", "SCRAM-SHA-512")
    ),
    "plaintext to TLS": Cell(
        lambda site, _: {"bootstrap.servers": site.listener.bootstrap_servers},
        KafkaConnectionError,
        ("speaks TLS", "SASL_SSL"),
    ),
    "TLS to plaintext": Cell(
        lambda site, _: site.tls(site.open_servers), KafkaConnectionError, ("speaks no TLS", "use PLAINTEXT")
    ),
    "unknown authority": Cell(
        lambda site, kind: site.sasl(_user(kind)) | {"ssl.ca.location": str(site.foreign.ca)},
        _LOGIN,
        ("authority that is not in ssl.ca.location",),
    ),
    "expired server certificate": Cell(
        lambda site, _: site.tls(site.listener.expired_servers),
        _LOGIN,
        ("has expired: renew it at the broker",),
    ),
    "wrong host name": Cell(
        lambda site, _: site.tls(site.listener.misnamed_servers), _LOGIN, ("for another host name",)
    ),
    "no client certificate": Cell(
        lambda site, _: site.tls(), _LOGIN, ("demands a client certificate: set ssl.certificate.location",)
    ),
    "expired client certificate": Cell(
        lambda site, _: _certificate(site, site.listener.expired_client_certificate_location),
        _LOGIN,
        (r"expired-client.pem\) has expired",),
    ),
    "client certificate of an unknown authority": Cell(
        lambda site, _: _certificate(
            site, str(site.foreign.client_certificate), str(site.foreign.client_key)
        ),
        _LOGIN,
        ("must be of an authority it trusts",),
    ),
    "missing key file": Cell(
        lambda site, _: _certificate(site, key="/nowhere/client.key"),
        ConfigurationError,
        ("ssl.key.location is /nowhere/client.key", "No such file"),
    ),
    "key of another certificate": Cell(
        lambda site, _: _certificate(site, key=str(site.foreign.client_key)),
        ConfigurationError,
        (r"ssl.key.location is /\S+", "private key of the certificate"),
    ),
    "missing CA file": Cell(
        lambda site, _: site.tls(ssl_ca_location="/nowhere/ca.pem"),
        ConfigurationError,
        ("ssl.ca.location is /nowhere/ca.pem", "No such file"),
    ),
    "no Write": Cell(
        lambda site, _: site.as_somebody("Describe topic {topic}"),
        _RIGHTS,
        ("Write",),
        surfaces=(WRITES,),
    ),
    "no Describe": Cell(
        lambda site, _: site.as_somebody(), _RIGHTS, ("grant the principal (Read|Write|Describe)",)
    ),
    "no Read": Cell(
        lambda site, _: site.as_somebody("Describe topic {topic}"),
        _RIGHTS,
        ("grant the principal Read",),
        surfaces=(READS,),
    ),
    "no Read on the group": Cell(
        lambda site, _: site.as_somebody("Read topic {topic}", "Describe topic {topic}"),
        _RIGHTS,
        (r"grant the principal Read on group \S+",),
        surfaces=(IN_GROUP,),
    ),
    "no Create": Cell(
        lambda site, _: site.as_somebody("Write topic {missing}", "Describe topic {missing}"),
        _RIGHTS,
        ("create it",),
        surfaces=(WRITES,),
        on_missing_topic=True,
    ),
}
