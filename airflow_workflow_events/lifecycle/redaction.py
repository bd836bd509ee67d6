"""Secrets stay at home: what Airflow knows to be one, and what looks like one, is masked in every string.

What identifies an event stays as it is: its id and type, its source, the workflow's id and the run's.
"""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from typing import Any

from airflow.providers.common.compat.sdk import redact

from airflow_workflow_events.events.model import WorkflowEvent

#: What stands in the place of a secret; Airflow's own mask.
MASK = "***"

# Names behind which a value is a secret, beside those that Airflow masks by.
_TELLING_NAME = (
    r"(?:password|passwd|passphrase|passcode|pwd|secret|token|api[_-]?key|access[_-]?key|account[_-]?key"
    r"|private[_-]?key|credential|signature|authorization|cookie)"
    r"[\w-]{0,40}"  # bounded, as others below: a long text must not take quadratic time
)
_SCHEME = r"(?:(?:bearer|basic|token|apikey|negotiate|digest)\s{1,9})?"
_ASSIGNED = rf"{_TELLING_NAME}\\?[\"']?\s{{0,9}}(?:=>|[=:])\s{{0,9}}"
_PREFIX = r"[bfru]{0,2}"  # b'', rb''
# A text in quotes; the closing one may be missing, as in a message that was cut.
_QUOTED = r"(?:\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?)"
# A list, a tuple, an object, or the arguments of SecretStr('...'). It goes on in the next line only with
# another text in quotes, so that an open bracket does not take the rest of a stack trace along.
_IN_BRACKETS = rf"[(\[{{](?:{_QUOTED}|[^)\]}}\"'\n]|\n(?=\s{{0,40}}{_PREFIX}[\"')\]}}]))*[)\]}}]?"
_LOOKS_SECRET = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # A login in a URL, up to the last @ before the next URL: a password may hold one, and slashes.
        r"(://[^\s:/@]*:)(?:[^\s:]|:(?!//))+(?=@)",
        # A token in its place.
        r"(://)[^\s:/?#@]+(?=:?@)",
        # A private key in PEM, with its headers.
        r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----)(?:[^-]|-(?!----END))+",
        # <name>value</name>
        rf"(<[\w:.-]{{0,40}}{_TELLING_NAME}(?:\s[^<>]{{0,200}})?>(?:<!\[CDATA\[)?)[^<]+",
        # name="value", "name": "value", in JSON within JSON \"name\": \"value\", where a quote is \\\"
        rf"({_ASSIGNED}{_PREFIX}(\\?(?:\"{{3}}|'{{3}}|[\"'])){_SCHEME})(?:(?!\2)(?:(?:\\\\)?\\.|[^\\\n]))+",
        # name=value, name: value, name=["value"], name=Type("value")
        rf"({_ASSIGNED}{_SCHEME})(?!{_PREFIX}\\?[\"'])(?:[^\s\"',;&()\[\]{{}}]|{_IN_BRACKETS})+",
        # A pair: ("name", "value").
        rf"({_TELLING_NAME}[\"'],\s{{0,9}}){_PREFIX}{_QUOTED}",
        # --name value
        rf"((?<!-)--[\w-]{{0,40}}{_TELLING_NAME}\s{{1,9}})(?!-)(?:{_QUOTED}|\S+)",
        r"(\bbearer\s{1,9})[\w.~+/=-]{8,}",
    )
)
# Every pattern but the two of URLs needs one of these; looking for them costs a tenth of a pattern.
_SUSPICIOUS = (
    *("password", "passwd", "passphrase", "passcode", "pwd", "secret", "token", "key", "credential"),
    *("signature", "authorization", "cookie", "bearer", "-----begin"),
)
_TELLING = re.compile(_TELLING_NAME, re.IGNORECASE)
# A number behind "tokens_used" is none; behind these it is.
_TELLING_OF_NUMBERS = re.compile(r"(?:password|passwd|passphrase|passcode|pwd|secret)$", re.IGNORECASE)

_METADATA = (
    "environment",
    "source_instance",
    "tags",
    "owner",
    "team",
    "correlation_id",
    "causation_id",
    "traceparent",
)
# An event tells where something was masked, and stays an event of readable size.
_MAX_PATHS = 50


