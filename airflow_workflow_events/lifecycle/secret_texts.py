"""Secrets in the middle of a text: assigned to a name that tells of one, in whatever notation.

Each pattern begins only where a word begins, and repeats are bounded or possessive: a text of twice the
length takes twice the time, whatever stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from airflow_workflow_events.lifecycle.secret_formats import HINTS, MASK, without_formats, without_logins
from airflow_workflow_events.lifecycle.secret_names import Hides, SecretNames
from airflow_workflow_events.lifecycle.secret_values import (
    NOT_SECRET,
    PREFIX,
    QUOTED,
    is_in_yaml,
    value_behind,
)

# Of these a text has one in lower case, or one of HINTS in its own, or it holds nothing that is looked for
# here, logins in URLs apart. Looking for them costs a tenth of one pattern.
_SUSPICIOUS = (
    *(
        "pass",
        "pw",
        "secret",
        "token",
        "key",
        "cred",
        "sig",
        "auth",
        "cookie",
        "bearer",
        "conn",
        "dsn",
        "otp",
    ),
    *("session", "jaas", "database", "db_u", "db-u", "dburl", "jwt", "code=", "pin=", "pin:", 'pin"', "pin'"),
    *("prox", "service_account", "webhook", "kennwort", "-u ", "--user"),
)

_NAME = re.compile(
    r"(?<![\w.$-])(?P<name>[\w.$-]++)"
    r"(?:(?P<quote>\\{0,9}[\"'`]?)\s{0,9}(?P<sign>=>|:=|==|[=:])(?!:)(?P<gap>\s{0,99})"
    r"|(?P<pair>[\"'],\s{0,9}))"
)
_IN_ARN = re.compile(r"arn:[\w:*/-]{1,80}:\Z")
# The last words of names that people write with a space: "api key: ...".
_SECOND_WORD = frozenset({"key", "keys", "string", "str", "code", "id", "token", "config"})
_WORD_BEFORE = re.compile(r"(\w{1,30}) \Z")

_TAG = re.compile(r"(<(?:[\w.-]{1,60}:)?([\w.-]++)(?:\s[^<>]{0,500})?>(?:<!\[CDATA\[)?)([^<]+)")
_FLAG = re.compile(rf"((?<![\w-])--?([\w.-]++)[ \t]{{1,9}})(?!-)(?:{QUOTED}|[^\s\"',;)\]]+)")
_LIST_PAIR = re.compile(
    rf"((?<![\w-])(--?[\w.-]++)\\?[\"'],\s{{0,9}}{PREFIX}\\?[\"'])((?:\\[^\"']|[^\"'\\\n])+)"
)
_USER = re.compile(
    r"((?<![\w-])(?:-u|--user|--proxy-user)[ =]{1,3}[\"']?[^\s:\"'/]{1,100}:)(?!\d+\b|/)[^\s\"']+"
)
_BEARER = re.compile(r"(\bbearer\s{1,9})[\w.~+/=-]{8,}", re.IGNORECASE)

_KEYS = (
    r"(?:[\w-]{0,30}[_-])?"
    r"(?:name|key|variable|var|field|param|parameter|option|env|header|property|attribute|setting|k)"
)
_VALUES = r"(?:[\w-]{0,30}[_-])?(?:value|val|default|content|v)"
_IS = r"\\?[\"']?[ \t]{0,9}[=:][ \t]{0,9}"
_TEXT = r"(?:\\?\"(?:[^\"\\\n]|\\.)*?\\?\"|\\?'(?:[^'\\\n]|\\.)*?\\?'|[\w.+/=-]+)"
_GAP = r"(?:(?!\n\s{0,40}-\s)[^{}<>]){0,160}?"
# {"name": "DB_PASSWORD", "value": "..."} and the other way round, in JSON, Python, YAML and XML.
_NAMED = re.compile(
    rf"(?<![\w-]){_KEYS}{_IS}\\?[\"']?(?P<name>[\w.-]{{1,100}})\\?[\"']?(?![\w.-])"
    rf"{_GAP}(?<![\w-]){_VALUES}{_IS}(?P<value>{_TEXT})",
    re.IGNORECASE,
)
_VALUED = re.compile(
    rf"(?<![\w-]){_VALUES}{_IS}(?P<value>{_TEXT}){_GAP}"
    rf"(?<![\w-]){_KEYS}{_IS}\\?[\"']?(?P<name>[\w.-]{{1,100}})\\?[\"']?(?![\w.-])",
    re.IGNORECASE,
)
_HADOOP = re.compile(r"(<name>\s*([^<]{1,200}?)\s*</name>\s*<value>)([^<]+)", re.IGNORECASE)


def is_suspicious(text: str, names: SecretNames) -> bool:
    """Whether a text may hold what looks like a secret; most have nothing of the kind."""
    if "://" in text and "@" in text:
        return True
    lower = text.casefold()
    return (  # map() takes a third of the time of a generator
        any(map(lower.__contains__, _SUSPICIOUS))
        or any(map(text.__contains__, HINTS))
        or any(map(lower.__contains__, names.hints))
    )


def without_secrets_in_text(text: str, names: SecretNames) -> str:
    """Return a text with what looks like a secret masked, whatever its notation."""
    text = without_formats(without_logins(text))
    text = _HADOOP.sub(_if_named(names), _TAG.sub(_if_named(names), text))
    text = _LIST_PAIR.sub(_if_named(names), text)
    text = "".join(_assignments(text, names))
    lower = text.casefold()
    if "val" in lower or "default" in lower or "content" in lower:
        text = _VALUED.sub(_value_of(names), _NAMED.sub(_value_of(names), text))
    text = _FLAG.sub(_if_named(names, only=Hides.TEXT), text)
    return _BEARER.sub(rf"\1{MASK}", _USER.sub(rf"\1{MASK}", text))


def _if_named(names: SecretNames, only: Hides = Hides.TEXT_BUT_WORDS) -> Callable[[re.Match[str]], str]:
    """Mask what follows the first group of a match if the name in the second hides it."""

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}{MASK}" if names.hides(match[2].strip("-")) >= only else match[0]

    return replaced


def _value_of(names: SecretNames) -> Callable[[re.Match[str]], str]:
    def replaced(match: re.Match[str]) -> str:
        value = match["value"]
        if not names.hides(match["name"]) or NOT_SECRET.fullmatch(value):
            return match[0]
        start, end = match.start("value") - match.start(), match.end("value") - match.start()
        quote = re.match(r"\\?[\"']", value)
        # In YAML three asterisks alone would be the name of an anchor.
        mark = quote[0] if quote else "'" if "\n" in match[0] and ": " in match[0] else ""
        return f"{match[0][:start]}{mark}{MASK}{mark}{match[0][end:]}"

    return replaced


def _assignments(text: str, names: SecretNames) -> Iterator[str]:
    """Yield the text in pieces, the values masked that are assigned to names that hide them."""
    copied = position = 0
    while match := _NAME.search(text, position):
        position = match.end()
        hides = _hides(text, match, names)
        if not hides:
            continue
        if (found := value_behind(text, match, hides, names)) is None:
            continue
        start, end, mask = found
        if mask == MASK and match["sign"] == ":" and start == match.end() and is_in_yaml(text, match, end):
            mask = f"'{MASK}'"  # three asterisks alone would be the name of an anchor there
        yield text[copied:start]
        yield mask
        copied = position = end
    yield text[copied:]


def _hides(text: str, match: re.Match[str], names: SecretNames) -> Hides:
    name, before = match["name"].strip("-$."), text[match.start() - 1 : match.start()]
    found = names.hides(name)
    if match["pair"]:
        # In a list of columns names stand in quotes as well; a pair is ("name", "value").
        opening = text[max(0, match.start() - 3) : match.start()].rstrip("\"'bru\\")
        return found if opening[-1:] in {"(", "["} else Hides.NOTHING
    if found and before == ":" and _IN_ARN.search(text[max(0, match.start() - 90) : match.start()]):
        return Hides.NOTHING
    if found or names.unmasked(name):
        return found
    if before in {"?", "&"} and name.casefold() == "code":
        return Hides.TEXT
    if name.casefold() in _SECOND_WORD and (
        first := _WORD_BEFORE.search(text[max(0, match.start() - 40) : match.start()])
    ):
        return names.hides(f"{first[1]}_{name}")
    return Hides.NOTHING
