"""A fuzz run: random input, one case after another, until a case does what none may do. ``scripts/fuzz --help``.

Each case has dice of its own, from the seed and its number, so that a finding can be seen again by itself.
"""

import argparse
import copy
import gc
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from bridge.domain.masks import MAXIMUM_MASKS, compile_masks
from bridge.errors import Refusal
from tests.property.found import Found
from tests.property.fuzz_config import Config
from tests.property.fuzz_http import Forged, Http
from tests.property.fuzz_inputs import Inputs
from tests.property.mask_judge import KEYS, MISSING, SCALARS, event, judged, judged_by_text, path, written

SLOWEST_SECONDS = 0.05
GOES = 10
"""Of a case that takes long: what else the machine does meanwhile is no fault of the case."""
FAIR_COPY_SECONDS = 25e-6
"""Of a deep copy of the event below, on a machine that does nothing else: what is slower makes all times longer."""
COPIED = {f"field-{number}": {"name": "x" * 60, "list": [number, None, True]} for number in range(9)}
HANGS_AFTER_SECONDS = 5.0
EVENT_BYTES = 262_144
EVENT_DEPTH = 64
ALPHABET = "$@.*[]()?!'\"&|=<>~/:,-0129 abé\\_^#+\x00\U0001f600\ud800"
FRAGMENTS = (
    *("$", "@", "..", ".a", "['a']", "[*]", "[0]", "[::-1]", "[-1:]", "[0,1,'a']", "[?(", ")]", "@.a", "$.a", "..a"),
    *(" == ", " != ", " =~ ", " in ", " nin ", " anyof ", " size ", " contains ", " && ", " || ", "!", "(", ")"),
    *("'a'", '"b"', "/a.*/i", "/(a|b)+/", "1", "-1.5e3", "true", "null", "['a', 'b']", "\\u0041", "{", "length()"),
)


class Masks:
    """Masks on events: nothing but a `Refusal` may come out, in time, and exactly what is selected is hidden.

    Args:
        seed: of the dice.
        timed: whether a case may be too slow.

    Attributes:
        seen: how many cases ended how.
        slowest_seconds: of CPU time; where that was too long, the fastest of some goes on a fair machine.
    """

    PROMISE = "no crash, nothing that hangs, nothing hidden or shown that should not be"

    def __init__(self, seed: int, *, timed: bool) -> None:
        self._limit_seconds = SLOWEST_SECONDS if timed else float("inf")
        self.seen: Counter[str] = Counter()
        self.slowest_seconds = 0.0
        self.slowest_number = 0
        self._seed = seed

    def case(self, number: int) -> None:
        """Try one.

        Raises:
            Found: it may not do that.
        """
        dice = random.Random(f"{self._seed}/{number}")
        kind = dice.choices((_written_well, _torn, _thrown, _hostile), (48, 40, 10, 2))[0]
        document, texts, judge = kind(dice)
        self.seen[kind.__name__.removeprefix("_")] += 1
        before = copy.deepcopy(document)
        result = self._masked(number, document, texts)
        shown = f"{texts!r:.2000} on {before!r:.2000}"
        if repr(document) != repr(before):
            raise Found(f"the event itself was changed: {shown}")
        if result is MISSING:
            self.seen["refused"] += 1
            if kind is _written_well:
                raise Found(f"a good mask was refused: {shown}")
            return
        expected = judge()
        if expected is MISSING:
            self.seen["without a judge"] += 1
            _only_text_is_hidden(before, result, shown)
        elif repr(result) != repr(expected):
            raise Found(f"{shown} gave {result!r:.2000} and not {expected!r:.2000}")
        self.seen["something hidden"] += result != before

    def _masked(self, number: int, document: object, texts: list[Any]) -> object:
        """Return the masked event, `MISSING` where the masks are refused."""
        best = float("inf")
        for _ in range(GOES):
            start = time.thread_time()
            try:
                result = compile_masks(texts).apply(document)
            except Refusal as refusal:
                result = MISSING
                if any(character in refusal.message for character in "é\x00\U0001f600\ud800"):
                    raise Found(f"the refusal repeats the mask: {refusal.message!r}") from None
            took = time.thread_time() - start
            best = min(best, took if took <= self._limit_seconds else took / _slowness())
            if best <= self._limit_seconds:
                break
        if best > self.slowest_seconds:
            self.slowest_seconds, self.slowest_number = best, number
        if best > self._limit_seconds:
            raise Found(f"takes {best * 1000:.0f} ms: {texts!r:.2000} on {document!r:.200}")
        return result


