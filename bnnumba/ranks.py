"""Statistics of many processes ("ranks") together: merged in a fixed tree, with the same bits on every rank.

How ranks send is not known here: a `Link` does it, of MPI for instance. Every message begins with a digest of the call
that it belongs to. So ranks that make different calls all get the same error, instead of each other's numbers. A rank
whose exchange is broken off, by an interrupt for instance, tells the others so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np

from bnnumba._types import Array
from bnnumba.pooling import Moments, pooled_rows, rows_of, spread_of

Merge = Callable[[Array, Array], Array]
ODD = 0x9E3779B97F4A7C15
MOST_RANKS = 8  # that an error lists


class Call(NamedTuple):
    """What a rank says of an exchange: texts, a digest of them, and how many batches the layer has seen."""

    what: str
    settings: tuple[str, ...]
    number: int
    step: int = 0
    counter: str = "batches_seen"  # what the layer calls these

    def head(self) -> Array:
        """The first number of a message, an odd one; of another call or another step it is another."""
        return _head((self.number + self.step * ODD) % 2**64 | 1)

    def __str__(self) -> str:
        return "\n".join([self.what, *self.settings, f"{self.counter}={self.step}"])


def _head(number: int) -> Array:
    return np.array([number], np.uint64).view(np.float64)


# Messages without a call: of ranks whose calls differ, and of those whose exchange was broken off.
DIFFERENT, BROKEN = _head(0), _head(2)


class Link(Protocol):
    """What sends messages, which are float64 arrays of any size, between the ranks 0..size-1, in their order."""

    rank: int
    size: int
    broken: bool
    renewal: str  # how layers get another, where an exchange was broken off

    def tell(self, message: Array, to: int) -> None:
        """Send to a rank, and wait for nothing."""

    def send(self, message: Array, to: int) -> None:
        """Send to a rank."""

    def receive(self, source: int) -> Array:
        """Receive from a rank."""

    def swap(self, message: Array, partner: int) -> Array:
        """Send to a rank, and receive from it."""

    def gather(self, text: str) -> list[str]:
        """Return the texts of all ranks."""


@lru_cache(maxsize=1024)
def call_of(what: str, layer: int | str, *settings: tuple[str, Any]) -> Call:
    """What a rank calls: a layer by its number or more, and all that must be the same on every rank."""
    call = Call(f"{what} of layer {layer}", tuple(f"{name}={value!r}" for name, value in settings), 0)
    digest = blake2b(str(call).encode(), digest_size=8).digest()
    return call._replace(number=int.from_bytes(digest, "little"))


def exchange(own: Array, merge: Merge, call: Call, link: Link) -> Array:
    """Merge the float64 arrays, with one axis, of all ranks into one with the same bits on every rank.

    In step k = 0, 1, ... each rank swaps what it has with the rank 2**k away, and both merge the same two, the lower
    ranks' first: a fixed tree in the order of ranks, of log2(ranks) steps. Where the number of ranks is no power of
    two, as many of the first ranks as there are too many hand theirs to the rank before them, and get the result back.

    Raises
    ------
    ValueError
        On all ranks, if their calls differ.
    RuntimeError
        If an exchange was broken off on any rank: then on all, in this call or in their next.
    """
    if link.broken:
        _refuse_broken(call, link)
    try:
        result = _through_tree(np.concatenate([call.head(), own]), _of_one_call(merge), link)
        calls = link.gather(str(call)) if _is(DIFFERENT, result) else []
    except BaseException:
        _give_up(link)
        raise
    if calls:
        _refuse_calls(calls)
    if _is(BROKEN, result):
        _give_up(link)
        _refuse_broken(call, link)
    return result[1:]


def exchange_moments(part: Moments, call: Call, link: Link) -> Moments:
    """Moments of all ranks' parts together."""
    packed = np.concatenate([[part.count], rows_of(part.spread).ravel()])
    whole = exchange(packed, merged_moments, call, link)
    count = float(whole[0])
    _check_count(count)
    return Moments.of(spread_of(whole[1:].reshape(4, -1), part.mean.shape), count)


def merged_moments(lower: Array, higher: Array) -> Array:
    """Pool the moments of two parts, each a count, followed by four rows of features."""
    rows = pooled_rows(lower[0], lower[1:].reshape(4, -1), higher[0], higher[1:].reshape(4, -1))
    return np.concatenate([lower[:1] + higher[:1], rows.ravel()])


def _through_tree(own: Array, merge: Merge, link: Link) -> Array:
    rank, steps = link.rank, link.size.bit_length() - 1
    extra = link.size - 2**steps
    if rank < 2 * extra:
        if rank % 2:
            link.send(own, rank - 1)
            return link.receive(rank - 1)
        own = merge(own, link.receive(rank + 1))
    place = rank // 2 if rank < 2 * extra else rank - extra
    for step in range(steps):
        beside = place ^ 2**step
        other = link.swap(own, 2 * beside if beside < extra else beside + extra)
        own = merge(own, other) if place < beside else merge(other, own)
    if rank < 2 * extra:
        link.send(own, rank + 1)
    return own


def _is(head: Array, message: Array) -> bool:
    """Whether a message begins so, bit for bit."""
    return head.tobytes() == message[:1].tobytes()


def _give_up(link: Link) -> None:
    """Use a link no more, and let no rank wait for this one."""
    link.broken = True
    for partner in range(link.size):
        if partner != link.rank:
            link.tell(BROKEN, partner)


def _of_one_call(merge: Merge) -> Merge:
    """Merge messages of the same call; of others make the message that they differ."""

    def merged(lower: Array, higher: Array) -> Array:
        if _is(BROKEN, lower) or _is(BROKEN, higher):
            return BROKEN
        if _is(DIFFERENT, lower) or not _is(lower[:1], higher):
            return DIFFERENT
        return np.concatenate([lower[:1], merge(lower[1:], higher[1:])])

    return merged


def _refuse_broken(call: Call, link: Link) -> NoReturn:
    raise RuntimeError(
        f"{call.what}: an exchange between these ranks was broken off on some rank, so that ranks may differ: "
        f"load their layers anew, and {link.renewal}"
    )


def _refuse_calls(calls: list[str]) -> NoReturn:
    """Raise what every rank raises, where their calls differ: which do what, and in which settings they differ."""
    rows = [call.split("\n") for call in calls]
    differing = [k for k, column in enumerate(zip(*rows, strict=True)) if k and len(set(column)) > 1]
    ranks = defaultdict(list)
    for rank, row in enumerate(rows):
        settings = ", ".join(row[k] for k in differing)
        ranks[f"{row[0]} with {settings}" if settings else row[0]].append(str(rank))
    came = "; ".join(f"on rank {_listed(several)}: {text}" for text, several in ranks.items())
    raise ValueError(
        f"all ranks must make the same calls of the same layers, made in the same order, got {came}; "
        "this call has changed nothing"
    )


def _listed(ranks: list[str]) -> str:
    others = f" and {len(ranks) - MOST_RANKS} others" if len(ranks) > MOST_RANKS else ""
    return ", ".join(ranks[:MOST_RANKS]) + others


def _check_count(count: float) -> None:
    """Refuse weights that are finite on every rank, but too large together."""
    if not math.isfinite(count):
        raise ValueError(
            f"the counts of all ranks must have a finite sum, got {count}: "
            "scale sample_weight down, by one factor on every rank"
        )
