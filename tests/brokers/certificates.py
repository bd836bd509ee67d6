"""A throwaway certificate authority with a server and a client certificate, made with ``openssl``."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_DAYS_VALID = "2"
_DAYS_OF_EXPIRED = "-1"

# A configuration of our own, because what openssl's default one adds differs between distributions.
_OPENSSL_CONFIG = """\
[req]
distinguished_name = name
prompt = no
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
[elsewhere]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:kafka.elsewhere.example
[client]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = clientAuth
"""


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files. Keys are unencrypted PKCS #8."""

    ca: Path
    server_key_and_certificate: Path
    """The server's key, then its certificate, then the authority's: what Kafka calls a PEM key store."""
    client_certificate: Path
    client_key: Path
    expired_server: Path
    """A PEM key store whose certificate was valid until yesterday."""
    misnamed_server: Path
    """A PEM key store whose certificate is for another host."""
    expired_client_certificate: Path
    """For ``client_key``, valid until yesterday."""


def make_certificates(directory: Path) -> Certificates:
    """Make an authority, a server certificate for 127.0.0.1 and localhost, and a client certificate.

    Args:
        directory: where the files go; created if missing.

    Raises:
        RuntimeError: when ``openssl`` is missing or fails.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "openssl.cnf").write_text(_OPENSSL_CONFIG)
    _openssl(directory, *_key_and_request("ca"), "-x509", "-days", _DAYS_VALID, "-extensions", "authority")
    for kind in ("server", "client"):
        _openssl(directory, *_key_and_request(kind))
    _sign(directory, "server", "server.pem", "server")
    _sign(directory, "server", "expired-server.pem", "server", _DAYS_OF_EXPIRED)
    _sign(directory, "server", "misnamed-server.pem", "elsewhere")
    _sign(directory, "client", "client.pem", "client")
    _sign(directory, "client", "expired-client.pem", "client", _DAYS_OF_EXPIRED)
    return Certificates(
        ca=directory / "ca.pem",
        server_key_and_certificate=_key_store(directory, "server"),
        client_certificate=directory / "client.pem",
        client_key=directory / "client.key",
        expired_server=_key_store(directory, "expired-server"),
        misnamed_server=_key_store(directory, "misnamed-server"),
        expired_client_certificate=directory / "expired-client.pem",
    )


def _sign(directory: Path, request: str, certificate: str, usage: str, days: str = _DAYS_VALID) -> None:
    _openssl(
        directory, "x509", "-req", "-in", f"{request}.csr", "-out", certificate, "-days", days,
        "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-extfile", "openssl.cnf", "-extensions", usage,
    )  # fmt: skip


def _key_store(directory: Path, certificate: str) -> Path:
    store = directory / f"{certificate}-store.pem"
    parts = ("server.key", f"{certificate}.pem", "ca.pem")
    store.write_text("".join((directory / part).read_text() for part in parts))
    return store


def _key_and_request(kind: str) -> list[str]:
    suffix = "pem" if kind == "ca" else "csr"  # the authority signs its own
    # Elliptic curve keys, because making RSA ones takes noticeably longer.
    return [
        "req", "-new", "-config", "openssl.cnf", "-subj", f"/CN=test {kind}",
        "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", f"{kind}.key", "-out", f"{kind}.{suffix}",
    ]  # fmt: skip


def _openssl(directory: Path, *arguments: str) -> None:
    try:
        subprocess.run(
            ["openssl", *arguments], cwd=directory, check=True, capture_output=True, text=True, timeout=60
        )
    except FileNotFoundError:
        raise RuntimeError("openssl is not on the PATH; the secure listener needs it") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"openssl {arguments[0]} failed: {error.stderr[-2000:]}") from None
