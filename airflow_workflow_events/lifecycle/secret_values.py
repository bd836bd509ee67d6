"""Where the value behind a name ends, and what to put there so that the notation stays valid.

Quotes stay, a number or list in JSON becomes a text, and what YAML has indented below a name stays indented.
"""

from __future__ import annotations

import re

from airflow_workflow_events.lifecycle.secret_formats import MASK
from airflow_workflow_events.lifecycle.secret_names import Hides, SecretNames

Place = tuple[int, int, str]

PREFIX = r"[bfru]{0,2}"  # b'', rb''
_SCHEME = r"(?:bearer|basic|token|apikey|negotiate|digest|splunk|key)\s{1,9}"
# A text in quotes; the closing one may be missing, as in a message that was cut.
QUOTED = r"(?:\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?)"
# A list, a tuple, an object, or the arguments of SecretStr('...'). It goes on in the next line only with
# another text in quotes, so that an open bracket does not take the rest of a stack trace along.
_IN_BRACKETS = rf"[(\[{{](?:{QUOTED}|[^)\]}}\"'\n]|\n(?=\s{{0,40}}{PREFIX}[\"')\]}}]))*[)\]}}]?"

_QUOTED_VALUE = re.compile(
    rf"{PREFIX}(?P<mark>\\{{0,9}}(?:\"{{3}}|'{{3}}|[\"'`]))(?:{_SCHEME})?"
    r"(?P<value>(?:(?!(?P=mark))(?:(?:\\\\)?\\.|[^\\\n]))*+)",
    re.IGNORECASE,
)
_LONG_QUOTED_VALUE = re.compile(r"(?:\"{3}|'{3})(?P<value>.*?)(?=\"{3}|'{3}|\Z)", re.DOTALL)
_BARE_VALUE = re.compile(
    rf"(?:{_SCHEME})?(?P<value>(?!{PREFIX}\\{{0,9}}[\"'])(?:[^\s\"',;&()\[\]{{}}<]|<(?!/)|{_IN_BRACKETS})+)",
    re.IGNORECASE,
)
# What goes on after the first word: further cookies, the parameters of a digest or of a signature.
_COOKIES = re.compile(r"[^\s;,\"'`\\]+(?:;\s{0,3}[^\s;,\"'`\\]+)*")
_PARAMETERS = re.compile(r"(?:digest|aws4-[\w-]+|hawk|oauth|signature|hmac[\w-]*)\s[^\n]+", re.IGNORECASE)
NOT_SECRET = re.compile(r"(?:null|none|nil|true|false|undefined|\*{3})(?![\w*])", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.+/=-])", re.IGNORECASE)
_PLAIN_WORD = re.compile(r"[A-Za-z][a-z]{0,24}[.,;:!?)]*(?!\S)")
_PLAIN_LIST = re.compile(
    r"\[(?:\s*(?:\\?\"(?:[A-Za-z]?[a-z]{0,19}|\d+|[^\w\"\\]{1,3})\\?\"|-?\d+(?:\.\d+)?)\s*,?)*\s*\]"
)
_ASSIGNS = re.compile(r"\s{1,9}[=:]")
# What may follow a colon at the end of a line of YAML: nothing, or the sign of a text over several lines.
_BLOCK_HEAD = re.compile(r"[ \t]{0,9}(?P<sign>[|>][+-]?\d?[+-]?)?[ \t]{0,9}(?:#[^\n]{0,200})?\r?\n")
_BLOCK_LINE = re.compile(r"(?P<indent>[ \t]*)(?P<text>[^\n]*)(?:\n|\Z)")
_BLOCK_ITEM = re.compile(r"((?:- )*(?:[\w.$\"'/-]{1,80}:[ \t]+)?)(\S+|\"[^\"]*\"|'[^']*')")
_BLOCK_KEY = re.compile(r"(?:- )*[\w.$\"'/-]{1,80}:|-|#.*")
_MAX_NESTED_LINES = 1_000
_NEXT_LINE = re.compile(
    r"[ \t]{0,9}(?:#[^\n]{0,200})?"
    r"(?:\r?\n(?P<line>[ \t]{0,80}(?:- |(?:- )?[\w.$\"'/-]{1,80}:(?:\s|$)))|\s{0,9}\Z)"
)
_LINE_BEFORE = re.compile(r"(?:^|\n)[ \t]*(?:- )*[\w.$\"'/-]{1,80}:(?:[ \t][^\n]*)?\n\Z|\n[ \t]*- [^\n]*\n\Z")
_PAIR_VALUE = re.compile(rf"{PREFIX}{QUOTED}", re.IGNORECASE)