def _slowness() -> float:
    """How many times slower than a fair one this machine is just now, 1 at least."""
    best = float("inf")
    for _ in range(20):
        start = time.thread_time()
        copy.deepcopy(COPIED)
        best = min(best, time.thread_time() - start)
    return max(1.0, best / FAIR_COPY_SECONDS)


Case = tuple[Any, list[Any], Callable[[], Any]]


def _written_well(dice: random.Random) -> Case:
    document = event(dice)
    masks = [path(dice, 3) for _ in range(dice.choice((1, 1, 1, 2, 3)))]
    return document, [written(dice, segments) for segments in masks], lambda: judged(document, masks)


def _torn(dice: random.Random) -> Case:
    text = written(dice, path(dice, 4))
    for _ in range(dice.randint(1, 3)):
        place = dice.randint(0, len(text))
        text = text[:place] + dice.choice((dice.choice(ALPHABET), "")) + text[place + dice.randint(0, 2) :]
    document = event(dice)
    return document, [text], lambda: judged_by_text(document, text)


def _thrown(dice: random.Random) -> Case:
    """Masks of words thrown together, or of no words at all, as long as is allowed and a little longer."""
    texts: list[Any] = []
    for _ in range(dice.choice((1, 1, 2, MAXIMUM_MASKS, MAXIMUM_MASKS + 1))):
        words = FRAGMENTS if dice.random() < 0.8 else ALPHABET
        text = "".join(dice.choices(words, k=dice.choice((1, 3, 8, 40, 200))))
        texts.append(dice.choice((text, text, text, text, "$" + text, dice.choice(SCALARS), [text], {text: 1})))
    document = event(dice)
    return document, texts, lambda: MISSING


