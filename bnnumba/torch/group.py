"""Messages between the ranks of a process group of `torch.distributed`, as `ranks.Link` has them.

They go from one rank to one other, which costs a third of what `all_reduce` does, with a tag of their own: so neither
the caller's messages nor those of DistributedDataParallel are mistaken for them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import distributed, nn

from bnnumba import checks
from bnnumba._types import Array
from bnnumba.ranks import Call

TAG = 0x626E6E
ROOM = 8192  # numbers of a message that are received at once: gloo ends a process that gets more than it has room for


class Link:
    """A process group's ranks; see `ranks.Link`. One thread at a time uses it, and holds `lock` meanwhile.

    Before a message's numbers goes how many there are.
    """

    renewal = (
        "give these another group on all ranks: layer.process_group = torch.distributed.new_group(), "
        "or begin the program anew"
    )

    def __init__(self, group: Any) -> None:
        self.rank, self.size = group.rank(), group.size()
        self.lock, self.broken = threading.Lock(), False
        self._numbers: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
        self._sent: list[tuple[int, Any, torch.Tensor]] = []  # to whom, and what must live until it is on its way
        self._room = np.empty(ROOM)
        self._tensor = torch.from_numpy(self._room)
        self._group: Any = None  # but in an exchange, so that the group may end
        self._call = ""

    def number_of(self, layer: nn.Module) -> int:
        """Return a layer's number, from 1: in the order of their first exchanges, which is to be that of every rank."""
        with self.lock:
            return self._numbers.setdefault(layer, len(self._numbers) + 1)

    @contextmanager
    def during(self, group: Any, call: Call) -> Iterator[Self]:
        """Hold the lock for an exchange of the group, whose errors name the call."""
        with self.lock:
            self._group, self._call = group, call.what
            try:
                yield self
            finally:
                self._group = None

    def tell(self, message: Array, to: int) -> None:
        """Send to a rank, and wait for nothing; a rank that is gone need not be told."""
        with suppress(RuntimeError):
            self._post(message, to)

    def send(self, message: Array, to: int) -> None:
        """Send to a rank."""
        self._post(message, to)
        self._wait_for_sent()

    def receive(self, source: int) -> Array:
        """Receive from a rank."""
        self._receive_into(self._tensor, source)
        size = int(self._room[0])
        message = np.empty(size)
        first = min(size, ROOM - 1)
        message[:first] = self._room[1 : 1 + first]
        if size > first:
            self._receive_into(torch.from_numpy(message[first:]), source)
        return message

    def swap(self, message: Array, partner: int) -> Array:
        """Send to a rank, and receive from it."""
        self._post(message, partner)
        other = self.receive(partner)
        self._wait_for_sent()
        return other

    def gather(self, text: str) -> list[str]:
        """Return the texts of all ranks: the first rank collects and sends them."""
        if self.rank:
            self.send(_numbers_of(text), 0)
            return [_text_of(self.receive(0)) for _ in range(self.size)]
        texts = [text, *(_text_of(self.receive(source)) for source in range(1, self.size))]
        for to in range(1, self.size):
            for each in texts:
                self._post(_numbers_of(each), to)
        self._wait_for_sent()
        return texts

    def _post(self, message: Array, to: int) -> None:
        framed = np.concatenate([[float(message.size)], message])
        for piece in (framed[:ROOM], framed[ROOM:]):
            if piece.size:
                tensor = torch.from_numpy(piece)
                try:
                    self._sent.append((to, self._group.send([tensor], to, TAG), tensor))
                except RuntimeError as error:
                    raise self._failed(to, error) from error

    def _receive_into(self, tensor: torch.Tensor, source: int) -> None:
        try:
            self._group.recv([tensor], source, TAG).wait()
        except RuntimeError as error:
            raise self._failed(source, error) from error

    def _wait_for_sent(self) -> None:
        while self._sent:
            to, work, _ = self._sent[0]
            try:
                work.wait()
            except RuntimeError as error:
                raise self._failed(to, error) from error
            del self._sent[0]

    def _failed(self, rank: int, error: RuntimeError) -> RuntimeError:
        return RuntimeError(
            f"{self._call}: rank {self.rank} waited in vain for rank {rank}, which has failed, has ended, makes other "
            f"calls or came later than the process group's timeout: {error}"
        )


_links: WeakKeyDictionary[Any, Link] = WeakKeyDictionary()
_making_links = threading.Lock()


def link_of(group: Any) -> Link:
    """Return the group's link, made at the first use."""
    link = _links.get(group)
    if link is None:
        with _making_links:
            link = _links.setdefault(group, Link(group))
    return link


def initialized() -> bool:
    """Whether this process is one of torch.distributed's."""
    return bool(distributed.is_available() and distributed.is_initialized())


def group_of(given: Any) -> Any:
    """Return the group that a layer's `process_group` says, the world for None; None where it has one rank only."""
    group = distributed.group.WORLD if given is None else given
    if not isinstance(group, distributed.ProcessGroup):
        raise TypeError(
            "process_group must be None or a group of torch.distributed that this rank belongs to, "
            f"got {checks.described(given)}"
        )
    if group.size() == 1:
        return None
    if torch.device("cpu") not in group._device_types:
        raise ValueError(f"process_group must have a backend for the CPU, such as gloo, got {group.name()}")
    return group


def _numbers_of(text: str) -> Array:
    """A text as float64: its bytes, and spaces behind."""
    data = text.encode()
    return np.frombuffer(data.ljust(-(-len(data) // 8) * 8), np.float64)


def _text_of(numbers: Array) -> str:
    return numbers.tobytes().decode().rstrip(" ")
