import pytest
import torch

from src.batch import PADDING
from src.data.length_batches import Share
from src.data.treebanks.sequences import SequenceRows, WordTypes, hide_tokens

# three sentences of 2, 0 and 3 words among the words of a file
TYPES = WordTypes(
    tokens=torch.tensor([4, 5, 1]),
    parts=torch.tensor([[2, 9, 3, 0, 0], [2, 8, 8, 8, 3], [2, 3, 0, 0, 0]]),
    hidden=torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64),
)
ROWS = SequenceRows(
    TYPES,
    words=torch.tensor([1, 0, 1, 2, 0, 0]),
    starts=torch.tensor([1, 3, 3]),
    lengths=torch.tensor([2, 0, 3]),
    token_labels={
        "tag": torch.tensor([7, 1, 2, 3, -100, 5], dtype=torch.int16),
        "kind": torch.tensor([7, 0, 0, 1, 1, 1], dtype=torch.int16),
    },
    sentence_labels={"genre": torch.tensor([1, -100, 0])},
)


def test_a_batch_is_cut_from_flat_tensors():
    batch = ROWS[torch.tensor([2, 0, PADDING])]
    assert batch.inputs["tokens"].tolist() == [[1, 4, 4], [4, 5, 0], [0, 0, 0]]
    assert batch.inputs["parts"].tolist() == [
        [[2, 3, 0, 0, 0], [2, 9, 3, 0, 0], [2, 9, 3, 0, 0]],
        [[2, 9, 3, 0, 0], [2, 8, 8, 8, 3], [0, 0, 0, 0, 0]],
        [[0] * 5] * 3,
    ]
    assert batch.targets["tag"].tolist() == [[3, -100, 5], [1, 2, -100], [-100] * 3]
    assert batch.targets["kind"].tolist() == [[1, 1, 1], [0, 0, -100], [-100] * 3]
    assert batch.targets["genre"].tolist() == [0, 1, -100]
    assert batch.ids.tolist() == [2, 0, PADDING]
    assert {target.dtype for target in batch.targets.values()} == {torch.long}


def test_a_rank_pads_to_the_longest_sentence_of_the_global_batch():
    batch = ROWS[Share(torch.tensor([0]), length=4)]
    assert batch.inputs["tokens"].tolist() == [[4, 5, 0, 0]]
    assert batch.targets["tag"].tolist() == [[1, 2, -100, -100]]
    # characters are cut where the longest word of the rank ends
    short = ROWS[Share(torch.tensor([1]), length=2)]
    assert short.inputs["parts"].shape == (1, 2, 1)
    assert not short.inputs["tokens"].any()


def test_words_of_the_rows_alone_count():
    assert ROWS.places.tolist() == [1, 2, 3, 4, 5]
    assert ROWS.labels_of_words("tag").tolist() == [1, 2, 3, -100, 5]


def test_training_hides_words_by_their_chance():
    batch = ROWS[Share(torch.tensor([2, 0]), length=3, key=7)]
    assert batch.inputs["tokens"].tolist() == [[1, 4, 4], [4, 1, 0]]
    # their characters stay
    assert batch.inputs["parts"][1, 1].tolist() == [2, 8, 8, 8, 3]


def test_hidden_words_depend_on_key_row_and_place_alone():
    tokens = torch.full((50, 40), 9)
    chance = torch.full((50, 40), 0.3, dtype=torch.float64)
    ids = torch.arange(50)
    hidden = hide_tokens(tokens, chance, ids, key=5)
    assert set(hidden.unique().tolist()) == {1, 9}
    assert (hidden == 1).double().mean() == pytest.approx(0.3, abs=0.03)

    some = torch.tensor([31, 4, 17])
    again = hide_tokens(tokens[:3, :20], chance[:3, :20], some, key=5)
    assert torch.equal(again, hidden[some, :20])
    other = hide_tokens(tokens, chance, ids, key=6)
    assert 0.3 < float((other != hidden).double().mean()) < 0.54
    assert not (hide_tokens(torch.zeros_like(tokens), chance, ids, 5)).any()
