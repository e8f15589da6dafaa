"""The words of a mask (`mask_syntax.py`): what its characters are, before anybody asks what they mean together.

They are Java's JsonPath's. python-jsonpath's own lexer takes words that Java does not know (``~``, ``^``, ``and``) and
misreads keys such as ``$..size``. What could keep its parser busy or make it recurse is refused here.
"""

import re
import string
from collections.abc import Iterator
from typing import Final

from jsonpath.token import (
    TOKEN_AND,
    TOKEN_COLON,
    TOKEN_COMMA,
    TOKEN_CONTAINS,
    TOKEN_DDOT,
    TOKEN_DOT,
    TOKEN_DOUBLE_QUOTE_STRING,
    TOKEN_EQ,
    TOKEN_FALSE,
    TOKEN_FILTER,
    TOKEN_FLOAT,
    TOKEN_GE,
    TOKEN_GT,
    TOKEN_IN,
    TOKEN_INT,
    TOKEN_LBRACKET,
    TOKEN_LE,
    TOKEN_LPAREN,
    TOKEN_LT,
    TOKEN_NAME,
    TOKEN_NE,
    TOKEN_NOT,
    TOKEN_NULL,
    TOKEN_OR,
    TOKEN_RBRACKET,
    TOKEN_RE,
    TOKEN_RE_FLAGS,
    TOKEN_RE_PATTERN,
    TOKEN_ROOT,
    TOKEN_RPAREN,
    TOKEN_SELF,
    TOKEN_SINGLE_QUOTE_STRING,
    TOKEN_TRUE,
    TOKEN_WHITESPACE,
    TOKEN_WILD,
    Token,
)

MAXIMUM_NESTING: Final = 16
"""Brackets within brackets, or negations: what recurses on a mask does so at most this deep."""
MAXIMUM_DIGITS: Final = 40
MAXIMUM_REGEXES: Final = 4
MAXIMUM_JOINTS: Final = 16
"""Of ``&&`` and ``||`` in all: parsing a condition costs the most of a mask's reading, 25 us."""

SYMBOLS: Final = {
    "[": TOKEN_LBRACKET,
    "]": TOKEN_RBRACKET,
    "(": TOKEN_LPAREN,
    ")": TOKEN_RPAREN,
    "$": TOKEN_ROOT,
    "@": TOKEN_SELF,
    "*": TOKEN_WILD,
    "?": TOKEN_FILTER,
    ",": TOKEN_COMMA,
    ":": TOKEN_COLON,
    "&&": TOKEN_AND,
    "||": TOKEN_OR,
    "!": TOKEN_NOT,
    "==": TOKEN_EQ,
    "!=": TOKEN_NE,
    "<": TOKEN_LT,
    "<=": TOKEN_LE,
    ">": TOKEN_GT,
    ">=": TOKEN_GE,
}
OPERATOR_WORDS: Final = {
    word: f"TOKEN_{word.upper()}" for word in ("nin", "subsetof", "anyof", "noneof", "size", "empty")
}
_WORDS: Final = {
    "true": TOKEN_TRUE,
    "false": TOKEN_FALSE,
    "null": TOKEN_NULL,
    "in": TOKEN_IN,
    "contains": TOKEN_CONTAINS,
    **OPERATOR_WORDS,
}
# A dotted name: what needs no brackets in Java's syntax either, but for punctuation that is easily a slip.
_NAME: Final = r"[$@]?(?:[A-Za-z0-9_:-]|[^\x00-\x9f\s])+"
_WORD_PATTERN: Final = re.compile(
    rf"""
      (?P<dots>\.\.?) (?P<name>{_NAME})
    | (?P<bare_dots>\.\.?) (?= [*\[] )
    | "(?P<double>(?:[^"\\]|\\.)*)"
    | '(?P<single>(?:[^'\\]|\\.)*)'
    | (?P<match>=~) \s* /(?P<regex>(?:[^/\\]|\\.)*)/ (?P<flags>[A-Za-z]*)
    | (?P<integer>-?[0-9]+) (?![0-9.eE])
    | (?P<float>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
    | (?P<symbol>&&|\|\||[=!<>]=|[\[\]()$@*?,:!<>])
    | (?P<word>[A-Za-z]+)
    | (?P<space>\s+)
    """,
    re.VERBOSE | re.DOTALL,
)


_LEXICAL: Final = {
    "double": TOKEN_DOUBLE_QUOTE_STRING,
    "single": TOKEN_SINGLE_QUOTE_STRING,
    "integer": TOKEN_INT,
    "float": TOKEN_FLOAT,
    "space": TOKEN_WHITESPACE,
}


class BadMask(Exception):
    """A mask that cannot be taken.

    Args:
        position: where, in characters from the mask's first.
        reason: why; holds nothing of the mask but its punctuation.
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position
        self.reason = reason


def words(text: str) -> Iterator[Token]:
    """Yield the words of a mask as the parser takes them.

    Raises:
        BadMask: an unknown word, or a limit that keeps the parser from recursing or from counting for long.
    """
    position = nesting = negations = joints = regexes = 0
    while position < len(text):
        found = _WORD_PATTERN.match(text, position)
        if found is None:
            raise BadMask(position, _odd(text[position]))
        kind = found.lastgroup or ""
        if kind == "name":
            yield _token(TOKEN_DOT if len(found["dots"]) == 1 else TOKEN_DDOT, found, "dots")
            yield _token(TOKEN_NAME, found, "name")
        elif kind == "bare_dots":
            if found["bare_dots"] == ".." or text[found.end()] == "*":  # a dot before brackets says nothing
                yield _token(TOKEN_DOT if len(found["bare_dots"]) == 1 else TOKEN_DDOT, found, "bare_dots")
        elif kind == "flags":
            regexes += 1
            if regexes > MAXIMUM_REGEXES:
                raise BadMask(position, f"it has more than {MAXIMUM_REGEXES} regular expressions")
            yield _token(TOKEN_RE, found, "match")
            yield _token(TOKEN_RE_PATTERN, found, "regex")
            yield _token(TOKEN_RE_FLAGS, found, "flags")
        elif kind == "symbol":
            symbol = found["symbol"]
            nesting += (symbol in "[(") - (symbol in "])")
            negations += symbol == "!"
            joints += symbol in ("&&", "||")
            if max(nesting, negations) > MAXIMUM_NESTING:
                raise BadMask(position, f"it is nested deeper than {MAXIMUM_NESTING} levels")
            if joints > MAXIMUM_JOINTS:
                raise BadMask(position, f"it has more than {MAXIMUM_JOINTS} && and ||")
            yield _token(SYMBOLS[symbol], found, "symbol")
            if symbol == ",":  # else the parser takes the index before ",:" for the start of a slice
                yield Token(TOKEN_WHITESPACE, "", found.end(), text)
        elif kind == "word":
            if found["word"] not in _WORDS:
                raise BadMask(position, "a name stands without a dot or quotes, or the operator is unknown")
            yield _token(_WORDS[found["word"]], found, "word")
        else:
            if kind in ("integer", "float") and len(found[kind]) > MAXIMUM_DIGITS:
                raise BadMask(position, f"the number is longer than {MAXIMUM_DIGITS} characters")
            yield _token(_LEXICAL[kind], found, kind)
        position = found.end()
    if nesting > 0:
        raise BadMask(position, "it ends within brackets")


def _token(kind: str, found: re.Match[str], group: str) -> Token:
    return Token(kind, found[group], found.start(group), found.string)


def _odd(character: str) -> str:
    return f"{character if character in string.punctuation else 'this'} cannot stand here"