def _hostile(dice: random.Random) -> Case:
    """Events as large or as deep as is allowed, and masks with much to look at in them."""
    document = dice.choice((_wide, _wide, _deep, _long))(dice)
    texts = [_greedy(dice) for _ in range(dice.choice((1, 1, 3, MAXIMUM_MASKS)))]
    return document, texts * dice.choice((1, 1, MAXIMUM_MASKS // len(texts))), lambda: MISSING


def _wide(dice: random.Random) -> Any:
    elements = [event(dice, dice.randint(0, 3)) for _ in range(dice.randint(1, 5))]
    many = elements * (EVENT_BYTES // _bytes_of(elements))
    return {"a": many} if dice.random() < 0.7 else {f"a{number}": each for number, each in enumerate(many)}


def _deep(dice: random.Random) -> Any:
    def chain() -> Any:
        inner: Any = "leaf"
        for level in range(EVENT_DEPTH - 2):
            inner = {dice.choice(KEYS): inner, "b": "other"} if dice.random() < 0.7 else [inner, "other", level]
        return inner

    chains, room = [], EVENT_BYTES
    while room > 0:
        chains.append(chain())
        room -= _bytes_of(chains[-1])
    return {"a": chains}


def _bytes_of(document: Any) -> int:
    return len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def _long(dice: random.Random) -> Any:
    text = dice.choice(("a", "ab", "é", "\U0001f600", "a1")) * (EVENT_BYTES // 20)
    return {"a": [text, {"a": text, "b": [1] * 1000}], "b": text[: dice.randint(0, len(text))], "c-d": ["a"] * 9000}


def _greedy(dice: random.Random) -> str:
    step = ("..a", "..b", "..*", "[*]", "..['a','b','c-d','a0']", "..[0,1,2,-1]", "..[::2]", "[::-1]", ".a")
    test = (
        *("@", "@.a", "@..a", "!(@.a)", "@.a == 'b'", "@ =~ /(a|b)*c/", "$.b =~ /.*a(a|b){50}x/", "@ in $.a"),
        *("$.a == $.a", "@.a anyof ['a', 20]", "$.b contains 'aaaaaaaaaaaab'", "@.* size 3", "@ nin $.c-d", "@[*]"),
    )
    text = "$"
    for _ in range(dice.randint(1, 5)):
        if dice.random() < 0.5:
            text += dice.choice(step)
        else:
            tests = dice.choice((" && ", " || ")).join(dice.choices(test, k=dice.choice((1, 2, 6))))
            text += dice.choice(("", "..")) + f"[?({tests})]"
    return text


def _only_text_is_hidden(before: Any, after: Any, shown: str) -> None:
    pairs = [(before, after)]
    while pairs:
        old, new = pairs.pop()
        if isinstance(old, dict) and isinstance(new, dict) and list(old) == list(new):
            pairs += [(old[key], new[key]) for key in old]
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            pairs += zip(old, new, strict=True)
        elif repr(old) != repr(new) and not (isinstance(old, str) and new == "*" * len(old)):
            raise Found(f"{old!r:.200} became {new!r:.200}: {shown}")


@contextmanager
def _no_hang() -> Iterator[None]:
    """Raise `Found` where the code inside takes seconds of CPU time."""

    def interrupt(*_: object) -> None:
        raise Found(f"hangs: {HANGS_AFTER_SECONDS:g} s and no end")

    before = signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANGS_AFTER_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class Kind(Protocol):
    """What can be fuzzed.

    Attributes:
        PROMISE: what was seen where nothing was found.
        seen: how many cases ended how.
        slowest_seconds: of CPU time, where that is measured.
        slowest_number: of the case that took them.
    """

    PROMISE: str
    seen: Counter[str]
    slowest_seconds: float
    slowest_number: int

    def case(self, number: int) -> None:
        """Try one.

        Raises:
            Found: it may not do that.
        """


KINDS: dict[str, tuple[str, Callable[..., Kind]]] = {
    "masks": ("random masks on random events, judged", Masks),
    "inputs": ("messages of all kinds through the whole line", Inputs),
    "http": ("requests", Http),
    "tokens": ("forged bearer tokens", Forged),
    "config": ("configurations", Config),
}


def fuzz(
    kind: str, count: int, seed: int, first: int = 0, seconds: float = float("inf"), *, timed: bool = True
) -> Kind:
    """Try so many cases, fewer where the time is up; only what hangs is too slow where they are not ``timed``.

    Raises:
        AssertionError: a case did what none may do; says which one and what.
    """
    run = KINDS[kind][1](seed, timed=timed)
    end = time.monotonic() + seconds
    for number in range(first, first + count):
        try:
            with _no_hang():
                run.case(number)
        except Exception as error:
            what = str(error) if isinstance(error, Found) else f"{type(error).__name__}: {error}"
            raise AssertionError(f"case {number} of seed {seed}: {what}") from error
        if time.monotonic() > end:
            break
    return run


def main() -> int:
    """Run, and print what was seen.

    Returns:
        The exit code: 1 where a case did what none may do.
    """
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Throws random input at a part of the bridge.")
    kinds = ", ".join(f"{kind} ({what})" for kind, (what, _) in KINDS.items())
    parser.add_argument("kind", choices=[*KINDS, "all"], help=f"{kinds}; all: one after another")
    parser.add_argument("--count", type=int, default=20_000, help="cases (20,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the dice (1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to see one again (0)")
    parser.add_argument("--seconds", type=float, default=1800, help="longest time (1800)")
    given = parser.parse_args()
    gc.freeze()  # as the bridge does
    gc.set_threshold(50_000, 20, 100)
    codes = [_run(kind, given) for kind in (KINDS if given.kind == "all" else (given.kind,))]
    return max(codes)


def _run(kind: str, given: argparse.Namespace) -> int:
    try:
        run = fuzz(kind, given.count, given.seed, given.first, given.seconds)
    except AssertionError as error:
        print(f"FOUND: {error}")
        print(f"see it again: scripts/fuzz {kind} --seed {given.seed} --count 1 --first NUMBER")
        return 1
    print(f"{kind}, seed {given.seed}: {run.PROMISE}")
    for what, times in run.seen.most_common():
        print(f"{times:10,} {what}")
    if run.slowest_seconds:
        print(f"slowest: {run.slowest_seconds * 1000:.1f} ms of CPU time (case {run.slowest_number})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
