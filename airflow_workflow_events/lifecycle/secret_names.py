"""Which names tell that what stands behind them is a secret.

A name is read as words, whatever joins them: ``db_password``, ``dbPassword``, ``DB-PASSWORD``. It tells of a
secret when one of the words, or two together, is a word for one (``password``, ``api key``), unless its last
word says that it is only *about* one: ``token_count``, ``password_changed``, ``secret_arn``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from fnmatch import translate
from functools import lru_cache

from airflow_workflow_events.compat import conf, redact


class Hides(IntEnum):
    """What a name hides of what stands behind it."""

    NOTHING = 0
    #: A text, unless it is a plain word of a sentence: "auth: failed", "pass: yes".
    TEXT_BUT_WORDS = 1
    TEXT = 2
    #: Passwords may be numbers; a number behind "token" is more often a count.
    TEXT_AND_NUMBERS = 3


# Wherever they stand in a name: no longer word has another meaning.
_ANYWHERE = ("password", "passwd", "passphrase", "passcode", "credential")
# At the end of a word: "sslpassword", "authtoken", but neither "secretary" nor "tokenizer".
_AT_END = ("secret", "token", "apikey", "accesskey", "secretkey", "privatekey", "signature", "cookie", "pwd")
_WORDS = {
    *("pass", "pw", "pin", "otp", "totp", "auth", "authorization", "cred", "sig", "bearer", "jwt", "dsn"),
    *("keytab", "passkey", "connstr", "sessionid", "jsessionid", "phpsessid", "kennwort", "passwort"),
}
_KEYS = {
    *("access", "account", "aes", "api", "app", "auth", "cipher", "client", "consumer", "crypto"),
    *("decryption", "deploy", "encrypt", "encryption", "fernet", "hmac", "host", "jwt", "license", "master"),
    *("pgp", "gpg", "private", "recovery", "rsa", "secret", "service", "session", "shared", "sign"),
    *("signing", "ssh", "ssl", "storage", "subscription", "tls", "wallet", "webhook"),
}
_PHRASES = {
    *(("connection", "string"), ("conn", "string"), ("conn", "str"), ("jaas", "config")),
    *(("database", "url"), ("database", "uri"), ("db", "url"), ("db", "uri"), ("alchemy", "conn")),
    *(("session", "id"), ("verification", "code"), ("mfa", "code"), ("security", "code"), ("sas", "url")),
    ("webhook", "url"),
    *((word, "key") for word in _KEYS),
}
_NUMERIC = {"pass", "pw", "pwd", "pin", "otp", "totp", "secret", *_ANYWHERE} - {"credential"}
_WEAK = {"pass", "pw", "auth", "cred", "sig"}
_PASS_OF = {
    *("admin", "db", "ftp", "key", "ldap", "mail", "my", "mysql", "pg", "proxy", "redis", "root", "smtp"),
    *("sql", "ssh", "store", "trust", "user"),
}

# As the last word of a name: it is about a secret.
_ABOUT = {
    *("age", "alg", "algorithm", "alias", "algo", "arn", "at", "attempt", "backend", "banner", "budget"),
    *("changed", "class", "column", "consent", "cost", "count", "created", "date", "day", "days", "domain"),
    *("enabled", "endpoint", "error", "exists", "expiration", "expires", "expiry", "field", "file"),
    *(
        "filename",
        "format",
        "hint",
        "hour",
        "hours",
        "in",
        "index",
        "kind",
        "label",
        "len",
        "length",
        "level",
    ),
    *("lifetime", "limit", "location", "manager", "max", "message", "method", "min", "minute", "minutes"),
    *("missing", "mode", "name", "path", "policy", "position", "present", "price", "provider", "rate"),
    *("required", "reset", "rotated", "rotation", "rule", "samesite", "scheme", "scope", "second", "seconds"),
    *("set", "size", "source", "status", "state", "strategy", "strength", "time", "timeout", "total", "ttl"),
    *("type", "updated", "uri", "url", "usage", "used", "valid", "verified", "version"),
}
# Before "token": a place in a list. As the first word: a question, or a number.
_PLACES = {"page", "next", "continuation", "cursor", "pagination", "sync", "nextpage", "resume"}
_QUESTIONS = {"has", "is", "needs", "require", "requires", "uses", "num", "max", "min", "total", "count"}
_COUNTED = {"completion", "input", "output", "prompt", "cached", "reasoning", "context"}

# Airflow hides a key that contains one of these anywhere; here the rules above are finer.
_REFINED = re.compile(
    "access_?key|access_token|api_?key|authorization|bearer|connection_string|dsn|passphrase|passwd|password"
    "|private_key|secret|token"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?![A-Z]key)(?=[A-Z][a-z])|(?<=[A-Z]{2})(?=key)")
_BETWEEN = re.compile(r"[\W_]+")
#: Of a longer name the end is looked at.
_MAX_CHARACTERS = 100


class SecretNames:
    """Tells by a name whether what stands behind it is a secret.

    Args:
        mask: globs of names that hide what stands behind them, numbers too, in any case of letters.
        unmask: globs of names that hide nothing; they win over every other rule.
    """

    def __init__(self, mask: tuple[str, ...] = (), unmask: tuple[str, ...] = ()) -> None:
        self._mask, self._unmask = _globs(mask), _globs(unmask)
        own = conf.get("core", "sensitive_var_conn_names", fallback="") or ""
        self._own_of_airflow = tuple(filter(None, (name.strip().lower() for name in own.split(","))))
        #: What a text contains, in lower case, that may hold one of the names of this deployment.
        self.hints: tuple[str, ...] = (*self._own_of_airflow, *(_longest_literal(glob) for glob in mask))
        self.hides: Callable[[str], Hides] = lru_cache(maxsize=4096)(self._hides)

    def unmasked(self, name: str) -> bool:
        """Whether the configuration says that a name hides nothing."""
        return self._unmask is not None and self._unmask.fullmatch(name.casefold()) is not None

    def _hides(self, name: str) -> Hides:
        if self.unmasked(name):
            return Hides.NOTHING
        if self._mask is not None and self._mask.fullmatch(name.casefold()):
            return Hides.TEXT_AND_NUMBERS
        found = _by_words(name[-_MAX_CHARACTERS:])
        return found or (Hides.TEXT if self._hidden_by_airflow(name) else Hides.NOTHING)

    def _hidden_by_airflow(self, name: str) -> bool:
        normalized = re.sub(r"\W+", "_", name.strip().lower())
        return (
            any(own in normalized for own in self._own_of_airflow)
            or redact("-", _REFINED.sub("-", normalized)) != "-"
        )


@lru_cache(maxsize=16)
def secret_names(mask: tuple[str, ...] = (), unmask: tuple[str, ...] = ()) -> SecretNames:
    """Return the rules of these options, made once a process."""
    return SecretNames(mask, unmask)


def _by_words(name: str) -> Hides:
    words = [word.rstrip("0123456789") or word for word in _split(name)]
    strongest = Hides.NOTHING
    for index, word in enumerate(words):
        if (end := _told_by(words, index)) is None:
            continue
        stem, following = end
        if following and _singular(following[-1]) in _ABOUT | {"change"}:
            continue
        if _preceded(words, index, word):
            continue
        kind = Hides.TEXT
        if stem in _NUMERIC and not following and not (stem in _WEAK and len(words) == 1):
            kind = Hides.TEXT_AND_NUMBERS
        elif stem in _WEAK and len(words) == 1:
            kind = Hides.TEXT_BUT_WORDS
        strongest = max(strongest, kind)
    return strongest


def _split(name: str) -> list[str]:
    return [word.casefold() for word in _BETWEEN.split(_CAMEL.sub("_", name)) if word]


def _told_by(words: list[str], index: int) -> tuple[str, list[str]] | None:
    """Return the word for a secret that begins or ends here, and the words behind it."""
    word = words[index]
    singular = _singular(word)
    for stem in _ANYWHERE:
        _, found, rest = word.partition(stem)
        if found:
            rest = rest.removeprefix("s")
            return stem, [*([rest] if rest else []), *words[index + 1 :]]
    for stem in _AT_END:
        if singular.endswith(stem):
            return stem, words[index + 1 :]
    if singular in _WORDS or (singular.endswith("pass") and singular[:-4] in _PASS_OF):
        return ("pass" if singular.endswith("pass") else singular), words[index + 1 :]
    if index + 1 < len(words) and {
        (singular, _singular(words[index + 1])),
        tuple(words[index : index + 2]),
    } & (_PHRASES):
        return "key", words[index + 2 :]
    for first, second in _PHRASES:
        if len(first) > 1 and singular == first + second:
            return "key", words[index + 1 :]
    return None


def _preceded(words: list[str], index: int, word: str) -> bool:
    if index and words[0] in _QUESTIONS:
        return True
    if not index or not word.startswith("token"):
        return False
    return words[index - 1] in _PLACES or (word == "tokens" and words[index - 1] in _COUNTED)


def _singular(word: str) -> str:
    return (
        word[:-1]
        if word.endswith("s")
        and word not in {"pass", "alias", "class", "status", "days"}
        and (not word.endswith("pass"))
        else word
    )


def _globs(globs: tuple[str, ...]) -> re.Pattern[str] | None:
    return re.compile("|".join(translate(glob.casefold()) for glob in globs)) if globs else None


def _longest_literal(glob: str) -> str:
    return max(re.split(r"[*?]|\[[^\]]*\]", glob.casefold()), key=len)
