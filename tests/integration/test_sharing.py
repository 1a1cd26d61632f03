"""Sharing architectures go on to the bit after a resume, and show what they have learnt."""

import io
import re
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.cli.calling import call, refused
from tests.integration.grid import Cell, cells, model_of
from tests.integration.test_resume import assert_same, checkpoint
from tests.launching import launch, only_run
from tests.toy import At, Toy, bare_trainer


class SaveAt(At):
    """Keeps a checkpoint of the middle of an epoch."""

    def act(self, module: L.LightningModule) -> None:
        module.trainer.save_checkpoint(self.marker.with_suffix(".ckpt"))


# what keeps numbers of its own from step to step, and what draws; tests/integration/test_resume.py
# has all under every strategy
FAST_RESUMED = ("CrossStitch", "LearningToBranch", "MMoE")
RESUMED = [
    pytest.param(
        cell,
        marks=() if cell[1:] in [(n, "losses") for n in FAST_RESUMED] else pytest.mark.slow,
        id="-".join(cell[1:]),
    )
    for cell in cells()
    if cell[0] == "sharing"
]


def fitted(cell: Cell, resume: Path | None = None, *callbacks: L.Callback) -> L.Trainer:
    """One short run, on data with missing labels and a task that most batches lack."""
    trainer = bare_trainer(1, 3, callbacks=list(callbacks))
    trainer.fit(model_of(cell), Toy(), ckpt_path=resume)
    return trainer


@pytest.mark.parametrize("cell", RESUMED)
def test_a_run_that_stops_in_mid_epoch_goes_on_to_the_bit(tmp_path: Path, cell: Cell) -> None:
    """After step 19 of 42, the fifth of the second epoch."""
    whole = fitted(cell, None, SaveAt(19, str(tmp_path / "saved")))
    resumed = fitted(cell, tmp_path / "saved.ckpt")
    assert whole.global_step == resumed.global_step == 42
    assert_same(resumed.lightning_module.state_dict(), whole.lightning_module.state_dict())
    then = torch.load(tmp_path / "saved.ckpt", weights_only=True)
    assert then["global_step"] == 19
    assert any(
        (value != then["state_dict"][key]).any()
        for key, value in whole.lightning_module.state_dict().items()
    )


def read_picture(run: Path, title: str) -> torch.Tensor:
    """The last picture in TensorBoard whose tag begins with a title, as an array of colours."""
    events = EventAccumulator(str(run)).Reload()
    tag = next(tag for tag in events.Tags()["images"] if tag.startswith(title))
    picture = Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string))
    return torch.from_numpy(np.asarray(picture).astype("int64"))


# -- as a person would -----------------------------------------------------------------------------
TOY = ("--data", "tests.toy.Toy", "--max_epochs", 2, "--model.encoder.width", 12)
PICTURES = {
    "MMoE": ["gates"],
    "PLE": ["gates"],
    "DSelectK": ["gates"],
    "CrossStitch": ["stitches of stage 3"],
    "Sluice": ["betas"],
    "NDDR": ["weights of stage 1"],
    "WeightedSharing": ["weights of stage 2"],
    "MTAN": ["attention of stage 3"],
    "LearningToBranch": ["branches", "last branch"],
}


FAST = ("MMoE", "CrossStitch", "LearningToBranch")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in PICTURES]
)
def test_what_was_learnt_about_sharing_is_drawn(tmp_path: Path, name: str) -> None:
    ended = call("train", "--logs", tmp_path, "--name", "run", *TOY, "--model.sharing", name)
    assert ended.code == 0, ended.err
    assert f"sharing {name}: " in ended.out
    assert "times hard sharing)" in ended.out
    tags = EventAccumulator(str(only_run(tmp_path / "run"))).Reload().Tags()["images"]
    drawn = [tag.removeprefix("sharing/") for tag in tags if tag.startswith("sharing/")]
    assert all(any(title in tag for tag in drawn) for title in PICTURES[name]), drawn
    if name == "LearningToBranch":
        assert re.search(r"^tree: stage 1 \{.+\}; stage 2 \{.+\}; stage 3 \{.+\}$", ended.out, re.M)


@pytest.mark.slow
def test_pictures_are_the_same_on_two_processes(tmp_path: Path) -> None:
    """Loads are means over all validation rows of all ranks, without rows that fill up a batch."""
    words = ("--logs", tmp_path, *TOY, "--model.sharing", "MMoE")
    ended = call("train", *words, "--name", "one")
    assert ended.code == 0
    done = launch("src.train", *words, "--name", "two", "--devices", 2)
    one, two = (
        checkpoint(only_run(tmp_path / name), "last")["state_dict"] for name in ("one", "two")
    )
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)
    said = [
        [line for line in out.splitlines() if line.startswith("experts: load ")]
        for out in (ended.out, done.stdout)
    ]
    assert len(said[0]) == 1
    assert said[1] == said[0]

    gates = [read_picture(only_run(tmp_path / name), "sharing/gates") for name in ("one", "two")]
    assert gates[0].double().std() > 0
    # rounding may move a colour by one of 256
    assert (gates[1] - gates[0]).abs().max() <= 1


def test_features_level_without_one_feature_is_refused_with_the_way_out(tmp_path: Path) -> None:
    words = (
        "--logs",
        tmp_path,
        "--name",
        "run",
        *TOY,
        "--model.sharing",
        "MMoE",
        "--model.balancer",
        "UPGrad",
    )
    refused(
        call("train", *words),
        ["UPGrad", "MMoE gives each task its own", "--model.balancer.level parameters"],
    )
    assert (
        call("train", *words, "--model.balancer.level", "parameters", "--max_epochs", 1).code == 0
    )


def test_nothing_shared_leaves_nothing_to_balance_and_says_so(tmp_path: Path) -> None:
    words = ("--logs", tmp_path, *TOY, "--model.sharing", "Separate", "--max_epochs", 1)
    ended = call(
        "train",
        *words,
        "--name",
        "a",
        "--model.balancer",
        "UPGrad",
        "--model.balancer.level",
        "parameters",
    )
    assert "Separate has none, so that each task follows its own gradient" in ended.out
    assert call("train", *words, "--name", "b").code == 0
    balanced, plain = (checkpoint(only_run(tmp_path / name), "last")["state_dict"] for name in "ab")
    for key, value in plain.items():
        if key.startswith(("sharing", "heads")):
            torch.testing.assert_close(balanced[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model.sharing", "MMOE"), ["unknown class 'MMOE'", "did you mean 'MMoE'?"]),
        (("--model.sharing", "MMoE", "--model.sharing.experts", 0), ["MMoE: experts 0"]),
        (
            ("--model.sharing", "HardSharing", "--model.sharing.until", 9),
            ["until 9", "1 ... 3", "MLP"],
        ),
        (("--model.sharing", "PLE", "--model.sharing.levels", 7), ["PLE: levels 7", "1 ... 3"]),
        (
            ("--model.sharing", "SoftSharing", "--model.sharing.strength", "[1.0]"),
            ["strength has 1 entries", "3 stages"],
        ),
        (
            ("--model.sharing", "CrossStitch", "--model.sharing.expert", 2),
            ["unknown key", "model.sharing.expert"],
        ),
        (("--model.stage_decay", 0), ["model.stage_decay is 0"]),
        (
            ("--data", "Digits", "--model.encoder", "UNet", "--model.encoder.width", 8),
            [
                "task 'digit' has labels of shape () for each sample",
                "features are of shape (8, 8)",
                "one for each label",
            ],
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, words: tuple[object, ...], says: list[str]) -> None:
    refused(call("train", "--logs", tmp_path, *TOY, *words), says)
