"""Finding out why a broker and a client do not understand each other, which librdkafka does not tell.

It says "certificate verify failed" of an expired certificate, of another host's and of an unknown
authority's, and "disconnected" where a client without TLS has met a listener with TLS. One short connection
of our own tells these apart. It is made only after librdkafka has failed, sends no credentials, and shows no
certificate.
"""

from __future__ import annotations

import datetime as dt

# Resolving a name imports it, and a child that is forked meanwhile could never resolve one: its import would
# wait for a thread that only the parent has.
import encodings.idna  # noqa: F401
import os
import re
import socket
import ssl
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Of one answer. Somebody waits for the reason.
_ANSWER_SECONDS = 1.0
_MAX_ANSWER_BYTES = 65_536
# Keys of the Kafka protocol's requests (https://kafka.apache.org/protocol#protocol_api_keys).
_SASL_HANDSHAKE, _API_VERSIONS = 17, 18
_CORRELATION_ID = 7
_UNSUPPORTED_SASL_MECHANISM = 33
# What OpenSSL says of a certificate (X509_V_ERR_..., x509_vfy.h).
_NOT_YET_VALID, _EXPIRED, _HOST_MISMATCH, _ADDRESS_MISMATCH = 9, 10, 62, 64
# What a TLS client meets where nobody speaks TLS.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "HTTP_REQUEST"})
_ADDRESS = re.compile(r"(?:^|\s|//)(\[[0-9a-fA-F:.]+\]|[^\s/\[\]]+):(\d{1,5})/")

Address = tuple[str, int]


def address_in(text: str) -> Address | None:
    """Return the broker that a text of librdkafka is about, as ``sasl_ssl://kafka:9093/bootstrap: ...``."""
    found = _ADDRESS.search(text)
    return None if found is None else (found[1].strip("[]"), int(found[2]))


def speaks_tls(address: Address) -> bool:
    """Whether a listener answers in TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with _connect(address) as plain, context.wrap_socket(plain):
            return True
    except ssl.SSLError as error:  # any refusal in TLS is TLS
        return error.reason not in _NO_TLS
    except OSError:
        return False


def speaks_plaintext(address: Address) -> bool:
    """Whether a listener answers Kafka's requests without TLS."""
    try:
        with _connect(address) as plain:
            return _ask(plain, _API_VERSIONS, b"") is not None
    except OSError:
        return False


def wants_login(address: Address, config: Mapping[str, Any]) -> list[str] | None:
    """Return the SASL mechanisms that a listener takes; ``None`` where it wants no login, or does not say."""
    try:
        with _connect(address) as plain:
            if not _uses_tls(config):
                return _mechanisms(plain)
            with _context(config).wrap_socket(plain, server_hostname=address[0]) as secure:
                return _mechanisms(secure)
    except (OSError, ValueError, struct.error):
        return None


def distrust(address: Address, config: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a broker's certificate, and the remedy; ``None`` if nothing is found."""
    host, port = address
    try:
        context = _context(config)
        with _connect(address) as plain, context.wrap_socket(plain, server_hostname=host):
            return None
    except ssl.SSLCertVerificationError as error:
        said = f"the certificate of the broker at {host}:{port}"
        if error.verify_code == _EXPIRED:
            return f"{said} has expired: renew it at the broker, or set this machine's clock"
        if error.verify_code == _NOT_YET_VALID:
            return f"{said} is not valid yet: set this machine's clock, or wait"
        if error.verify_code in {_HOST_MISMATCH, _ADDRESS_MISMATCH}:
            return (
                f"{said} is for another host name: use a name that stands in it, in bootstrap.servers and in "
                "the broker's advertised.listeners"
            )
        where = config.get("ssl.ca.location")
        authorities = f"in ssl.ca.location ({where})" if where else "among the system's (set ssl.ca.location)"
        return f"{said} is of an authority that is not {authorities}: {error.verify_message}"
    except (OSError, ValueError):
        return None


def expiry(certificate: str | os.PathLike[str]) -> dt.datetime | None:
    """Return when the first certificate of a PEM file expires; ``None`` where that cannot be read."""
    try:
        text = Path(certificate).read_text(encoding="ascii", errors="replace")
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        start = text.index(begin)
        pem = text[start : text.index(end, start) + len(end)]
        return _not_after(ssl.PEM_cert_to_DER_cert(pem))
    except (OSError, ValueError, IndexError):
        return None


def _connect(address: Address) -> socket.socket:
    return socket.create_connection(address, timeout=_ANSWER_SECONDS)


def _uses_tls(config: Mapping[str, Any]) -> bool:
    return str(config.get("security.protocol", "")).upper().endswith("SSL")


def _context(config: Mapping[str, Any]) -> ssl.SSLContext:
    """Return how librdkafka verifies a broker; not ssl.create_default_context(), which is stricter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = str(config.get("ssl.endpoint.identification.algorithm", "https")) == "https"
    where, text = config.get("ssl.ca.location"), config.get("ssl.ca.pem")
    if text:
        context.load_verify_locations(cadata=str(text))
    elif where and str(where) != "probe":
        is_directory = Path(where).is_dir()
        context.load_verify_locations(
            cafile=None if is_directory else where, capath=where if is_directory else None
        )
    else:
        context.load_default_certs()
    return context


def _ask(connection: socket.socket, key: int, body: bytes) -> bytes | None:
    """Send a request in the form of Kafka's first versions; return the answer behind its header."""
    client_id = b"airflow-workflow-events"
    header = struct.pack(">hhih", key, 1 if key == _SASL_HANDSHAKE else 0, _CORRELATION_ID, len(client_id))
    request = header + client_id + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _read(connection, 4))
    if not 4 <= size <= _MAX_ANSWER_BYTES:
        return None
    answer = _read(connection, size)
    return answer[4:] if struct.unpack(">i", answer[:4]) == (_CORRELATION_ID,) else None


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("closed")
        data += part
    return data


def _mechanisms(connection: socket.socket) -> list[str] | None:
    name = b"-"  # none of that name, so that nothing begins
    answer = _ask(connection, _SASL_HANDSHAKE, struct.pack(">h", len(name)) + name)
    if answer is None or struct.unpack(">h", answer[:2])[0] != _UNSUPPORTED_SASL_MECHANISM:
        return None
    (count,) = struct.unpack(">i", answer[2:6])
    found, at = [], 6
    for _ in range(min(count, 20)):
        (length,) = struct.unpack(">h", answer[at : at + 2])
        found.append(answer[at + 2 : at + 2 + length].decode("ascii", "replace"))
        at += 2 + length
    return found


def _not_after(der: bytes) -> dt.datetime:
    """Read notAfter of a certificate (RFC 5280, section 4.1), the second time of its validity."""
    certificate, _ = _value(der, 0)
    tbs, _ = _value(certificate, 0)
    at = 0
    if tbs[0] == 0xA0:  # the version, which certificates of version 1 leave out
        _, at = _value(tbs, at)
    for _ in range(3):  # serial number, signature algorithm, issuer
        _, at = _value(tbs, at)
    validity, _ = _value(tbs, at)
    _, second = _value(validity, 0)
    text = _value(validity, second)[0].decode("ascii")
    is_utc_time = validity[second] == 0x17
    moment = dt.datetime.strptime(text, "%y%m%d%H%M%SZ" if is_utc_time else "%Y%m%d%H%M%SZ")  # noqa: DTZ007
    return moment.replace(tzinfo=dt.UTC)


def _value(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the value of the DER element at an offset, and the offset behind it."""
    length, start = data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(data[start : start + count], "big"), start + count
    return data[start : start + length], start + length
