"""Costs of rows, and how their settings were chosen."""

import json

import numpy as np
import pytest

from tests.analysis.made_study import SINGLE, TUNED, edit, make_study, report


@pytest.fixture
def folder(tmp_path):
    return make_study(tmp_path / "study")


def test_costs_are_of_all_trials_of_a_replicate(folder):
    costs = report(folder).costs.set_index("row")
    # three networks of 10 s, one of 20, and a fourth part of a minute
    assert costs.loc[SINGLE, "seconds"] == 30
    assert costs.loc[SINGLE, "steps"] == 3 * 51
    assert costs.loc["StaticWeights", "seconds"] == 20
    assert costs.loc["PCGrad", "relative"] == pytest.approx(1.5)
    assert costs.loc["ensemble", "seconds"] == 3 * 20 + 20
    assert costs.loc["PCGrad", "memory"] == 530_000_000
    assert costs.loc[SINGLE, "tuning_seconds"] == 9 * 10
    assert np.isnan(costs.loc["constant", "tuning_seconds"])


def test_a_trial_that_counts_for_some_tasks_costs_their_share(folder):
    """Networks that share nothing train together; one that is tuned otherwise is not used."""
    record = json.loads((folder / "study.json").read_text())
    row = next(row for row in record["rows"] if row["name"] == "PCGrad")
    row["replicates"][0]["trials"] = {"digit": "row-3-0", "odd": "row-3-0", "ink": "row-3-1"}
    row["replicates"] = row["replicates"][:1]
    edit(folder / "study.json", rows=record["rows"])
    costs = report(folder).costs.set_index("row")
    assert costs.loc["PCGrad", "seconds"] == pytest.approx(30 * 2 / 3 + 30 / 3)
    assert costs.loc["PCGrad", "steps"] == pytest.approx(51)


def test_what_was_chosen_and_among_how_many(folder):
    tuning = report(folder).tuning
    assert tuning["tried"].tolist() == [3] * 6
    single = tuning[tuning["row"] == SINGLE]
    assert single["tasks"].tolist() == ["digit", "odd", "ink"]
    chosen = json.loads(tuning.set_index("row").loc[TUNED, "chosen"])
    assert chosen["model.weights.digit"] == 0.5