def value_behind(text: str, match: re.Match[str], hides: Hides, names: SecretNames) -> Place | None:
    """Return where the value behind a name begins and ends, and what to put there.

    Args:
        text: the text.
        match: the name, with its groups ``name``, ``quote``, ``sign`` and ``gap``, or ``pair``.
        hides: what the name hides.
        names: which names tell of a secret.

    Returns:
        ``None`` where nothing is to be masked.
    """
    start = match.end()
    if match["pair"]:
        pair = _PAIR_VALUE.match(text, start)
        return (*pair.span(), MASK) if pair else None
    if match["sign"] == ":" and (block := _block(text, match)):
        return block
    if text.startswith(('"""', "'''"), start) and (long := _LONG_QUOTED_VALUE.match(text, start)):
        return (*long.span("value"), MASK) if long["value"] else None
    if quoted := _QUOTED_VALUE.match(text, start):
        return (*quoted.span("value"), MASK) if quoted["value"] else None
    bare = _BARE_VALUE.match(text, start)
    if bare is None or NOT_SECRET.match(text, bare.start("value")):
        return None
    start, end = bare.start("value"), _end_of(text, match, bare)
    if _is_harmless(text, match, (start, end), hides) or _is_a_name(text, match, (start, end), names):
        return None
    in_json = '"' in match["quote"] and _in_object(text, match.start())
    return start, end, f"{match['quote']}{MASK}{match['quote']}" if in_json else MASK


def _end_of(text: str, match: re.Match[str], bare: re.Match[str]) -> int:
    """Return the end of a value without quotes: cookies and the parameters of a login go on behind spaces."""
    name, end = match["name"].casefold(), bare.end("value")
    if name.endswith("cookie") and (cookies := _COOKIES.match(text, bare.start("value"))):
        return max(end, cookies.end())
    if name.endswith("authorization") and (parameters := _PARAMETERS.match(text, match.end())):
        return parameters.end()
    return end


def _is_harmless(text: str, match: re.Match[str], span: tuple[int, int], hides: Hides) -> bool:
    """Whether a value is a count, a list of plain words, or a word of a sentence."""
    start, end = span
    is_number = _NUMBER.match(text, start) is not None
    if (
        match["sign"] == ":"
        and hides is Hides.TEXT_BUT_WORDS
        and (is_number or _PLAIN_WORD.match(text, start))
    ):
        return True
    if match["quote"]:
        if is_number:
            return hides < Hides.TEXT_AND_NUMBERS
        words = _PLAIN_LIST.match(text, start) if match["name"].casefold().endswith("s") else None
        return words is not None and words.end() >= end
    return is_number and match["name"].casefold().endswith("s")  # tokens=512


def _is_a_name(text: str, match: re.Match[str], span: tuple[int, int], names: SecretNames) -> bool:
    """Whether a name stands where a value might: "Invalid login: password = ..."."""
    start, end = span
    return match["sign"] == ":" and _ASSIGNS.match(text, end) is not None and names.hides(text[start:end]) > 0


def _in_object(text: str, position: int) -> bool:
    """Whether a place is inside braces, as far as the text shortly before it tells."""
    floor = max(0, position - 2_000)
    return text.rfind("{", floor, position) > text.rfind("}", floor, position)


def _line_start(text: str, match: re.Match[str]) -> str | None:
    """Return what stands before a name in its line, if that is only what YAML has there."""
    before = text[max(0, match.start() - 120) : match.start()]
    line = before.rpartition("\n")[2]
    return None if line.strip(" -\"'") or len(line) == 120 else line.rstrip("\"'")


def is_in_yaml(text: str, match: re.Match[str], end: int) -> bool:
    """Whether a value is a scalar of a YAML document, as far as its line and the ones beside it tell."""
    following = _NEXT_LINE.match(text, end)
    if following is None or _line_start(text, match) is None:
        return False
    before = text[max(0, match.start() - 400) : match.start()]
    above = before[: before.rfind("\n") + 1]
    return following["line"] is not None or _LINE_BEFORE.search(above) is not None


def _block(text: str, match: re.Match[str]) -> Place | None:
    """Return the lines that stand indented below a name in YAML, and what to put in their place."""
    head = _BLOCK_HEAD.match(text, match.start("gap"))
    line = _line_start(text, match) if head else None
    if head is None or line is None:
        return None
    indent = len(line) - len(line.lstrip(" "))
    position, masked, depth = head.end(), list[str](), None
    while (found := _BLOCK_LINE.match(text, position)) and found.end() > position:
        width, content = len(found["indent"]), found["text"].strip()
        if (
            content
            and width <= indent
            and not (
                head["sign"] is None and width == indent and content.startswith("- ") and "-" not in line
            )
        ):
            break
        if content:
            depth = width if depth is None else depth
            if head["sign"] is None:
                item = _masked_item(content)
                if item is None or len(masked) == _MAX_NESTED_LINES:
                    return None
                masked.append(found["indent"] + item)
        elif head["sign"] is None:
            masked.append("")
        position = found.end()
    if depth is None:
        return None
    end = len(text[:position].rstrip()) if position == len(text) else position - 1
    if head["sign"] is not None:
        return head.end(), end, " " * depth + MASK
    return head.end(), end, "\n".join(masked).rstrip()


def _masked_item(content: str) -> str | None:
    """Return a line below a name that hides it with its value masked; ``None`` where it is none of YAML."""
    if _BLOCK_KEY.fullmatch(content):
        return content
    item = _BLOCK_ITEM.fullmatch(content)
    return f"{item[1]}'{MASK}'" if item else None