def without_secrets(event: WorkflowEvent) -> WorkflowEvent:
    """Return the event with each secret masked and its place named in ``metadata.redacted``.

    Masked is, in ``payload.data`` and the free texts of ``metadata``:

    - a string behind a key by which Airflow masks (``[core] sensitive_var_conn_names`` adds to these), or
      that contains such a word as ``password``, ``token``, ``signature`` or ``cookie``, at any depth; a
      number where the key ends with a word for a password;
    - in any other string what Airflow's masker has been told, logins in URLs, private keys, and values that
      are assigned to such a name.

    Returns:
        The same object where nothing was masked.
    """
    if not _may_hold_any(event):
        return event
    walk = _Walk()
    data = walk.object(event.payload.data, "payload.data")
    metadata: dict[str, Any] = {}
    for name in _METADATA:
        before = getattr(event.metadata, name)
        if before is not None and (after := walk.value(before, f"metadata.{name}")) != before:
            metadata[name] = after
    if not walk.count:
        return event
    metadata["redacted"] = [*(event.metadata.redacted or []), *walk.named]
    if (unnamed := walk.count - len(walk.named)) > 0:
        metadata["redacted"].append(f"and {unnamed:,} more")
    return event.model_copy(
        update={
            "payload": event.payload.model_copy(update={"data": data}),
            "metadata": event.metadata.model_copy(update=metadata),
        }
    )


def masked(text: str) -> str:
    """Return a text with what Airflow knows to be a secret, and what looks like one, masked."""
    known = _without_known(text)
    if _is_suspicious(known):
        for pattern in _LOOKS_SECRET:
            known = pattern.sub(rf"\1{MASK}", known)
    return known


def _may_hold_any(event: WorkflowEvent) -> bool:
    """Look at all texts of an event at once: most have no secret, and a scheduler's thread waits for this."""
    texts: list[str] = []
    if _collect(event.payload.data, texts):
        return True
    for name in _METADATA:
        value = getattr(event.metadata, name)
        texts.extend(value if isinstance(value, list) else [value] if value else [])
    together = "\n".join(texts)
    return _is_suspicious(together) or _without_known(together) != together


def _collect(value: Any, texts: list[str]) -> bool:
    """Collect the texts and keys of JSON; return whether a key is one that hides its value."""
    kind = type(value)
    if kind is str:
        texts.append(value)
    elif kind is dict:
        for key, item in value.items():
            if _hides(key):
                return True
            texts.append(key)
            if item is not None and _collect(item, texts):
                return True
    elif kind is list:
        for item in value:
            if _collect(item, texts):
                return True
    return False


def _is_suspicious(text: str) -> bool:
    """Whether a text may hold what looks like a secret; most have nothing of the kind."""
    lower = text.casefold()
    return ("@" in text and "://" in text) or any(word in lower for word in _SUSPICIOUS)


class _Walk:
    """Goes through JSON, and remembers where it masked something."""

    def __init__(self) -> None:
        self.named: list[str] = []
        self.count = 0

    def value(self, value: Any, path: str, hidden_by: str | None = None) -> Any:
        """Return a value masked; ``hidden_by`` is the key around it by which all of it is a secret."""
        kind = type(value)
        if kind is str:
            found = value if not value else MASK if hidden_by is not None else masked(value)
            return self._noted(value, found, path)
        if kind is dict:
            return self.object(value, path, hidden_by)
        if kind is list:
            return [self.value(item, f"{path}[{index}]", hidden_by) for index, item in enumerate(value)]
        if hidden_by is not None and kind in {int, float} and _TELLING_OF_NUMBERS.search(hidden_by):
            return self._noted(value, MASK, path)
        return value

    def object(self, value: dict[str, Any], path: str, hidden_by: str | None = None) -> dict[str, Any]:
        """Return an object masked, its keys too."""
        result = {}
        for key, item in value.items():
            name = _without_known(key)
            if name != key:
                while name in result or name in value:
                    name += "*"
                self._noted(key, name, path)
            result[name] = self.value(item, f"{path}.{name}", hidden_by or (key if _hides(key) else None))
        return result

    def _noted(self, before: Any, after: Any, path: str) -> Any:
        if after != before:
            self.count += 1
            if len(self.named) < _MAX_PATHS:
                self.named.append(path)
        return after


@lru_cache(maxsize=4096)
def _hides(key: str) -> bool:
    """Whether a string behind this key is a secret."""
    return redact("-", key) != "-" or _TELLING.search(key) is not None


def _without_known(text: str) -> str:
    """Return a text without the secrets that Airflow's maskers were told in this process."""
    found = str(redact(text))
    # Airflow's core has a masker of its own, which knows what a scheduler or an API server looked up.
    core = sys.modules.get("airflow._shared.secrets_masker")
    return found if core is None else str(core.redact(found))
