"""One pass over rows by outputs and targets alone, beside the pass of a network."""

import lightning as L
import pytest
import torch

from src.analysis.reference_tasks import SplitRows, measure
from src.models import MultiTaskModel
from tests.toy import Toy


def test_outputs_alone_are_measured_as_the_network_that_has_made_them() -> None:
    data = Toy()
    model = MultiTaskModel(data.tasks, data.input_shape, seed=1)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    validation = trainer.validate(model, data, verbose=False)[0]
    test = trainer.test(model, data, verbose=False)[0]

    splits = {}
    for name in ("val", "test"):
        rows = data.split(name)
        assert isinstance(rows.inputs, torch.Tensor)
        splits[name] = SplitRows(rows.inputs.numpy(), rows.targets)
    with torch.no_grad():
        found = measure(
            lambda rows: model(torch.from_numpy(rows.x)), data.tasks, splits, data.eval_batch_size
        )
    for theirs, ours in ((validation, found["validation"]), (test, found["test"])):
        assert theirs.keys() - {"step"} == ours.keys()
        for key, value in ours.items():
            assert theirs[key] == pytest.approx(value, rel=1e-5, abs=1e-7, nan_ok=True), key
