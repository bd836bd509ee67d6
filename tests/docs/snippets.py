"""Code blocks of the documentation, found and told apart."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: What ``<!-- snippet: ... -->`` before a block may say.
KINDS = ("", "consumer", "dag", "pytest", "secure", "shell")

_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*$")
_MARK = re.compile(r"^\s*<!--\s*snippet:\s*(.*?)\s*-->\s*$")
_FENCE = re.compile(r"^(\s*)(`{3,})\s*(\S*)")


@dataclass(frozen=True)
class Snippet:
    """One fenced code block.

    Attributes:
        document: the file, relative to the root of the repository.
        heading: the headings above it from the second level on, joined with `` > ``.
        number: which of the blocks of its language under that heading, from 1.
        language: ``python``, ``bash``, ...
        kind: what the comment before it says; empty where there is none.
        line: the line its code begins at, from 1.
        code: the code, without the indentation of its fence.
    """

    document: str
    heading: str
    number: int
    language: str
    kind: str
    line: int
    code: str

    @property
    def key(self) -> str:
        """The heading, and the number where it is not the first: how expectations name a snippet."""
        return self.heading if self.number == 1 else f"{self.heading} ({self.number})"

    @property
    def id(self) -> str:
        """A name for a test case."""
        words = re.sub(r"[^a-z0-9]+", "-", f"{self.heading}-{self.number}".lower()).strip("-")
        return f"{self.document}-{words}"


def documents() -> list[str]:
    """The documents with code to execute, relative to the root of the repository."""
    return ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]


def snippets_of(text: str, document: str) -> Iterator[Snippet]:
    """Find the code blocks of a document, in order.

    Raises:
        ValueError: a block is not closed.
    """
    headings: list[str] = []
    counts: Counter[tuple[str, str]] = Counter()
    mark = ""
    lines = enumerate(text.splitlines(), start=1)
    for number, line in lines:
        if found := _FENCE.match(line):
            _, fence, language = found.groups()
            code = _until(lines, fence, f"{document}:{number}")
            heading = " > ".join(name for name in headings[1:] if name)
            counts[heading, language] += 1
            yield Snippet(document, heading, counts[heading, language], language, mark, number + 1, code)
            mark = ""
        elif found := _HEADING.match(line):
            level = len(found[1])
            above = (headings + [""] * level)[: level - 1]
            headings = [*above, found[2]]
        elif found := _MARK.match(line):
            mark = found[1]
        elif line.strip():
            mark = ""


def all_snippets() -> list[Snippet]:
    """The code blocks of all documents, in order."""
    return [
        snippet
        for document in documents()
        for snippet in snippets_of((ROOT / document).read_text(encoding="utf-8"), document)
    ]


def _until(lines: Iterator[tuple[int, str]], fence: str, place: str) -> str:
    code: list[str] = []
    for _, line in lines:
        if line.strip() == fence:
            return textwrap.dedent("\n".join(code)) + "\n"
        code.append(line)
    raise ValueError(f"{place}: the code block is not closed")
