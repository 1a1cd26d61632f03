"""A small data module of sentences, with labels of words and of sentences, many of them missing."""

import numpy as np
import torch
from torch import Tensor

from src.batch import PADDING, Batch, InputShape
from src.data import MultiTaskDataModule, Split
from src.data.rows import BatchDataset
from src.tasks import MISSING, Classification, SequenceLabelling, Task

WORDS = 12
TAGS = ("B-P", "B-Q", "I-P", "I-Q", "O")


class Sentences(BatchDataset):
    """Sentences that a batch pads to its own longest one.

    Args:
        tokens: (N, S), 0 behind the end.
        targets: {task: (N, S) or (N,)}.
    """

    def __init__(self, tokens: Tensor, targets: dict[str, Tensor]) -> None:
        self.tokens = tokens
        self.targets = targets

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, ids: Tensor) -> Batch:
        rows = ids.clamp(min=0)
        tokens = self.tokens[rows]
        length = int((tokens > 0).sum(1).max())
        targets = {}
        for name, target in self.targets.items():
            own = target[rows]
            own[ids == PADDING] = MISSING
            targets[name] = own[:, :length] if own.ndim > 1 else own
        return Batch({"tokens": tokens[:, :length]}, targets, ids)


class ToyWords(MultiTaskDataModule):
    """67 sentences to train, 31 to validate, 29 to test, of 1 to 9 words.

    A tag depends on the word and on the tag before; every third sentence has no tags at all, and a
    fifth of the other labels is missing.

    Args:
        crf: Whether tags are predicted together.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step.
        num_workers: Processes that prepare batches.
        seed: Seed of the order of training batches.
    """

    sizes = {"train": 67, "val": 31, "test": 29}

    def __init__(
        self,
        crf: bool = True,
        batch_size: int = 8,
        eval_batch_size: int = 12,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        self.crf = crf

    @property
    def tasks(self) -> dict[str, Task]:
        return {
            "upos": SequenceLabelling(classes=("a", "b", "c")),
            "xpos": SequenceLabelling(classes=(0, 1, 2), weight=0.5),
            "deep": SequenceLabelling(classes=(0, 1), depth=1, width=4, label_smoothing=0.1),
            "tags": SequenceLabelling(classes=TAGS, crf=self.crf),
            "genre": Classification(classes=("news", "blog"), pooled=True),
        }

    @property
    def input_shape(self) -> InputShape:
        return InputShape(tokens=WORDS)

    def split(self, name: Split) -> Sentences:
        name = "test" if name == "predict" else name
        rng = np.random.default_rng({"train": 1, "val": 2, "test": 3}[name])
        n, longest = self.sizes[name], 9
        tokens = rng.integers(1, WORDS, (n, longest))
        lengths = rng.integers(1, longest + 1, n)
        real = np.arange(longest) < lengths[:, None]
        goes_on = np.zeros(tokens.shape, dtype=bool)
        goes_on[:, 1:] = (tokens[:, 1:] % 4 == 0) & (tokens[:, :-1] % 3 < 2)
        kind = tokens % 3
        kind[:, 1:] = np.where(goes_on[:, 1:], tokens[:, :-1] % 3, kind[:, 1:])
        tags = np.where(kind == 2, 4, kind + 2 * goes_on)
        targets = {
            "upos": tokens % 3,
            "xpos": (tokens // 3) % 3,
            "deep": (tokens + np.roll(tokens, 1, 1)) % 2,
            "tags": tags,
        }
        for key, labels in targets.items():
            missing = ~real | (rng.random(labels.shape) < 0.2)
            if key == "tags":
                missing |= (np.arange(n) % 3 == 0)[:, None]
            targets[key] = np.where(missing, MISSING, labels)
        targets["genre"] = np.where(rng.random(n) < 0.3, MISSING, (tokens * real).sum(1) % 2)
        return Sentences(
            torch.tensor(tokens * real), {key: torch.tensor(y) for key, y in targets.items()}
        )
