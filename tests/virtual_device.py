"""A second device on a machine with a CPU alone, whose tensors do not mix with those of the CPU.

Its numbers are real, and copies between devices are noted.

Experimental API of torch (PrivateUse1 in Python), for tests alone: importing this module registers
the device type ``vdev``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
crossings: list[tuple[str, str, int]] = []  # (from, to, numbers) of each copy between devices


class Backend(backend_registration._DummyBackendModule):
    """What torch asks of a kind of device."""

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None: ...

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.zeros(0, dtype=torch.uint8)

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None: ...

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def synchronize(self, *args: Any) -> None: ...

    @contextmanager
    def device(self, device: Any) -> Iterator[None]:
        yield


backend_registration._setup_privateuseone_for_python_backend("vdev", backend_module=Backend())


class Virtual(torch.Tensor):
    """A CPU tensor that says that it lies elsewhere."""

    inner: Any
    itself: Any
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> "Virtual":
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
        )

    def __init__(self, inner: torch.Tensor, device: torch.device) -> None:
        self.inner = inner
        # views share the memory inside, which autograd does not see: one reference more keeps it
        # from adding in place
        self.itself = self

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Virtual({self.inner}, device={self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return run(func, args, kwargs or {})


def lies_on(device: Any) -> torch.device:
    device = torch.device(device)
    return torch.device("vdev", device.index or 0) if device.type == "vdev" else device


def bare(tensor: Any) -> Any:
    return tensor.inner if isinstance(tensor, Virtual) else tensor


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs an operation on the tensors inside, if all of them lie on one device."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    if func is aten._to_copy.default:
        source = args[0].device
        device = lies_on(kwargs["device"]) if kwargs.get("device") is not None else source
        out = func(
            bare(args[0]),
            **{k: v for k, v in kwargs.items() if k not in ("device", "non_blocking")},
        )
        if source != device:
            crossings.append((str(source), str(device), out.numel()))
        return Virtual(out, device) if device.type == "vdev" else out
    if func in (aten.copy_.default, aten._foreach_copy_.default):
        pairs = [args[:2]] if func is aten.copy_.default else list(zip(*args[:2], strict=True))
        for to, source in pairs:
            if to.device != source.device:
                crossings.append((str(source.device), str(to.device), to.numel()))
            bare(to).copy_(bare(source))
        return args[0] if func is aten.copy_.default else None
    if func is aten._foreach_add_.List:  # pair by pair, where one call does not go
        for to, other in zip(*args[:2], strict=True):
            to.add_(other, **kwargs)
        return None
    if func is aten._local_scalar_dense.default:
        return bare(args[0]).item()
    found = {
        t.device for t in tensors if isinstance(t, Virtual) or t.ndim
    }  # a number on the CPU goes with anything
    if len(found) > 1:
        raise RuntimeError(
            f"expected all tensors on one device, found {sorted(map(str, found))} in {func}"
        )
    device = next((t.device for t in tensors if isinstance(t, Virtual)), torch.device("cpu"))
    if kwargs.get("device") is not None:
        device, kwargs = lies_on(kwargs["device"]), {**kwargs, "device": torch.device("cpu")}
    inner_args, inner_kwargs = tree_map(bare, (args, kwargs))
    out = func(*inner_args, **inner_kwargs)
    if device.type != "vdev":
        return out
    known = {
        id(bare(t)): t for t in tensors
    }  # what an operation has changed in place stays the same object
    return tree_map(
        lambda o: known.get(id(o), Virtual(o, device)) if isinstance(o, torch.Tensor) else o, out
    )


library = torch.library.Library("aten", "IMPL")
library.impl(
    "empty_strided",
    lambda *args, **kwargs: run(aten.empty_strided.default, args, kwargs),
    "PrivateUse1",
)


class OnVirtual(TorchDispatchMode):
    """While it is on, tensors can be made on the device, too: torch.arange(3, device="vdev:0")."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})
