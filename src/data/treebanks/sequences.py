"""A split of sentences in memory: flat tensors of all words, from which batches are cut."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from src.batch import PADDING, Batch
from src.data.length_batches import Share
from src.data.rows import BatchDataset
from src.data.treebanks.vocabulary import UNKNOWN
from src.rng import GAMMA, MIX, hash_integers
from src.tasks import MISSING


@dataclass(frozen=True)
class WordTypes:
    """The different words of some sentences, as a network reads them.

    Attributes:
        tokens: (V,) The code of each word.
        parts: (V, P) The codes of its characters, 0 behind its end.
        hidden: (V,) The probability that training hides the word, so that its code is the unknown
            one; None for none.
    """

    tokens: Tensor
    parts: Tensor
    hidden: Tensor | None = None


class SequenceRows(BatchDataset):
    """A split of sentences in memory; a batch takes one indexing operation per tensor.

    A batch holds 'tokens' (B, S), the codes of words, and 'parts' (B, S, P), those of their
    characters; 0 pads both.

    Args:
        types: The different words.
        words: (N,) The number of each word of the text among ``types``.
        starts: (rows,) Where each sentence begins in ``words``.
        lengths: (rows,) The number of words of each sentence.
        token_labels: {task: (N,) labels of words}.
        sentence_labels: {task: (rows,) labels of sentences}.
        row_info: Columns that identify the rows in files of predictions.
    """

    def __init__(
        self,
        types: WordTypes,
        words: Tensor,
        starts: Tensor,
        lengths: Tensor,
        token_labels: Mapping[str, Tensor],
        sentence_labels: Mapping[str, Tensor],
        row_info: dict[str, list[Any]] | None = None,
    ) -> None:
        self.types = types
        self.words = words
        self.starts = starts
        self.lengths = lengths
        self.token_tasks = list(token_labels)
        # one tensor for all tasks: one indexing operation for all
        self.token_labels = torch.stack(list(token_labels.values())) if token_labels else None
        self.sentence_labels = dict(sentence_labels)
        self.row_info = row_info or {}
        self.sizes = (types.parts > 0).sum(1)

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def places(self) -> Tensor:
        """The places of all words of the rows in ``words``, row by row."""
        firsts = self.lengths.cumsum(0) - self.lengths
        shifts = (self.starts - firsts).repeat_interleave(self.lengths)
        return torch.arange(len(shifts)) + shifts

    def labels_of_words(self, task: str) -> Tensor:
        """Returns the labels of all words of the rows, row by row."""
        assert self.token_labels is not None
        return self.token_labels[self.token_tasks.index(task), self.places]

    def __getitem__(self, ids: Tensor | Share) -> Batch:
        """Returns the rows ``ids``, padded to the longest of them or of the global batch."""
        share = ids if isinstance(ids, Share) else Share(ids, 0)
        ids = share.ids
        real = ids != PADDING
        rows = ids.clamp(min=0)
        lengths = self.lengths[rows] * real
        width = share.length or int(lengths.max()) if len(ids) else 0

        # the places of all words of the batch, those of padding read the first word of all
        steps = torch.arange(max(width, 1))
        mask = steps < lengths[:, None]
        places = ((self.starts[rows][:, None] + steps) * mask).flatten()
        types = self.words[places]
        tokens = self.types.tokens[types].view_as(mask) * mask
        if share.key is not None and self.types.hidden is not None:
            chance = self.types.hidden[types].view_as(mask)
            tokens = hide_tokens(tokens, chance, ids, share.key)

        longest = int((self.sizes[types].view_as(mask) * mask).max()) if len(ids) else 0
        parts = self.types.parts[:, : max(longest, 1)][types].long()
        inputs = {"tokens": tokens, "parts": parts.view(*mask.shape, -1) * mask[..., None]}
        return Batch(inputs, self._select_labels(rows, real, places, mask), ids)

    def _select_labels(
        self, rows: Tensor, real: Tensor, places: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """Returns {task: (B, S) or (B,)}, ``MISSING`` at padding."""
        targets = {}
        if self.token_labels is not None:
            labels = self.token_labels.index_select(1, places).long()
            labels = labels.view(-1, *mask.shape).masked_fill_(~mask, MISSING)
            targets = dict(zip(self.token_tasks, labels, strict=True))
        for name, labels in self.sentence_labels.items():
            targets[name] = labels[rows].masked_fill_(~real, MISSING)
        return targets


def hide_tokens(tokens: Tensor, chance: Tensor, ids: Tensor, key: int) -> Tensor:
    """Replaces some words by the unknown one, so that training has seen it.

    Whether a word is hidden depends on the key, its row and its place in the sentence alone, and so
    neither on the other rows of the batch nor on the number of devices.

    Args:
        tokens: (B, S) codes of words.
        chance: (B, S) The probability that each is hidden.
        ids: (B,) row numbers.
        key: A function of (seed, epoch).
    """
    of_rows = hash_integers(ids * GAMMA + key)
    of_places = hash_integers(torch.arange(tokens.shape[1]) * MIX + key)
    draws = hash_integers(of_rows[:, None] + of_places).double() / 2.0**64 + 0.5
    hides = (draws < chance) & (tokens > 0)
    return tokens.masked_fill(hides, UNKNOWN)
