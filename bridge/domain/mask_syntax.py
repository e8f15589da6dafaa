"""Reads one mask: its text into a path to walk (`mask_walk.py`). The grammar is python-jsonpath's, the words are ours.

python-jsonpath parses; nothing else of it runs: its evaluation recurses, is exponential on chained ``..``, and uses
``re``. `mask_words.py` reads the words, its parser makes a tree of them, and the tree becomes our own walk. Whatever
the parser raises, the mask is bad.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import re2  # type: ignore[import-untyped]  # it has neither stubs nor hints
from jsonpath import JSONPathEnvironment
from jsonpath import filter as tree
from jsonpath.exceptions import JSONPathError, JSONPathIndexError, JSONPathTypeError
from jsonpath.parse import Parser
from jsonpath.segments import JSONPathRecursiveDescentSegment, JSONPathSegment
from jsonpath.selectors import Filter as FilterSelector
from jsonpath.selectors import IndexSelector, JSONPathSelector, NameSelector, SliceSelector, WildcardSelector
from jsonpath.stream import TokenStream
from jsonpath.token import TOKEN_EOF, Token

from bridge.domain.mask_filters import Literal, Operand, Regex, comparison, conjunction, disjunction, negation
from bridge.domain.mask_walk import Condition, Filter, Index, Name, Path, Query, Segment, Selector, Slice, Wildcard
from bridge.domain.mask_words import OPERATOR_WORDS, SYMBOLS, BadMask, words

MAXIMUM_CHARACTERS: Final = 512
MAXIMUM_SEGMENTS: Final = 32
MAXIMUM_DESCENTS: Final = 4
MAXIMUM_FILTER_DESCENTS: Final = 1
MAXIMUM_REGEX_CHARACTERS: Final = 128
_LARGEST_REGEX: Final = 2_000
"""Instructions of the compiled expression, with which the time to compile it grows: 0.3 ms here."""
_REGEX_MEMORY_BYTES: Final = 262_144

_WANTED: Final[dict[str, tuple[type, ...]]] = {
    "in": (list,),
    "nin": (list,),
    "subsetof": (list,),
    "anyof": (list,),
    "noneof": (list,),
    "size": (int, float),
    "empty": (bool,),
}
"""What must stand to the right of an operator if it is written out; else the mask would silently match nothing."""


def read_mask(text: str) -> Path:
    """Return the path of one mask. ``$.`` is implicit; blanks around it are ignored.

    Raises:
        BadMask: it is not in the syntax, or beyond a limit.
    """
    if len(text) > MAXIMUM_CHARACTERS:
        raise BadMask(MAXIMUM_CHARACTERS, f"it has {len(text)} characters: use at most {MAXIMUM_CHARACTERS}")
    stripped = text.strip()
    if not stripped:
        raise BadMask(0, "it is empty: use a JSONPath such as $.card.number")
    prefix = "" if stripped[0] in "$@" else "$."
    start = text.index(stripped[0]) - len(prefix)
    try:
        return _parse(prefix + stripped)
    except BadMask as error:
        raise BadMask(max(0, start + error.position), error.reason) from None


def _parse(text: str) -> Path:
    stream = TokenStream(words(text))
    try:
        segments = tuple(_PARSER.parse(stream))
    except BadMask:
        raise
    except Exception as error:  # the parser's own, and RecursionError, ValueError, OverflowError, KeyError
        token = error.token if isinstance(error, JSONPathError) else None
        token = token or stream.current()
        position = len(text) if token.kind == TOKEN_EOF else token.index
        raise BadMask(position, _reason(error, token)) from None
    return _Tree().path(segments)


def _reason(error: Exception, token: Token) -> str:
    if isinstance(error, JSONPathIndexError):
        return "the index is too large: use at most 2^53 - 1"
    if isinstance(error, JSONPathTypeError):
        return "a path to many nodes cannot be compared: use in, anyof, noneof, subsetof, contains or size"
    if token.kind == TOKEN_EOF:
        return "it ends too early"
    what = token.value if token.kind in SYMBOLS.values() else "this"
    return f"{what} cannot stand here"


class _Parser(Parser):
    """python-jsonpath's parser with Java's operators, exact integers, and regular expressions of google-re2."""

    PRECEDENCES = Parser.PRECEDENCES | dict.fromkeys(OPERATOR_WORDS.values(), Parser.PRECEDENCE_RELATIONAL)
    BINARY_OPERATORS = Parser.BINARY_OPERATORS | {token: word for word, token in OPERATOR_WORDS.items()}
    INFIX_LITERAL_OPERATORS = Parser.INFIX_LITERAL_OPERATORS | OPERATOR_WORDS.keys()

    def parse_integer_literal(self, stream: TokenStream) -> tree.BaseExpression:
        """Read a number of any size as it is; the parent's goes through a float, and would match another one."""
        return tree.IntegerLiteral(value=int(stream.next().value))

    def parse_float_literal(self, stream: TokenStream) -> tree.BaseExpression:
        """Read a number with a fraction or an exponent."""
        return tree.FloatLiteral(value=float(stream.next().value))

    def parse_regex(self, stream: TokenStream) -> tree.BaseExpression:
        """Read a regular expression; the parent's would give it to ``re``, which is exponential on some."""
        pattern, flags = stream.next(), stream.next()
        return tree.FilterExpressionLiteral(value=_regex(pattern, flags))


