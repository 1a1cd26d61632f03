"""The network of a model whose parameters are spread over processes by FSDP."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType

import torch
from torch import Tensor, nn

from src.parallel.dtensor import DTensorShards, clip_gradients, gather_weights
from src.runner import Runner, ShardableModel


class ShardedRunner(Runner):
    """Runs a network whose parameters are spread over processes."""

    shards = DTensorShards()
    frees_weights = True
    clip_gradients = staticmethod(clip_gradients)

    def cast_features(
        self, model: ShardableModel, features: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Returns the features in the precision of the heads' weights."""
        # in a plain dict FSDP would give each task a tensor of its own, also where all tasks read
        # the same one
        dtype = next(model.heads.parameters()).dtype
        return MappingProxyType(cast_tensors(features, dtype))

    def gather_weights(self, module: nn.Module) -> AbstractContextManager[object]:
        """Returns a context within which a module's parameters are whole in every process."""
        return gather_weights(module)


def cast_tensors(features: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns features of another type; features that are one tensor stay one."""
    by_id = {id(z): z.to(dtype) for z in features.values()}
    return {name: by_id[id(z)] for name, z in features.items()}
