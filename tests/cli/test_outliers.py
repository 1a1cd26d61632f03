"""Columns of predictions that say how unlike training each row is."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from tests.cli.calling import call, columns, refused, table, words_for_table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on 300 rows."""
    folder = tmp_path_factory.mktemp("outliers")
    rng = np.random.default_rng(0)
    extra = [f"{value:.4f}" for value in rng.normal(size=300)]
    (folder / "table.csv").write_text(table(300, size=extra))
    ended = call("train", *words_for_table(folder), "--no_test", "--name", "run")
    assert ended.code == 0, ended.err
    return next((folder / "logs" / "run").iterdir())


def predict(run, out, *words):
    """Predicts with scores of outliers; returns the table."""
    ended = call("predict", "--run", run, "--out", out, "--ood", "--overwrite", *words)
    assert ended.code == 0, ended.err
    return pd.read_csv(out)


def test_rows_of_the_run_have_uniform_percentiles(run, tmp_path):
    frame = predict(run, tmp_path / "p.csv", "--split", "test")
    for name in ("income.energy", "ood.energy", "ood.mahalanobis", "ood.percentile"):
        assert frame[name].notna().all()
    # hours is a number, which has no energy
    assert "hours.energy" not in frame
    assert kstest(frame["ood.percentile"], "uniform").pvalue > 0.01
    assert np.allclose(frame["ood.energy"], frame["income.energy"])
    # a probability of 1/2 has the highest energy
    p = frame["income.p_low"].clip(1e-6, 1 - 1e-6)
    logit = np.log(p / (1 - p))
    assert np.allclose(frame["income.energy"], -np.logaddexp(logit / 2, -logit / 2), atol=1e-3)


def test_far_rows_have_percentile_1_and_the_fit_is_kept(run, tmp_path):
    near = predict(run, tmp_path / "near.csv", "--split", "test")
    kept = run / "ood.npz"
    written = kept.stat().st_mtime_ns
    ages = [5000 + age for age in columns(30)["age"]]
    path = tmp_path / "far.csv"
    path.write_text(table(30, without=("income", "hours"), age=ages, size=[0.0] * 30))
    far = predict(run, tmp_path / "far-p.csv", "--data.path", path)
    assert (far["ood.percentile"] == 1).all()
    assert far["ood.mahalanobis"].min() > near["ood.mahalanobis"].quantile(0.95)
    assert kept.stat().st_mtime_ns == written


def test_a_fit_of_other_weights_is_made_anew(run, tmp_path):
    predict(run, tmp_path / "best.csv", "--split", "test")
    before = (run / "ood.npz").read_bytes()
    with np.load(run / "ood.npz") as file:
        arrays = dict(file)
    arrays["source"] = np.frombuffer(b"other weights", np.uint8)
    arrays["mean"] = arrays["mean"] + 100
    np.savez(run / "ood.npz", **arrays)
    frame = predict(run, tmp_path / "again.csv", "--split", "test")
    assert (run / "ood.npz").read_bytes() == before
    assert frame.equals(pd.read_csv(tmp_path / "best.csv"))


def test_several_runs_and_damaged_files_are_refused(run, tmp_path):
    two = f"{run},{run}"
    words = ("--out", tmp_path / "p.csv", "--ood")
    refused(call("predict", "--run", two, *words), ["--ood reads the features of one network"])
    kept = (run / "ood.npz").read_bytes() if (run / "ood.npz").exists() else None
    (run / "ood.npz").write_text("broken")
    try:
        refused(call("predict", "--run", run, *words), ["ood.npz is damaged: delete it"])
    finally:
        (run / "ood.npz").unlink()
        if kept is not None:
            (run / "ood.npz").write_bytes(kept)
