"""Secrets that are known by their form, without a name before them.

The formats of providers' tokens follow the rules of detect-secrets 1.5 (Yelp, Apache-2.0), of which some are
wider here, as tokens grew longer since, and the providers' documentation where it has none. The scanner
itself is no dependency: it took 80 microseconds a character and 1.3 s to import, and flags plain words.
"""

from __future__ import annotations

import re

#: What stands in the place of a secret; Airflow's own mask.
MASK = "***"

# Each begins with a literal that HINTS has, so that a text without one is not searched.
_TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    + "|".join(
        (
            r"gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}",
            r"gl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent)-[\w-]{16,}",
            r"(?:xox[abceoprs]|xapp)(?:\.xox[a-z])?-[\w.-]{8,}",  # Slack
            r"[rs]k_(?:live|test)_[0-9A-Za-z]{8,}|whsec_[\w+/=]{16,}",  # Stripe
            r"sk-(?:(?:ant|proj|svcacct|admin|or)-[\w-]{12,}|[A-Za-z0-9]{20,})",  # Anthropic, OpenAI
            r"(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[0-9A-Z]{16}(?![A-Za-z0-9])",  # AWS
            r"AIza[\w-]{30,}|ya29\.[\w-]{16,}|GOCSPX-[\w-]{16,}",  # Google
            r"npm_[A-Za-z0-9]{20,}|pypi-AgE[\w-]{16,}|dckr_pat_[\w-]{16,}|hf_[A-Za-z0-9]{20,}",
            r"SG\.[\w-]{16,}\.[\w-]{16,}",  # SendGrid
            r"dapi[0-9a-f]{32}|dop_v1_[0-9a-f]{32,}|hv[sb]\.[\w-]{20,}|sq0[a-z]{3}-[\w-]{20,}|shp(?:at|ss)_\w{20,}",
            r"eyJ[\w=-]{8,}\.eyJ[\w=-]{4,}(?:\.[\w=.+/-]*)?",  # JSON web tokens
            r"SK[0-9a-f]{32}(?![A-Za-z0-9])",  # Twilio
            r"[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,}",  # Discord
            r"AGE-SECRET-KEY-1[0-9A-Z]{40,}",
        )
    )
    + ")"
)
_BOT = re.compile(r"(?<!\d)\d{8,10}:AA[\w-]{33}(?![\w-])")  # Telegram
# Whoever has the address may post.
_WEBHOOKS = re.compile(
    r"(hooks\.slack(?:-gov)?\.com/|\.webhook\.office\.com/|outlook\.office\.com/webhook/"
    r"|discord(?:app)?\.com/api/webhooks/|chat\.googleapis\.com/v1/spaces/|hooks\.zapier\.com/"
    r"|api\.telegram\.org/bot)[^\s\"'<>\\]+",
    re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(r"(-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----)(?:[^-]|-(?!----END))+")
_PRIVATE_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,30}PRIVATE KEY")
_IN_PRIVATE_KEY = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\\ \r\n\t"
_AWS_KEY_ID = re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}(?![A-Za-z0-9])")
# 40 characters of base64, but not the 40 digits of a commit.
_AWS_SECRET = re.compile(r"(?<![\w/+=-])(?![0-9a-f]{40})[A-Za-z0-9/+]{40}(?![\w/+=-])")

# A login in a URL. A password may hold a slash; a port may be followed by a path with an @.
_LOGIN = re.compile(r"(://[^\s:/@\"'<>]*:)(?!\d{1,5}(?:[/?#\s\"'<>,;)\]}]|$))((?:[^\s:\"'<>]|:(?!//))+)(?=@)")
# A token in its place. In storage URLs a container stands there, in those of ssh a user.
_TOKEN_IN_URL = re.compile(
    r"(?<!abfs)(?<!abfss)(?<!wasb)(?<!wasbs)(?<!ssh)(?<!sftp)(://)(?!git@)[^\s:/?#@\"'<>]+(?=:?@)",
    re.IGNORECASE,
)
_QUERY_OR_FRAGMENT = re.compile(r"[?#]")

#: In their own case of letters.
HINTS = (
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "gldt-", "glft-", "glsoat-", "glrt-"),
    *("glcbt-", "glimt-", "glptt-", "glagent-", "xox", "xapp-", "k_live_", "k_test_", "whsec_", "sk-", "A3T"),
    *("ABIA", "ACCA", "AKIA", "ASIA", "AIza", "ya29.", "GOCSPX-", "npm_", "pypi-AgE", "dckr_pat_", "hf_"),
    *("SG.", "dapi", "dop_v1_", "hvs.", "hvb.", "sq0", "shpat_", "shpss_", "eyJ", "SK", "AGE-SECRET"),
    *("hooks.slack", "office.com/", "discord", "chat.googleapis", "hooks.zapier", "telegram.org/bot"),
    *("PRIVATE KEY", ":AA"),
)


def has_aws_key_id(text: str) -> bool:
    """Whether a text names an access key of AWS, whose secret half may stand anywhere near it."""
    return ("AKIA" in text or "ASIA" in text) and _AWS_KEY_ID.search(text) is not None


def without_aws_secrets(text: str) -> str:
    """Return a text without what has the form of the secret half of an AWS access key."""
    return _AWS_SECRET.sub(MASK, text) if len(text) >= 40 else text


def without_logins(text: str) -> str:
    """Return a text without the passwords and tokens that stand before the hosts of its URLs."""
    return _TOKEN_IN_URL.sub(rf"\1{MASK}", _LOGIN.sub(_login, text))


def without_formats(text: str) -> str:
    """Return a text without what has the form of a secret: tokens of providers, webhooks, private keys."""
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub(rf"\1{MASK}", _without_headless_key(text))
    if has_aws_key_id(text):
        text = without_aws_secrets(text)
    return _BOT.sub(MASK, _WEBHOOKS.sub(rf"\1{MASK}", _TOKENS.sub(MASK, text)))


def _login(match: re.Match[str]) -> str:
    before, secret = match.groups()
    # The last @ ends it, but not one of the query: ?mail=me@example.org
    query = _QUERY_OR_FRAGMENT.search(secret)
    end = secret.rfind("@", 0, query.start()) if query else -1
    return f"{before}{MASK}" + (secret[end:] if end > 0 else "")


def _without_headless_key(text: str) -> str:
    """Mask the end of a private key whose beginning was cut off."""
    end = _PRIVATE_KEY_END.search(text)
    if end is None or "-----BEGIN" in text[: end.start()]:
        return text
    before = text[: end.start()].rstrip(_IN_PRIVATE_KEY)
    # A short rest is the last words before a key that is not there.
    return text if end.start() - len(before) < 40 else f"{before}\n{MASK}\n{text[end.start() :]}"