def _regex(pattern: Token, flags: Token) -> Regex:
    if len(pattern.value) > MAXIMUM_REGEX_CHARACTERS:
        raise BadMask(pattern.index, f"the regular expression is longer than {MAXIMUM_REGEX_CHARACTERS} characters")
    if not set(flags.value) <= set("ims"):
        raise BadMask(flags.index, "a regular expression takes the flags i, m and s")
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = _REGEX_MEMORY_BYTES
    try:
        compiled = re2.compile(f"(?{flags.value}){pattern.value}" if flags.value else pattern.value, options=options)
    except (re2.error, UnicodeError):
        compiled = None
    if compiled is None or compiled.programsize > _LARGEST_REGEX:
        raise BadMask(pattern.index, "the regular expression is wrong, too large, or looks around or back")
    return Regex(compiled.fullmatch, compiled.programsize)


_PARSER: Final = _Parser(env=JSONPathEnvironment(strict=True))


class _Tree:
    """Turns the parser's tree of one mask into a path to walk."""

    def __init__(self) -> None:
        self._filters: list[int] = []
        self._filter_descents = 0

    def path(self, segments: Iterable[JSONPathSegment]) -> Path:
        """Return the path, which may be the mask's or one of its filters'.

        Raises:
            BadMask: too many segments or ``..``.
        """
        path: list[Segment] = []
        descents = 0
        for segment in segments:
            descends = isinstance(segment, JSONPathRecursiveDescentSegment)
            descents += descends
            self._filter_descents += descends and bool(self._filters)
            if len(path) == MAXIMUM_SEGMENTS:
                raise BadMask(segment.token.index, f"it has more than {MAXIMUM_SEGMENTS} segments")
            if descents > MAXIMUM_DESCENTS:
                raise BadMask(segment.token.index, f"it has more than {MAXIMUM_DESCENTS} ..")
            if self._filter_descents > MAXIMUM_FILTER_DESCENTS:
                raise BadMask(segment.token.index, f"a filter has more than {MAXIMUM_FILTER_DESCENTS} ..")
            path.append(Segment(descends, tuple(self._selector(selector) for selector in segment.selectors)))
        return tuple(path)

    def _selector(self, selector: JSONPathSelector) -> Selector:
        match selector:
            case NameSelector():
                return Name(selector.name)
            case IndexSelector():
                return Index(selector.index)
            case SliceSelector():
                return Slice(selector.slice)
            case WildcardSelector():
                return Wildcard()
            case FilterSelector():
                return self._filter(selector)
        raise BadMask(selector.token.index, "this cannot select anything")

    def _filter(self, selector: FilterSelector) -> Filter:
        if not self._filters:
            self._filter_descents = 0
        self._filters.append(selector.token.index)
        condition = self._condition(selector.expression.expression)
        self._filters.pop()
        return Filter(condition)

    def _condition(self, expression: tree.BaseExpression) -> Condition:
        match expression:
            case tree.InfixExpression(operator="&&"):
                return conjunction([self._condition(term) for term in _terms(expression)])
            case tree.InfixExpression(operator="||"):
                return disjunction([self._condition(term) for term in _terms(expression)])
            case tree.InfixExpression():
                return self._comparison(expression)
            case tree.PrefixExpression():
                return negation(self._condition(expression.right))
            case tree.FilterQuery():
                return self._query(expression).exists
        raise self._misplaced("a condition compares two values, or is a path that must exist")

    def _comparison(self, expression: tree.InfixExpression) -> Condition:
        left, name, right = self._operand(expression.left), expression.operator, self._operand(expression.right)
        if isinstance(right, Literal) and name in _WANTED and type(right.written) not in _WANTED[name]:
            kinds = " or ".join(kind.__name__ for kind in _WANTED[name])
            raise self._misplaced(f"to the right of {name} stands a path or a value of type {kinds}")
        return comparison(left, name, right)

    def _operand(self, expression: tree.BaseExpression) -> Operand:
        match expression:
            case tree.FilterQuery():
                return self._query(expression)
            case tree.ListLiteral():
                return Literal([_written(item) for item in expression.items])
            case tree.Nil() | tree.FilterExpressionLiteral():
                return Literal(_written(expression))
        raise self._misplaced("an operator stands between paths and values: use && or || between conditions")

    def _query(self, expression: tree.FilterQuery) -> Query:
        return Query(self.path(expression.path.segments), from_root=isinstance(expression, tree.RootFilterQuery))

    def _misplaced(self, reason: str) -> BadMask:
        return BadMask(self._filters[-1], reason)


def _terms(expression: tree.InfixExpression) -> Iterator[tree.BaseExpression]:
    waiting: list[tree.BaseExpression] = [expression]
    while waiting:
        term = waiting.pop()
        if isinstance(term, tree.InfixExpression) and term.operator == expression.operator:
            waiting += [term.right, term.left]
        else:
            yield term


def _written(expression: tree.BaseExpression) -> object:
    return expression.value if isinstance(expression, tree.FilterExpressionLiteral) else None
