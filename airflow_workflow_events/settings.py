"""The ``[workflow_events]`` options, read from Airflow's configuration when they are needed."""

from __future__ import annotations

import math
import os
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast, get_args

from airflow_workflow_events.compat import conf

from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.kafka.config import check_topic
from airflow_workflow_events.outbox.entries import Bounds, WhenFull
from airflow_workflow_events.provider_info import CONFIG_SECTION, OPTIONS
from airflow_workflow_events.selection import Selection

#: Endings of an option's name with which Airflow reads it from a command or a secrets backend: sensitive ones
#: alone, see Airflow's "Setting Configuration Options".
INDIRECT_ENDINGS = ("_cmd", "_secret")
#: A callback that may take longer than a day has no bound.
MAX_TIMEOUT_SECONDS = 86_400
# Databases count in 64 bits, and a billion times a million is no bound at all.
_MOST = 10**15


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of ``[workflow_events]``; see provider info for what each means.

    Attributes:
        conn_id: the connection where nobody names one.
        topic: the topic where nobody names one.
        environment: ``metadata.environment`` where nobody names one.
        source_instance: this deployment's name, if it has one.
        callback_timeout_seconds: the bound on a callback, in seconds.
        conf_keys: keys of a run's conf that may leave in an event.
        outbox_url: where the outbox is; ``None`` for no outbox.
        outbox_bounds: how large it may become.
        selection: what the listener publishes.
        listener: whether the events of every DAG are published.
        mask_keys: globs of names behind which everything is masked.
        unmask_keys: globs of names behind which nothing is.
        mistakes: a line for each option whose value cannot be used; its default is used instead.
        base_url: address of Airflow's UI, ``[api] base_url``, without a trailing slash.
    """

    conn_id: str
    topic: str
    environment: str
    source_instance: str | None
    callback_timeout_seconds: float
    conf_keys: frozenset[str]
    outbox_url: str | None = field(default=None, repr=False)  # it may hold a password
    outbox_bounds: Bounds = field(default_factory=Bounds)
    selection: Selection = field(default_factory=Selection)
    base_url: str | None = None
    listener: bool = False
    mask_keys: tuple[str, ...] = ()
    unmask_keys: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()

    @classmethod
    def load(cls) -> Self:
        """Read the options, with the default of each that cannot be used: a typing error costs no event.

        Every component tells the mistakes at its start, see :mod:`airflow_workflow_events.startup`.
        """
        mistakes: list[str] = []
        refused = _refused.set(mistakes)
        try:
            return cls(
                conn_id=_required("conn_id"),
                topic=_topic("topic") or OPTIONS["topic"]["default"],
                environment=_required("environment"),
                source_instance=_text("source_instance"),
                callback_timeout_seconds=_positive("callback_timeout_seconds"),
                conf_keys=frozenset(_list("conf_keys")),
                outbox_url=_text("outbox_url") or _default_outbox_url(),
                outbox_bounds=_bounds(),
                selection=Selection(
                    dags_allow=_list("dags_allow"),
                    dags_deny=_list("dags_deny"),
                    tasks_allow=_list("tasks_allow"),
                    tasks_deny=_list("tasks_deny"),
                    event_types=_list("event_types"),
                    task_topic=_topic("task_topic"),
                ),
                listener=listener_is_on(),
                mask_keys=_list("mask_keys"),
                unmask_keys=_list("unmask_keys"),
                base_url=(conf.get("api", "base_url", fallback=None) or "").rstrip("/") or None,
                mistakes=tuple(dict.fromkeys(mistakes)),  # the last to be evaluated
            )
        finally:
            _refused.reset(refused)


# Where to put what is wrong with options, in place of raising it.
_refused: ContextVar[list[str] | None] = ContextVar("_refused", default=None)


def _refuse(name: str, remedy: str) -> None:
    _refuse_because(name, f"is {_required(name)!r}: {remedy}")


def _refuse_because(name: str, problem: str) -> None:
    message = f"[{CONFIG_SECTION}] {name} {problem}"
    refused = _refused.get()
    if refused is None:
        raise ConfigurationError(message)
    default = OPTIONS[name]["default"]
    used = "it counts as not set" if default is None else f"the default, {default}, is used"
    refused.append(f"{message}; {used}")


def listener_is_on() -> bool:
    """Return ``[workflow_events] listener``.

    Raises:
        ConfigurationError: it is neither true nor false.
    """
    if _text("listener") is None:
        return False
    try:
        return bool(conf.getboolean(CONFIG_SECTION, "listener", fallback=False))
    except Exception:  # noqa: BLE001 - Airflow's own, whose home differs between its versions
        _refuse("listener", "use True or False")
        return False


def default_outbox_file() -> Path:
    """Return the file that the listener uses where no outbox is named."""
    from airflow.configuration import AIRFLOW_HOME

    return Path(AIRFLOW_HOME) / "workflow_events" / "outbox.db"


def is_default_outbox(url: str) -> bool:
    """Return whether this is the file that the listener uses where no outbox is named."""
    return url == f"sqlite:///{default_outbox_file()}"


def default_conn_id() -> str:
    """Return ``[workflow_events] conn_id``, the connection of whoever names none."""
    return _required("conn_id")


def _text(name: str) -> str | None:
    # The fallback serves processes in which Airflow has not read the providers' defaults.
    value: Any = None
    problem = None
    try:
        _know_sensitive(name)
        value = conf.get(CONFIG_SECTION, name, fallback=OPTIONS[name]["default"])
    except Exception as error:  # noqa: BLE001 - Airflow's own, whose text has all that a command printed
        problem = (
            f"cannot be read: {type(error).__name__}, see the command or the secrets backend that it names"
        )
    if problem is not None:  # outside of the handler, so that a traceback has nothing of that error
        _refuse_because(name, problem)
        value = OPTIONS[name]["default"]
    text = "" if value is None else str(value).strip()
    return text or None


def _know_sensitive(name: str) -> None:
    """See to it that Airflow reads a sensitive option from a command or a secret, if one is named.

    On Airflow 3.1 a process that no command started, such as a task's in a pod, has not asked the providers
    which options those are, and would take such an option for one that is not set.
    """
    if not OPTIONS[name].get("sensitive") or (CONFIG_SECTION, name) in conf.sensitive_config_values:
        return
    variable = f"AIRFLOW__{CONFIG_SECTION}__{name}".upper()
    if any(
        f"{variable}{ending.upper()}" in os.environ or conf.has_option(CONFIG_SECTION, f"{name}{ending}")
        for ending in INDIRECT_ENDINGS
    ):
        from airflow.providers_manager import ProvidersManager

        ProvidersManager().initialize_providers_configuration()  # type: ignore[no-untyped-call]


def _list(name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in (_text(name) or "").split(",") if part.strip())


def _default_outbox_url() -> str | None:
    """Return the file the listener uses where no outbox is named: it cannot do without."""
    return f"sqlite:///{default_outbox_file()}" if listener_is_on() else None


def _topic(name: str) -> str | None:
    topic = _text(name)
    try:
        return None if topic is None else check_topic(topic)
    except ConfigurationError:
        _refuse(name, "use 1 to 249 letters, digits, '.', '_' or '-'")
        return None


def _required(name: str) -> str:
    value = _text(name) or OPTIONS[name]["default"]
    return str(value)


def _positive(name: str) -> float:
    number = _number(name)
    if not 0 < number <= MAX_TIMEOUT_SECONDS:
        _refuse(name, f"use a number of seconds above 0, at most {MAX_TIMEOUT_SECONDS}")
        return float(OPTIONS[name]["default"])
    return number


def _number(name: str) -> float:
    try:
        return float(_required(name))
    except ValueError:
        return math.nan


def _bounds() -> Bounds:
    numbers = {name: _number(f"outbox_{name}") for name in ("max_rows", "max_bytes", "max_age_hours")}
    for name, number in numbers.items():
        if not 0 < number <= _MOST:
            _refuse(f"outbox_{name}", f"use a number above 0, at most {_MOST}")
            numbers[name] = float(OPTIONS[f"outbox_{name}"]["default"])
    when_full = _required("outbox_when_full")
    if when_full not in get_args(WhenFull):
        _refuse("outbox_when_full", f"use {' or '.join(get_args(WhenFull))}")
        when_full = OPTIONS["outbox_when_full"]["default"]
    return Bounds(
        max_rows=math.ceil(numbers["max_rows"]),
        max_bytes=math.ceil(numbers["max_bytes"]),
        max_age_seconds=numbers["max_age_hours"] * 3_600,
        when_full=cast("WhenFull", when_full),
    )
