"""How tasks share: the features of each stage in every architecture, and the command."""

import json

import pytest
import torch

from src.analysis.explanations.similarity import compute_cka
from src.cli.explaining.stages import LAST, list_seams, observe_sharing
from src.models.encoders.encoder import top
from src.models.sharing import CrossStitch, HardSharing, MMoE, Separate
from tests.analysis.explanations.made import make_model
from tests.cli.calling import call, table, words_for_table
from tests.models.test_matrix import ENCODERS, SHARINGS, TASKS, in_double


@pytest.mark.filterwarnings("ignore:Sluice. orthogonality .* has no matrix of any stage")
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("encoder", ["table", pytest.param("ConvNet", marks=pytest.mark.slow)])
def test_every_architecture_shows_its_features(encoder, sharing):
    make, shape = ENCODERS[encoder]
    model = make_model(make, shape, SHARINGS[sharing])
    inputs = in_double(shape.example(6))
    found = observe_sharing(model, inputs, 4)
    last = found.features[LAST]
    assert list(last) == list(TASKS)
    for features in found.features.values():
        for values in features.values():
            assert values.ndim == 2
            assert len(values) == 6
    expected = model.sharing(inputs)["bent"]
    for _ in range(expected.ndim - 2):
        expected = expected.mean(1)
    torch.testing.assert_close(last["bent"], expected)
    # what the architecture has decided can be drawn
    for shown in model.sharing.figures(found.decided).values():
        assert shown.size
    # nothing is left on the modules
    assert not any(module._forward_hooks for module in model.sharing.modules()) or sharing in (
        "HydraLoRA",
        "LoRAExperts",
        "PaLoRA",
    )


def test_stages_of_separate_networks_are_their_own():
    make, shape = ENCODERS["table"]
    model = make_model(make, shape, Separate)
    inputs = in_double(shape.example(6))
    found = observe_sharing(model, inputs, 10)
    assert list(found.features) == ["stage 1", LAST]
    state = model.sharing.encoders(inputs, first=0, last=1)
    for name, z in zip(TASKS, top(state), strict=True):
        torch.testing.assert_close(found.features["stage 1"][name], z)
    # the last stage is what the heads read, and is shown once
    assert compute_cka(last_of(found, "class"), last_of(found, "number")) < 1


def last_of(found, task):
    """The features that the head of a task reads."""
    return found.features[LAST][task]


def test_stitched_features_are_those_behind_the_stitch():
    make, shape = ENCODERS["table"]
    model = make_model(make, shape, CrossStitch)
    inputs = in_double(shape.example(6))
    found = observe_sharing(model, inputs, 10)
    mixed = model.sharing.outputs(inputs)
    for k, name in enumerate(TASKS):
        torch.testing.assert_close(found.features["stage 1"][name], mixed[0][k])


def test_experts_are_no_tasks():
    make, shape = ENCODERS["table"]
    model = make_model(make, shape, MMoE)
    (first, *_) = list_seams(model.sharing)
    assert first.kind == "expert"
    found = observe_sharing(model, in_double(shape.example(6)), 10)
    assert list(found.features["stage 1, expert"]) == [f"expert {k + 1}" for k in range(4)]
    assert found.decided["gates"].shape == (len(TASKS), 4)


def test_tasks_that_read_one_tensor_are_alike():
    make, shape = ENCODERS["table"]
    model = make_model(make, shape, HardSharing)
    found = observe_sharing(model, in_double(shape.example(6)), 4)
    assert list(found.features) == [LAST]
    assert len({id(z) for z in found.features[LAST].values()}) == 1


def test_the_command_writes_a_page_and_a_record(tmp_path):
    (tmp_path / "table.csv").write_text(table(60))
    words = (*words_for_table(tmp_path), "--no_test", "--name", "stitch")
    ended = call("train", *words, "--model.sharing", "CrossStitch")
    assert ended.code == 0, ended.err
    run = next((tmp_path / "logs" / "stitch").iterdir())
    ended = call("explain", "--run", run, "--sharing", "--split", "train")
    assert ended.code == 0, ended.err
    assert "has no affinity.json" in ended.out
    record = json.loads((run / "explain" / "sharing.json").read_text())
    one = record["cka"]["stage 1"]
    assert one["names"] == ["income", "hours"]
    assert one["linear"][0][1] == one["linear"][1][0]
    assert 0 < one["linear"][0][1] <= 1
    assert set(record["learnt"]) == {
        "stitches of stage 1",
        "stitches of stage 2",
        "stitches of stage 3",
    }
    page = (run / "explain" / "sharing.html").read_text()
    assert page.count("data:image/png") == len(record["cka"]) + 3
    assert list(run.glob("events.*.explain-sharing"))
    assert record["affinities"] is None

    # affinities are shown where the run folder has them
    table_of = {"mean": [[None, 0.2], [0.3, None]], "half_width": [[None, 0.1], [0.1, None]]}
    affinity = {
        "tasks": ["income", "hours"],
        "reads": "row helps column",
        "intervals": "steps",
        "runs": ["a"],
        "seeds": [0],
        "measured_steps": [3],
        "lookahead": table_of,
        "first_order": table_of,
        "partition": None,
    }
    (run / "affinity.json").write_text(json.dumps(affinity))
    ended = call("explain", "--run", run, "--sharing", "--split", "train")
    assert ended.code == 0, ended.err
    record = json.loads((run / "explain" / "sharing.json").read_text())
    assert record["affinities"]["columns"] == ["income", "hours"]
    assert record["affinities"]["values"][1][0] == 0.3
    assert len(list(run.glob("events.*.explain-sharing"))) == 1
