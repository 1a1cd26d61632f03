"""Records what autograd keeps, and how long it takes, for each part of a network that runs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter

from torch import Tensor, UntypedStorage, nn
from torch.utils.hooks import RemovableHandle

from src.planning.tensors import list_tensors


class CostRecorder:
    """Records the bytes that are kept for the backward pass, and the time, of the part that runs.

    Args:
        known: Tensors that do not count, since they are there anyway: weights and buffers.
        recomputed: Whether stages run again in the backward pass. Their inputs, which checkpointing
            saves just before a stage runs, then count for the stage.
    """

    def __init__(self, known: Iterable[Tensor], recomputed: bool) -> None:
        self.recomputed = recomputed
        self.kept: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []  # the parts that run, the innermost last
        self._since = 0.0
        self._owner: dict[int, str] = {}  # {address of a counted storage: its part}

        # Storages are held so that no address is used twice.
        self._seen: dict[int, UntypedStorage] = {}
        for tensor in known:
            storage = tensor.untyped_storage()
            self._seen[storage.data_ptr()] = storage

    @contextmanager
    def record(self, part: str) -> Iterator[None]:
        """Records for a part while the block runs."""
        self.enter(part)
        yield
        self.leave()

    def enter(self, part: str) -> None:
        """Begins a part, inside the one that ran until now."""
        self._add_time()
        self._running.append(part)

    def leave(self) -> None:
        """Ends the innermost part."""
        self._add_time()
        self._running.pop()

    def _add_time(self) -> None:
        now = perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def keep(self, tensor: Tensor) -> Tensor:
        """Counts the bytes behind a tensor that autograd saves, once."""
        storage = tensor.untyped_storage()
        address = storage.data_ptr()

        if storage.nbytes() and address not in self._seen:
            part = self._running[-1]
            self._seen[address] = storage
            self._owner[address] = part
            self.kept[part] += storage.nbytes()

        # A tensor that is returned with its graph would keep that graph alive.
        return tensor.detach()

    def watch(self, module: nn.Module, part: str) -> list[RemovableHandle]:
        """Registers hooks that record a module as a part, and returns them."""

        def enter(_: nn.Module, inputs: object) -> None:
            around = self._running[-1]
            self.enter(part)
            if self.recomputed:
                self._hand_over(list_tensors(inputs), around, part)

        def leave(*_: object) -> None:
            self.leave()

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    def _hand_over(self, tensors: Iterable[Tensor], owner: str, part: str) -> None:
        """Counts tensors for a part that were counted for its surroundings."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if self._owner.get(storage.data_ptr()) == owner:
                self._owner[storage.data_ptr()] = part
                self.kept[owner] -= storage.nbytes()
                self.kept[part] += storage.nbytes()
