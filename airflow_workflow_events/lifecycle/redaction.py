"""Secrets stay at home: what Airflow knows to be one, and what looks like one, is masked in every string.

What identifies an event stays as it is: its id and type, its source, the workflow's id and the run's.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from airflow_workflow_events.compat import redact

from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.lifecycle.secret_formats import MASK, has_aws_key_id, without_aws_secrets
from airflow_workflow_events.lifecycle.secret_names import Hides, SecretNames, secret_names
from airflow_workflow_events.lifecycle.secret_texts import is_suspicious, without_secrets_in_text

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
# {"name": "DB_PASSWORD", "value": "..."}: the last word of a key, and what it holds.
_NAME_KEYS = frozenset(
    {"name", "key", "variable", "var", "field", "param", "parameter", "option", "env", "header", "property"}
    | {"attribute", "setting", "label", "k"}
)
_VALUE_KEYS = frozenset({"value", "values", "val", "default", "content", "data", "v"})
_LAST_WORD = re.compile(r"(?:^|[\W_]|(?<=[a-z])(?=[A-Z]))([A-Za-z]+?)\d*$")
# A part of a sentence, as a tokenizer gives it: a word, a number, or a sign.
_PLAIN = re.compile(r"(?:##|[\u0120\u2581])?[A-Za-z]?[a-z'-]{0,19}|[A-Z]{1,5}|\d+(?:\.\d+)?|[^\w\s]{1,3}")
# A name of a column rather than a password: ["password", "email"].
_COLUMN = re.compile(r"[A-Za-z_]{1,24}")


def without_secrets(event: WorkflowEvent, names: SecretNames | None = None) -> WorkflowEvent:
    """Return the event with each secret masked and its place named in ``metadata.redacted``.

    Masked is, in ``payload.data`` and the free texts of ``metadata``:

    - a string behind a key that tells of a secret (:mod:`.secret_names`), at any depth, and a number behind
      one that tells of a password; the ``value`` beside a ``name`` that does; what follows ``--password``;
    - in any other string what Airflow's masker has been told, logins in URLs, private keys, tokens of
      well-known forms, and values assigned to such a name. A string of JSON is masked as the data it holds.

    Args:
        event: the event.
        names: which names tell of a secret. Default: without ``mask_keys`` and ``unmask_keys``.

    Returns:
        The same object where nothing was masked.
    """
    names = names or secret_names()
    search = _search(event, names)
    if search is None:
        return event
    walk = _Walk(names, with_aws_secrets=search)
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


def masked(text: str, names: SecretNames | None = None) -> str:
    """Return a text with what Airflow knows to be a secret, and what looks like one, masked."""
    names = names or secret_names()
    if not is_suspicious(text, names):
        return _without_known(text)
    of_json = _masked_json(text, names) if text.lstrip()[:1] in {"{", "["} else None
    return _without_known(
        without_secrets_in_text(_without_known(text), names) if of_json is None else of_json
    )


def _masked_json(text: str, names: SecretNames) -> str | None:
    """Return a JSON text masked as the data it holds, so that it stays JSON; ``None`` where it is none."""
    try:
        data = json.loads(text, object_pairs_hook=_object_of)
        walk = _Walk(names, with_aws_secrets=has_aws_key_id(text))
        found = walk.value(data, "")
        if not walk.count:
            return text
        return json.dumps(
            found,
            ensure_ascii=text.isascii(),
            indent=2 if "\n" in text.strip() else None,
            separators=None if '": ' in text or '", ' in text else (",", ":"),
        )
    except (ValueError, RecursionError):  # no JSON, or nested beyond reason
        return None


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key comes twice, and one of its values would be lost")
    return result


def _search(event: WorkflowEvent, names: SecretNames) -> bool | None:
    """Look at all texts of an event at once: most have no secret, and a scheduler's thread waits for this.

    Returns:
        ``None`` where there is nothing to mask; otherwise whether an access key of AWS is among the texts.
    """
    texts: list[str] = []
    keys: list[str] = []
    hidden = _collect(event.payload.data, texts, keys, names)
    for name in _METADATA:
        value = getattr(event.metadata, name)
        texts.extend(value if isinstance(value, list) else [value] if value else [])
    together = "\n".join(texts)
    if hidden or is_suspicious(together, names):
        return has_aws_key_id(together)
    everything = "\n".join([together, *keys])
    return False if _without_known(everything) != everything else None


def _collect(value: Any, texts: list[str], keys: list[str], names: SecretNames) -> bool:
    """Collect the texts and keys of JSON; return whether a key is one that hides its value."""
    kind = type(value)
    hidden = False
    if kind is str:
        texts.append(value)
    elif kind is dict:
        keys.extend(value)
        for key, item in value.items():
            if item is not None and (_collect(item, texts, keys, names) or names.hides(key)):
                hidden = True
    elif kind is list:
        for item in value:
            if _collect(item, texts, keys, names):
                hidden = True
    return hidden


class _Walk:
    """Goes through JSON, and remembers where it masked something."""

    def __init__(self, names: SecretNames, *, with_aws_secrets: bool) -> None:
        self.named: list[str] = []
        self.count = 0
        self._names = names
        self._with_aws_secrets = with_aws_secrets

    def value(self, value: Any, path: str, hidden: Hides = Hides.NOTHING) -> Any:
        """Return a value masked; ``hidden`` is what the keys around it hide."""
        kind = type(value)
        if kind is str:
            return self._noted(value, self._text(value, hidden), path)
        if kind is dict:
            return self.object(value, path, hidden)
        if kind is list:
            return self._list(value, path, hidden)
        if hidden is Hides.TEXT_AND_NUMBERS and kind in {int, float}:
            return self._noted(value, MASK, path)
        return value

    def object(self, value: dict[str, Any], path: str, hidden: Hides = Hides.NOTHING) -> dict[str, Any]:
        """Return an object masked, its keys too."""
        result = {}
        beside = self._told_beside(value)
        for key, item in value.items():
            name = _without_known(key)
            if name != key:
                while name in result or name in value:
                    name += "*"
                self._noted(key, name, path)
            of_key = self._names.hides(key)
            if beside and not of_key and _last_word(key) in _VALUE_KEYS:
                of_key = beside
            of_item = Hides.NOTHING if self._names.unmasked(key) else max(hidden, of_key)
            if of_key and type(item) is list and key.casefold().endswith("s") and _is_plain(item):
                of_item = hidden
            result[name] = self.value(item, f"{path}.{name}", of_item)
        return result

    def _list(self, items: list[Any], path: str, hidden: Hides) -> list[Any]:
        result = []
        behind = Hides.NOTHING
        for index, item in enumerate(items):
            result.append(self.value(item, f"{path}[{index}]", max(hidden, behind)))
            behind = self._told_by_item(items, index, item)
        return result

    def _told_by_item(self, items: list[Any], index: int, item: Any) -> Hides:
        """Return what an item hides of the next: ["--password", "..."] and ["password", "..."]."""
        if type(item) is not str or len(item) > 100:
            return Hides.NOTHING
        if item.startswith("-"):
            return Hides.NOTHING if "=" in item else self._names.hides(item.lstrip("-"))
        if len(items) == 2 and not index and type(items[1]) is str and not _COLUMN.fullmatch(items[1]):
            return self._names.hides(item)
        return Hides.NOTHING

    def _told_beside(self, value: dict[str, Any]) -> Hides:
        """Return what an object's own name hides of its value: {"name": "DB_PASSWORD", "value": "..."}."""
        if not 2 <= len(value) <= 30:
            return Hides.NOTHING
        told = (
            self._names.hides(item)
            for key, item in value.items()
            if type(item) is str and len(item) <= 100 and _last_word(key) in _NAME_KEYS
        )
        return max(told, default=Hides.NOTHING)

    def _text(self, value: str, hidden: Hides) -> str:
        if not value:
            return value
        if hidden:
            return MASK
        found = masked(value, self._names)
        return without_aws_secrets(found) if self._with_aws_secrets else found

    def _noted(self, before: Any, after: Any, path: str) -> Any:
        if after != before:
            self.count += 1
            if len(self.named) < _MAX_PATHS:
                self.named.append(path)
        return after


def _last_word(key: str) -> str:
    found = _LAST_WORD.search(key[-40:])
    return found[1].casefold() if found else ""


def _is_plain(items: list[Any]) -> bool:
    """Whether a list holds words and numbers only, as ``tokens`` of a text do."""
    return all(_PLAIN.fullmatch(item) if type(item) is str else type(item) in {int, float} for item in items)


def _without_known(text: str) -> str:
    """Return a text without the secrets that Airflow's maskers were told in this process."""
    found = str(redact(text))
    # Airflow's core has a masker of its own, which knows what a scheduler or an API server looked up.
    core = sys.modules.get("airflow._shared.secrets_masker")
    return found if core is None else str(core.redact(found))
