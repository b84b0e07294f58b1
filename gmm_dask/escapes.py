"""What text says where its escapes are decoded, and which part of it each character stands for."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ROUNDS = 3  # of decoding: text in the query of a URL in a document of JSON

_BREAKS = re.compile(r"\\[rn]|[\r\n]")  # within base64, as they are or escaped
_URL_SAFE = str.maketrans("+/", "-_")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ENTITY = re.compile(
    r"&(?:#(?P<decimal>\d{1,7})|#[xX](?P<hexadecimal>[0-9A-Fa-f]{1,6})|[A-Za-z]{2,6});", re.ASCII
)
_BACKSLASH = re.compile(
    r"(?P<pair>\\u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2})"
    r"|\\(?:u(?P<u>[0-9A-Fa-f]{4})|U(?P<U>[0-9A-Fa-f]{8})|x(?P<x>[0-9A-Fa-f]{2}))"
    r"|\\u\{(?P<rust>[0-9A-Fa-f]{1,6})\}|\\(?P<octal>[0-3][0-7]{2})"
    r"|\\(?P<sign>[^0-9A-Za-z]|[bfnrt])",
    re.DOTALL,
)
_TWICE = re.compile(r"(['\"$%{}])\1")  # in SQL, CSV, YAML and templates
HEXADECIMAL = str.maketrans("ABCDEF", "abcdef")
_SHELL = re.compile(r"'\\''|'\"'\"'")  # a quote within quotes
_SIGNS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

Spans = list[tuple[int, int]]
# The characters that an escape stands for, each with the part of the escape that it is.
Decode = Callable[[re.Match[str]], list[tuple[str, int, int]]]


def every_way(text: str) -> Iterator[Decoded]:
    """The text, and what it says where each kind of escape is decoded, one after the other."""
    latest = {text: Decoded(text, None)}
    seen = dict(latest)
    for _ in range(ROUNDS):
        ways = [each.once_more(*kind) for each in latest.values() for kind in _KINDS]
        latest = {each.text: each for each in ways if each.text not in seen}
        seen |= latest
    yield from seen.values()


@dataclass(frozen=True)
class Decoded:
    """A text, and which part of the original each of its characters stands for.

    Parameters
    ----------
    text : str
    spans : list of (start, stop), optional
        Span of the original text for each character; where not given, the characters are the
        original's own.
    """

    text: str
    spans: Spans | None

    def places(self, wanted: str) -> Iterator[tuple[int, int]]:
        """Parts of the original that stand for these characters."""
        start = self.text.find(wanted)
        while start >= 0:
            yield self._span(start)[0], self._span(start + len(wanted) - 1)[1]
            start = self.text.find(wanted, start + 1)

    def once_more(self, escapes: re.Pattern[str], decode: Decode) -> Decoded:
        """The text with such escapes decoded, each once."""
        return self if escapes.search(self.text) is None else self._with(escapes, decode)

    def without_breaks(self) -> Decoded:
        """The text as base64 for URLs has it, on one line."""
        joined = self._with(_BREAKS, lambda match: []) if _BREAKS.search(self.text) else self
        return joined.translated(_URL_SAFE)

    def translated(self, table: dict[int, int]) -> Decoded:
        """The text with other characters in the place of some."""
        return Decoded(self.text.translate(table), self.spans)

    def _with(self, pattern: re.Pattern[str], decode: Decode) -> Decoded:
        chars: list[str] = []
        spans: Spans = []
        end = 0
        for match in pattern.finditer(self.text):
            chars.append(self.text[end : match.start()])
            spans += map(self._span, range(end, match.start()))
            for char, start, stop in decode(match):
                chars.append(char)
                start, stop = match.start() + start, match.start() + stop
                spans.append((self._span(start)[0], self._span(stop - 1)[1]))
            end = match.end()
        chars.append(self.text[end:])
        spans += map(self._span, range(end, len(self.text)))
        return Decoded("".join(chars), spans)

    def _span(self, at: int) -> tuple[int, int]:
        return (at, at + 1) if self.spans is None else self.spans[at]


def _of_percent(match: re.Match[str]) -> list[tuple[str, int, int]]:
    found, at = [], 0
    raw = bytes.fromhex(match[0].replace("%", ""))
    for char in raw.decode("utf-8", "surrogateescape"):
        width = 3 * len(char.encode("utf-8", "surrogateescape"))
        found.append((char, at, at + width))
        at += width
    return found


def _of_entity(match: re.Match[str]) -> list[tuple[str, int, int]]:
    digits = match["decimal"], match["hexadecimal"]
    if any(digits):
        code = int(digits[0]) if digits[0] else int(digits[1], 16)
        text = chr(min(code, 0x10FFFF))
    else:
        text = html.unescape(match[0])
    return [(char, 0, len(match[0])) for char in text]


def _of_backslash(match: re.Match[str]) -> list[tuple[str, int, int]]:
    if match["pair"]:
        char = json.loads(f'"{match["pair"]}"')
    elif code := match["u"] or match["U"] or match["x"] or match["rust"]:
        char = chr(min(int(code, 16), 0x10FFFF))
    elif match["octal"]:
        char = chr(int(match["octal"], 8))
    else:
        char = _SIGNS.get(match["sign"], match["sign"])
    return [(char, 0, len(match[0]))]


def _of_pair(match: re.Match[str]) -> list[tuple[str, int, int]]:
    return [(match[1], 0, 2)]


def _of_shell(match: re.Match[str]) -> list[tuple[str, int, int]]:
    return [("'", 0, len(match[0]))]


_KINDS: tuple[tuple[re.Pattern[str], Decode], ...] = (
    (_PERCENT, _of_percent),
    (_BACKSLASH, _of_backslash),
    (_ENTITY, _of_entity),
    (_SHELL, _of_shell),
    (_TWICE, _of_pair),
)
