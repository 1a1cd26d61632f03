"""Categories that training does not know: what a network makes of them is learnt, too."""

import torch

from src.batch import Batch
from src.microbatch import place_and_key
from src.models.dropout import mask

HIDDEN = 0.05


def hide_categories(batch: Batch, share: float = HIDDEN) -> None:
    """Puts some categories of a training batch into the bucket for those never seen, in place.

    New rows hold words that training did not know; their embedding would be a random vector if no
    training row ever read it. So each category of each row is hidden with a small probability, as a
    function of (seed, step, row of the global batch, column): the bucket learns what is to be said
    of a row whose category is unknown, alike on any topology.

    Args:
        batch: This rank's share of a global batch; nothing happens to one without categories.
        share: The probability.
    """
    if not isinstance(batch.inputs, dict) or "categorical" not in batch.inputs:
        return
    codes = batch.inputs["categorical"]
    if not codes.shape[-1]:
        return
    first, key = place_and_key(len(codes))
    rows = torch.arange(first, first + len(codes), device=codes.device)
    columns = torch.arange(codes.shape[-1], device=codes.device)
    batch.inputs = batch.inputs | {"categorical": codes * mask(key, rows, columns, share)}
