"""A shared encoder with a small adapter for each task in each stage."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.encoders.encoder import Inputs, State, top, with_top
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing, keep_padding
from src.models.sharing.stacked_encoders import StackedEncoders


class TaskAdapters(Sharing):
    """One encoder for all tasks, with a few parameters per task: z_t = f(x; theta, phi_t).

    ``lora``: each matrix or kernel W of the encoder becomes W + B_t A_t for task t, with A_t (r,
    in) and B_t (out, r); B_t starts at 0 (Hu et al., "LoRA", ICLR 2022; for several tasks: Liu et
    al., "Polyhistor", NeurIPS 2022). Rank 0 is hard sharing.
    ``film``: behind each stage every channel c becomes (1 + gamma_tc) x_c + beta_tc; both start at
    0 (Perez et al., "FiLM", AAAI 2018).

    The encoder runs once for each task.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        kind: lora or film.
        rank: r of lora; None: 4.
    """

    def __init__(
        self,
        encoder: EncoderFactory,
        tasks: Sequence[str],
        kind: Literal["lora", "film"] = "lora",
        rank: int | None = None,
    ) -> None:
        super().__init__(encoder, tasks)
        if rank is not None and (kind == "film" or rank < 0):
            wrong = "is of lora, not of film" if kind == "film" else "must be at least 0"
            raise UserError(f"TaskAdapters: rank {rank} {wrong}")
        self.encoder = StackedEncoders(encoder, 1)
        # adapters change the parameters that the encoder runs with
        self.reads_weights = True
        self.feature_sizes = dict.fromkeys(tasks, self.encoder.features)
        self.down = nn.ParameterDict()
        self.up = nn.ParameterDict()
        self.films = nn.ParameterList()
        T = len(tasks)
        r = 4 if rank is None else rank
        if kind == "film":
            self.films.extend(torch.zeros(T, 2, layout.channels) for layout in self.encoder.layouts)
            return
        for k in range(len(self.encoder.names) if r else 0):
            for name, p in self.encoder.stack_parameters(k).items():
                # a matrix or a kernel: the first dimension is that of the one encoder
                if p.ndim > 2:
                    inputs = p[0, 0].numel()
                    down = torch.randn(T, r, inputs) / inputs**0.5
                    self.down[adapter_key(k, name)] = nn.Parameter(down)
                    self.up[adapter_key(k, name)] = nn.Parameter(torch.zeros(T, p.shape[1], r))

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's own features."""
        state: Inputs | State = inputs
        for k, layout in enumerate(self.encoder.layouts):
            # the stage as each task has it, run for all tasks side by side
            parameters = {
                name: self._adapt(p, adapter_key(k, name))
                for name, p in self.encoder.stack_parameters(k).items()
            }
            state = self.encoder.run_stage_with(k, parameters, state, k > 0, len(self.tasks))
            if self.films:
                x = top(state)
                modulated = modulate(x, self.films[k], layout.image)
                state = with_top(state, keep_padding(modulated, x))
        return dict(zip(self.tasks, top(cast(State, state)).unbind(), strict=True))

    def _adapt(self, p: Tensor, key: str) -> Tensor:
        """Returns a parameter of the encoder (1, ...) as each task has it (T, ...)."""
        if key in self.down:
            return p + (self.up[key] @ self.down[key]).view(-1, *p.shape[1:])
        return p.expand(len(self.tasks), *p.shape[1:])

    def owners(self) -> Iterator[Owned]:
        """Yields the encoder for all tasks, an adapter for its task."""
        yield from self.encoder.owners([self.tasks])
        yield Owned(self.tasks, [*self.down.values(), *self.up.values(), *self.films], slices=True)


def modulate(x: Tensor, numbers_T2C: Tensor, image: bool) -> Tensor:
    """Scales and shifts the channels of each task's tensor (FiLM).

    Args:
        x: (T, B, C, H, W) for images, else (T, B, ..., C).
        numbers_T2C: gamma and beta.
        image: Whether x is images.
    """
    gamma, beta = (part.view(len(part), *[1] * (x.ndim - 2), -1) for part in numbers_T2C.unbind(1))
    if image:
        gamma, beta = gamma.movedim(-1, 2), beta.movedim(-1, 2)
    return torch.addcmul(x + beta, x, gamma)


def adapter_key(stage: int, name: str) -> str:
    """Returns the key of a parameter's adapter, which may hold no dots."""
    return f"{stage}_{name.replace('.', '_')}"
