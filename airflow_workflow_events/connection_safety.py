"""What a connection may not bring along: code, shared libraries and commands.

Whoever may edit a connection is not therefore trusted to run code in Airflow's processes. Some options of
librdkafka and confluent-kafka do just that, so a connection may use them only with values that the
deployment's configuration lists:

- callbacks, as dotted paths: ``[apache_kafka] callback_allowlist``, the Kafka provider's option. Its own
  check begins with version 2.0; before, 1.15 and 1.16 import whatever they are given.
- libraries and commands: ``[workflow_events] connection_code_allowlist``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from airflow_workflow_events.compat import conf

from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.provider_info import CONFIG_SECTION

_KAFKA_SECTION, _CALLBACKS_OPTION, _CODE_OPTION = (
    "apache_kafka",
    "callback_allowlist",
    "connection_code_allowlist",
)
#: Those that the Kafka provider resolves (its ``CALLBACK_CONFIG_KEYS``).
_CALLBACKS = frozenset({"error_cb", "throttle_cb", "stats_cb", "log_cb", "oauth_cb", "on_commit"})
# confluent-kafka takes objects here. default.topic.config nests further options, these among them.
_OBJECTS = frozenset({"default.topic.config", "logger", "interceptors", "opaque"})
_OBJECT_NAME = re.compile(r"on_\w+|.+_cb|.+_callback|default_topic_conf")
# dlopen(), and system().
_COMMAND = "sasl.kerberos.kinit.cmd"
_CODE = frozenset({"plugin.library.paths", "ssl.engine.location", _COMMAND})
# OpenSSL takes a provider's name with a path in it for the file of a library.
_PROVIDERS = "ssl.providers"
_PROVIDER_NAMES = re.compile(r"[\w-]+(?:\s*,\s*[\w-]+)*")
# librdkafka puts these into the command line of kinit, which a shell runs.
_IN_KINIT = re.compile(r"sasl\.kerberos\.(?:principal|keytab|service\.name)")
_SHELL_SAFE = re.compile(r"[\w.@/:+,=-]*")


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a connection's librdkafka options, callbacks that are allowed resolved to functions.

    Args:
        options: the options as the connection holds them.

    Raises:
        ConfigurationError: an option brings code that the configuration does not allow; the message says
            which option, and what would allow it.
    """
    result: dict[str, Any] = {}
    for name, value in options.items():
        # librdkafka knows no such spelling today; a later one might be more lenient.
        plain = str(name).strip().casefold()
        if plain in _CALLBACKS and name == plain:
            result[name] = _callback(name, value)
            continue
        if plain in _OBJECTS or _OBJECT_NAME.fullmatch(plain):
            raise ConfigurationError(
                f"{plain} cannot be set in a connection: it takes an object, not text; "
                + ("name its options directly" if plain == "default.topic.config" else "remove it")
            )
        if plain in _CODE:
            _check_code(plain, value)
        elif plain == _PROVIDERS and not _PROVIDER_NAMES.fullmatch(str(value).strip()):
            raise ConfigurationError(
                f"{plain} is {value!r}: use names of OpenSSL's providers, without a path, e.g. legacy,default"
            )
        elif _IN_KINIT.fullmatch(plain) and not _SHELL_SAFE.fullmatch(str(value)):
            raise ConfigurationError(
                f"{plain} has a character that a shell would interpret: "
                "use letters, digits and any of . _ @ / : + , = -"
            )
        result[name] = value
    return result


def _callback(name: str, value: object) -> Callable[..., Any]:
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{name} is a JSON {type(value).__name__}: use the dotted path of a function"
        )
    allowed = _listed(_KAFKA_SECTION, _CALLBACKS_OPTION)
    if value not in allowed:
        listing = f"[{_KAFKA_SECTION}] {_CALLBACKS_OPTION}"
        raise ConfigurationError(
            f"refusing the callback {name}={value!r}: "
            + (f"it is not in the {listing}" if allowed else f"the {listing} is empty")
            + "; add the full path of the function there if you trust it"
        )
    module, _, attribute = value.rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{name} is {value!r}, which cannot be imported: {error}") from None
    if not callable(found):
        raise ConfigurationError(f"{name} is {value!r}, which is no function")
    return found  # type: ignore[no-any-return]


def _check_code(name: str, value: object) -> None:
    # librdkafka separates the paths of plugins with semicolons.
    values = str(value).split(";") if name == "plugin.library.paths" else [str(value)]
    allowed = _listed(CONFIG_SECTION, _CODE_OPTION)
    for part in filter(None, map(str.strip, values)):
        if part not in allowed:
            # A command may hold a password, and the page that tests a connection shows this text.
            shown = "a command" if name == _COMMAND else repr(part)
            raise ConfigurationError(
                f"{name} is {shown}, which would load or run code of the connection's choice: "
                f"add it to [{CONFIG_SECTION}] {_CODE_OPTION} if you trust it"
            )


def _listed(section: str, option: str) -> frozenset[str]:
    text = conf.get(section, option, fallback="") or ""
    return frozenset(filter(None, map(str.strip, text.split(","))))
