"""The audit of groups, and thresholds by group that predict and evaluate decide by."""

import json

import numpy as np
import pandas as pd
import pytest

from src.cli.auditing.groups import check_group_flags
from src.cli.auditing.groups_rows import read_columns
from src.data import Digits
from src.errors import UserError
from tests.cli.calling import call, refused

ROWS = 1200


def make_table(rows=ROWS, seed=0):
    """A label that follows x, and more often for m than for f; sex is no input, and may lack."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["f", "m"], rows)
    x = rng.normal(size=rows) + 0.8 * (sex == "m")
    chance = 1 / (1 + np.exp(-2 * x))
    frame = pd.DataFrame(
        {
            "x": x.round(4),
            "age": rng.integers(18, 80, rows),
            "sex": sex,
            "income": np.where(rng.random(rows) < chance, "high", "low"),
            "hours": (30 + 5 * x + rng.normal(size=rows)).round(2),
        }
    )
    frame.loc[frame.index % 11 == 0, "sex"] = None
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    make_table().to_csv(folder / "table.csv", index=False)
    words = (
        *("--data", "Table", "--data.path", f"{folder}/table.csv"),
        *("--data.targets", "[income,hours]", "--data.drop", "[sex,age]"),
        *("--accelerator", "cpu", "--max_epochs", "2", "--model.encoder.width", "8"),
        *("--logs", f"{folder}/logs", "--name", "groups", "--no_test"),
    )
    for seed in (0, 1):
        ended = call("train", *words, "--seed_everything", seed, "--data.split_seed", 0)
        assert ended.code == 0, ended.err
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return sorted((folder / "logs" / "groups").iterdir())[0]


@pytest.fixture(scope="module")
def audited(run):
    words = ("--run", run, "--only", "[groups]", "--groups", "[sex,age]", "--group_draws", 20)
    ended = call("audit", *words)
    assert ended.code == 0, ended.err
    return ended, json.loads((run / "audit" / "groups.json").read_text())


def predict(run, out, *words):
    ended = call("predict", "--run", run, "--out", out, "--overwrite", *words)
    assert ended.code == 0, ended.err
    return pd.read_csv(out), ended


def test_values_are_those_of_the_predictions(audited, run, folder):
    _, found = audited
    # the split's rows, with their ids
    frame, _ = predict(run, folder / "plain.csv", "--split", "test")
    table = make_table().iloc[frame["id"] - 1]
    sex = table["sex"].fillna("missing").to_numpy()
    right = (frame["income"] == frame["true.income"]).to_numpy()
    error = (frame["hours"] - frame["true.hours"]).to_numpy()
    by_key = {(r["task"], r["metric"], tuple(r["groups"].items())): r for r in found["rows"]}
    for group in ("f", "m"):
        inside = sex == group
        row = by_key["income", "accuracy", (("sex", group),)]
        assert row["n"] == inside.sum()
        assert row["value"] == pytest.approx(right[inside].mean())
        assert row["low"] <= row["value"] <= row["high"]
        assert row["note"] is None
        row = by_key["hours", "bias", (("sex", group),)]
        assert row["value"] == pytest.approx(error[inside].mean(), abs=1e-4)
        row = by_key["hours", "mae", (("sex", group),)]
        assert row["value"] == pytest.approx(np.abs(error[inside]).mean(), abs=1e-4)

    # a missing word is a group, and too small here for a value
    row = by_key["income", "auroc", (("sex", "missing"),)]
    assert (row["value"], row["low"], row["high"]) == (None, None, None)
    assert row["n"] == (sex == "missing").sum()
    assert "fewer than 30" in row["note"]
    ages = {r["groups"]["age"] for r in found["rows"] if list(r["groups"]) == ["age"]}
    assert len(ages) == 4


def test_the_file_has_the_form_that_others_read(audited, run):
    ended, found = audited
    keys = ["task", "metric", "groups", "n", "value", "low", "high", "note"]
    assert all(list(row) == keys for row in found["rows"])
    keys = ["task", "metric", "columns", "gap", "ratio", "worst"]
    assert all(list(gap) == keys for gap in found["gaps"])
    by_key = {(g["task"], g["metric"], *g["columns"]): g for g in found["gaps"]}
    rates = {}
    for row in found["rows"]:
        if list(row["groups"]) == ["sex"] and row["value"] is not None:
            rates.setdefault((row["task"], row["metric"]), []).append(row["value"])
    parity = by_key["income", "demographic_parity", "sex"]
    assert parity["gap"] == pytest.approx(np.ptp(rates["income", "selection_rate"]))
    odds = by_key["income", "equalized_odds", "sex"]["gap"]
    kinds = ("true_positive_rate", "false_positive_rate")
    assert odds == pytest.approx(max(np.ptp(rates["income", kind]) for kind in kinds))
    assert by_key["income", "accuracy", "sex", "age"]["columns"] == ["sex", "age"]
    assert f"income by sex: equalized odds difference {odds:.4f}" in ended.out
    for name in ("groups.png", "groups.svg"):
        assert (run / "audit" / name).is_file()


@pytest.mark.slow
def test_thresholds_by_group_decide_in_evaluate_and_predict(folder):
    run = sorted((folder / "logs" / "groups").iterdir())[1]
    before, _ = predict(run, folder / "before.csv", "--split", "val")
    words = ("--run", run, "--groups", "[sex]", "--group_draws", 20)
    fitted = call("audit", *words, "--thresholds", "EqualizedOdds")
    assert fitted.code == 0, fitted.err
    assert "val after" in fitted.out
    kept = json.loads((run / "thresholds.json").read_text())["tasks"]
    assert list(kept) == ["income"]
    assert set(kept["income"]["groups"]) == {"f", "m", "missing"}

    val, ended = predict(run, folder / "val.csv", "--split", "val")
    assert "thresholds by group decide (income by sex)" in ended.err
    pd.testing.assert_frame_equal(val.drop(columns="income"), before.drop(columns="income"))
    assert (val["income"] != before["income"]).any()
    # the same rows get the same answers in another command, and beside other rows
    every, _ = predict(run, folder / "every.csv")
    same = every.set_index("id").loc[val["id"], "income"]
    assert same.tolist() == val["income"].tolist()

    out = folder / "metrics.json"
    ended = call("evaluate", "--run", run, "--split", "val", "--out", out, "--overwrite")
    assert ended.code == 0, ended.err
    metrics = json.loads(out.read_text())
    right = (val["income"] == val["true.income"]).mean()
    assert metrics["val/income/accuracy"] == pytest.approx(right)

    make_table(40, 1).drop(columns="sex").to_csv(folder / "without.csv", index=False)
    words = ("--run", run, "--out", folder / "new.csv", "--overwrite")
    ended = call("predict", *words, "--data.path", folder / "without.csv")
    refused(ended, ["has no column 'sex'", "income's thresholds by group need it"])
    frame = make_table(40, 1)
    frame.loc[2, "sex"] = "d"
    frame.to_csv(folder / "unknown.csv", index=False)
    ended = call("predict", *words, "--data.path", folder / "unknown.csv")
    refused(ended, ["row 3: sex is 'd', a group that income has no threshold for"])

    # a run has two places in the picture where it has such thresholds
    words = ("--run", f"{folder}/logs/groups/*", "--groups", "[sex]", "--tradeoff", "income")
    ended = call("audit", *words, "--out", folder / "picture")
    assert ended.code == 0, ended.err
    found = json.loads((folder / "picture" / "tradeoff.json").read_text())
    assert (found["score"], found["gap"]) == ("auroc", "equalized_odds")
    methods = {method["label"]: method for method in found["methods"]}
    assert {label: method["runs"] for label, method in methods.items()} == {
        "groups": 2,
        "groups + thresholds": 1,
    }
    own = [one["gap"] for one in found["runs"] if one["label"] == "groups"]
    assert methods["groups"]["gap"] == pytest.approx(np.mean(own))
    assert methods["groups"]["gap_spread"] == pytest.approx(np.std(own, ddof=1))
    assert (folder / "picture" / "tradeoff.png").is_file()

    content = json.loads((run / "thresholds.json").read_text())
    content["tasks"]["income"]["calibrator"] = "another"
    (run / "thresholds.json").write_text(json.dumps(content))
    ended = call("evaluate", "--run", run)
    refused(ended, ["income is calibrated in another way than when"])
    (run / "thresholds.json").write_text("[]")
    refused(call("evaluate", "--run", run), ["thresholds.json is damaged"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--groups", "[sexx]"), "has no column 'sexx'; did you mean 'sex'?"),
        (("--groups", "[sex]", "--group_draws", "2"), "--group_draws is 2"),
        (("--groups", "[sex]", "--thresholds", "Odds"), "--thresholds is 'Odds'"),
        (
            ("--groups", "[sex]", "--thresholds", "EqualizedOdds", "--threshold_task", "hours"),
            "'hours', a Regression; thresholds by group are for binary tasks: income",
        ),
        (
            ("--groups", "[sex]", "--thresholds", "EqualizedOdds", "--calibrate"),
            "--thresholds is asked for alone",
        ),
        (("--groups", "[sex]", "--tradeoff", "incom"), "--tradeoff is 'incom'; did you mean"),
        (
            ("--groups", "[sex]", "--tradeoff", "income", "--tradeoff_gap", "auc"),
            "--tradeoff_gap is 'auc', which income has not",
        ),
    ],
    ids=["unknown", "draws", "constraint", "regression", "calibrate", "task", "gap"],
)
def test_wrong_flags_are_one_line(run, words, says):
    refused(call("audit", "--run", run, "--only", "[groups]", *words), [says])


def test_a_run_or_data_are_named():
    refused(call("audit"), ["name what is audited: --run RUN, or data"])
    assert call("audit", "--help").code == 0


def test_data_without_columns_are_refused():
    with pytest.raises(UserError, match="Digits has no columns to tell groups of rows by"):
        read_columns(Digits(), "test", ["sex"], None)


class GivenWords:
    """Data with one column, as new rows have it."""

    is_new = True

    def column_words(self, split, column):
        return ["a", "b", None]


@pytest.mark.parametrize(
    ("columns", "bins", "says"),
    [
        ([], None, "--groups is empty"),
        (["sex", "sex"], None, "names 'sex' twice"),
        (["sex"], 1, "--group_bins is 1; at least 2"),
    ],
    ids=["empty", "twice", "bins"],
)
def test_columns_that_cannot_be_compared_are_one_line(columns, bins, says):
    with pytest.raises(UserError, match=says):
        read_columns(GivenWords(), "test", columns, bins)
    assert read_columns(GivenWords(), "test", ["sex"], None).values == {
        "sex": ["a", "b", "missing"]
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"run", "group_bins"}, "--group_bins needs --groups, such as --groups '[sex]'"),
        ({"thresholds"}, "--thresholds needs --groups"),
        ({"groups", "tradeoff_gap"}, "--tradeoff_gap needs --tradeoff, such as --tradeoff income"),
    ],
    ids=["bins", "thresholds", "gap"],
)
def test_flags_without_effect_are_refused(given, says):
    with pytest.raises(UserError) as raised:
        check_group_flags(given)
    assert says in str(raised.value)
