"""Half of the columns of Adult tell nearly as much of income as all of them do."""

import os
from pathlib import Path

import pandas as pd
import pytest
import yaml

from src.data.tables.adult import COLUMNS
from tests.launching import only_run, read_json, train

REAL = Path(os.environ.get("MTL_DATA", "")) / "adult"
# the strength was chosen on validation rows, among 0.02, 0.03, 0.05 and 0.1
GATES = (
    *("--model.select", "StochasticGates", "--model.select.per", "shared"),
    *("--model.select.strength", 0.03, "--model.select.warmup", 8),
)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not (REAL / "adult.data.gz").is_file(), reason="the Adult data are not here")
def test_half_of_the_columns_lose_less_than_0005_of_auc(tmp_path: Path) -> None:
    for name, skip in (("adult.data", 0), ("adult.test", 1)):
        rows = pd.read_csv(
            REAL / f"{name}.gz",
            header=None,
            names=COLUMNS,
            skiprows=skip,
            skipinitialspace=True,
            na_values="?",
        )
        rows["income"] = rows["income"].str.rstrip(".")
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
    flags = (
        *("--data", "Table", "--data.path", tmp_path / "adult.data.csv"),
        *("--data.test_path", tmp_path / "adult.test.csv", "--data.targets", "[income]"),
        *("--data.batch_size", 256, "--lr", 0.003, "--max_epochs", 8),
    )
    everything = train(tmp_path, *flags, name="all")
    gates = train(tmp_path, *flags, *GATES, "--no_test", name="gates")
    selected = gates / "selected.yaml"
    inputs = yaml.safe_load(selected.read_text())["data"]["init_args"]["inputs"]
    assert 4 <= len(inputs) <= 7  # of 14

    chosen = train(tmp_path, "--config", selected, "--no_test", "false", name="chosen")
    assert only_run(tmp_path / "chosen") == chosen
    auc = [read_json(run / "metrics.json")["test"]["test/score"] for run in (everything, chosen)]
    assert auc[0] > 0.90
    assert auc[0] - auc[1] < 0.005
