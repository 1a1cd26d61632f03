"""A penalty halves the equalized-odds gap of income on Adult, for little of its AUROC."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from src.cli.runs import load_run
from src.tasks import BinaryClassification
from tests.launching import train

REAL = Path(os.environ.get("MTL_DATA", "")) / "adult"


def measure(run: Path) -> tuple[float, float]:
    """AUROC of income on the test rows, and the gap by sex at the run's threshold, by fairlearn."""
    from fairlearn.metrics import equalized_odds_difference
    from sklearn.metrics import roc_auc_score

    model, data = load_run(run)
    rows = data.split("test")
    with torch.no_grad():
        outputs = [model(rows[ids].inputs)["income"] for ids in torch.arange(len(rows)).split(4096)]
    p = torch.cat(outputs).double().sigmoid().flatten().numpy()
    y = rows[torch.arange(len(rows))].targets["income"].numpy()
    task = model.chosen_tasks["income"]
    assert isinstance(task, BinaryClassification)
    decided = task.predict(torch.cat(outputs)).flatten().numpy()
    sex = np.array(data.column_words("test", "sex"))
    gap = equalized_odds_difference(y, decided.astype(int), sensitive_features=sex)
    return float(roc_auc_score(y, p)), float(gap)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not (REAL / "adult.data.gz").is_file(), reason="the Adult data are not here")
def test_the_gap_of_income_by_sex_is_halved_for_less_than_001_of_auc(tmp_path: Path) -> None:
    pytest.importorskip("fairlearn")
    flags = ("--config", "configs/experiment/adult-fair.yaml", "--data.root", REAL, "--no_test")
    fair = measure(train(tmp_path, *flags, name="fair"))
    plain = measure(train(tmp_path, *flags, "--model.fairness.strength", 0, name="plain"))
    assert plain[1] > 0.25
    assert fair[1] < plain[1] / 2
    assert plain[0] - fair[0] < 0.01
