"""The rows that references are fitted to and measured on."""

import numpy as np
import pytest
import torch

from src.analysis.references import Constant, Linear
from src.cli.reference_rows import (
    find_limit,
    flatten_inputs,
    flatten_targets,
    has_rows_in_memory,
    measure_references,
    read_rows,
)
from src.data import Digits, Sources, Synthetic
from src.tasks import Classification, MultilabelClassification
from tests.toy import Toy


def test_inputs_are_numbers_and_then_codes() -> None:
    images = torch.arange(24.0).view(2, 1, 3, 4)
    assert flatten_inputs(images).tolist() == images.view(2, 12).tolist()
    table = {"dense": torch.tensor([[0.5, 1.5]]), "categorical": torch.tensor([[70_000, 2]])}
    assert flatten_inputs(table).tolist() == [[0.5, 1.5, 70_000.0, 2.0]]


def test_each_token_counts_as_a_row() -> None:
    tags = torch.tensor([[0, 1, -100], [2, 0, 1]])
    task = Classification(classes=("a", "b", "c"))
    assert flatten_targets(task, tags).tolist() == [0, 1, -100, 2, 0, 1]
    labels = torch.zeros(4, 5, 2)
    assert flatten_targets(MultilabelClassification(labels=("u", "v")), labels).shape == (20, 2)
    assert flatten_targets(task, tags[:, 0]).tolist() == [0, 2]


def test_all_rows_are_read_whatever_the_size_of_a_batch() -> None:
    data = Toy(eval_batch_size=24)
    rows = read_rows(data, "train", with_inputs=True)
    whole = data.split("train")
    assert rows.x is not None
    assert (rows.x == np.asarray(whole.inputs)).all()
    for name, target in whole.targets.items():
        torch.testing.assert_close(rows.targets[name], target, equal_nan=True)
    assert read_rows(data, "val", with_inputs=False).x is None


def test_rows_of_several_sources() -> None:
    sources = {"one": Synthetic(rows=200), "two": Synthetic(rows=300, data_seed=1)}
    data = Sources(dict(sources), prefix=True, eval_batch_size=64)
    found = measure_references([Constant, Linear], data, seed=0, test=True)

    # the rows of the other source have no label
    for name, source in sources.items():
        alone = measure_references([Linear], source, seed=0, test=True).results["linear"]["test"]
        both = found.results["linear"]["test"]
        key = f"test/{name}-task1/r2"
        assert both[key] == pytest.approx(alone["test/task1/r2"], abs=0.05)
        assert found.results["constant"]["test"][key] < 0.0 < both[key]
    assert found.lines[0].startswith("linear: penalty one-task1 ")


def test_what_leaves_rows_out() -> None:
    whole = {
        "fast_dev_run": False,
        "limit_train_batches": None,
        "limit_val_batches": 1.0,
        "limit_test_batches": None,
        "overfit_batches": 0.0,
    }
    assert find_limit(whole) is None
    for key, value in (
        ("fast_dev_run", True),
        ("limit_train_batches", 1),
        ("limit_val_batches", 0),
        ("limit_test_batches", 0.5),
        ("overfit_batches", 2),
    ):
        assert find_limit(whole | {key: value}) == key


def test_rows_in_memory() -> None:
    assert has_rows_in_memory(Digits())
    assert not has_rows_in_memory(Sources({"one": Synthetic(rows=200)}))
