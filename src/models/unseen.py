"""Categories that training does not know: networks learn what to make of them."""

import torch

from src.batch import Batch
from src.microbatch import place_and_key
from src.models.dropout import draw_mask

HIDDEN = 0.05  # probability


def hide_categories(batch: Batch, share: float = HIDDEN) -> None:
    """Replaces some categories of a training batch by the one for unseen categories, in place.

    New rows hold words that training did not know; their embedding would be a random vector if no
    training row ever read it. So each category of each row is hidden with a small probability, as a
    function of the seed, the step, the row of the global batch and the column: the embedding learns
    to stand for an unknown category, and the run is the same on any number of devices.

    Args:
        batch: This process's share of a global batch; without categories it stays as it is.
        share: The probability.
    """
    if not isinstance(batch.inputs, dict):
        return
    # of several inputs, at most one is of table columns
    keys = [key for key in batch.inputs if key.rpartition("/")[2] == "categorical"]
    if not keys or not batch.inputs[keys[0]].shape[-1]:
        return
    codes = batch.inputs[keys[0]]
    first, key = place_and_key(len(codes))
    rows = torch.arange(first, first + len(codes), device=codes.device)
    columns = torch.arange(codes.shape[-1], device=codes.device)
    batch.inputs = batch.inputs | {keys[0]: codes * draw_mask(key, rows, columns, share)}
