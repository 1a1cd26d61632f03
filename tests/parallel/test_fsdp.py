"""A run on shards is the run of one process: training, evaluation, guards and checkpoints."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from src.balancing import AutoLambda
from src.checkpoint import load_checkpoint
from src.models import MultiTaskModel
from src.models.encoders import MLP, Transformer
from src.models.sharing import HardSharing, LearningToBranch, MMoE
from src.monitoring import FiniteLossGuard
from src.parallel import FSDP
from tests.integration.test_pipeline import Sentences
from tests.integration.test_resume import assert_same, checkpoint
from tests.launching import launch, only_run, port, read_json, train
from tests.parallel import sharded
from tests.parallel.sharded import CASES, DRIFTS, NAMES, PROCESSES, STARTS, Whole
from tests.toy import KillAt, Toy

KINDS = ("shards", "tensor")
One = Callable[..., Whole]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the checkpoints."""
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def one(folder: Path) -> One:
    """Runs a case on one process, or an optimizer, whose checkpoint it leaves."""

    def found(kind: str, name: str) -> Whole:
        if name in CASES[kind]:
            return sharded.run(CASES[kind][name], 1)
        return sharded.leg(kind, name, saves={folder / kind / f"one-{name}.ckpt": "file"})

    return cache(found)


@pytest.fixture(scope="module")
def several(folder: Path, one: One) -> Callable[[str], Whole]:
    """Runs the cases of a kind on several processes."""

    def found(kind: str) -> Whole:
        (folder / kind).mkdir()
        for name in NAMES[kind]:
            one(kind, name)
        count = ("--nproc_per_node", PROCESSES[kind], "--master_port", port(29752))
        launch("torch.distributed.run", *count, "-m", "tests.parallel.sharded", folder / kind, kind)
        left: Whole = torch.load(folder / kind / f"{kind}.pt", weights_only=False)
        return left

    return cache(found)


def check(found: Any) -> Any:
    assert not isinstance(found, str), found  # why it broke
    return found


def assert_close(ours: Whole, theirs: Whole, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Weights, optimizer states and the names of what they belong to."""
    torch.testing.assert_close(ours["weights"], theirs["weights"], rtol=rtol, atol=atol)
    torch.testing.assert_close(
        ours["optimizer"]["state"], theirs["optimizer"]["state"], rtol=rtol, atol=atol
    )
    groups = [
        [(g["name"], g["params"]) for g in found["optimizer"]["param_groups"]]
        for found in (ours, theirs)
    ]
    assert groups[0] == groups[1]


def marked(kind: str, *rest: str) -> Any:
    return pytest.param(kind, *rest, marks=() if kind == "few shards" else pytest.mark.slow)


ALL = [marked(kind, name) for kind in CASES for name in CASES[kind]]
STARTED = [marked(kind, name) for kind in CASES for name in NAMES[kind]]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_the_run_of_one_process(
    several: Callable[[str], Whole], one: One, kind: str, name: str
) -> None:
    ours, theirs, case = check(several(kind)[name]), one(kind, name), CASES[kind][name]
    half = name.startswith(("16 bits", "mixed"))
    tolerance: dict[str, Any] = (
        {"rtol": 0.05, "atol": 0.02} if half else {"rtol": 1e-5, "atol": 2e-6}
    )
    if name.startswith("double"):
        tolerance = {"rtol": 1e-12, "atol": 1e-14}
    assert ours["losses"].isfinite().all()
    torch.testing.assert_close(ours["losses"], theirs["losses"], **tolerance)
    assert_close(ours, theirs, **tolerance)
    assert ours["types"] == theirs["types"]  # the weights that are kept have all bits
    if half:
        assert float((ours["losses"] - theirs["losses"]).abs().max()) > 0  # and the passes have not
    if case.looks:
        assert ours["metrics"] == pytest.approx(
            theirs["metrics"], rel=tolerance["rtol"], abs=tolerance["atol"]
        )
        assert ours["rows"].keys() == theirs["rows"].keys()
        for row, output in ours["rows"].items():
            its = theirs["rows"][row]
            length = min(
                len(output), len(its)
            )  # sentences are filled up to the longest of a process
            torch.testing.assert_close(output[:length], its[:length], **tolerance)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_what_each_process_holds(
    several: Callable[[str], Whole], one: One, kind: str, name: str
) -> None:
    """Shards have about one size, and are the whole together, twice for some layers."""
    held = [of_rank[name] for of_rank in several(kind)["held"]]
    of_one = one(kind, name)["held"]
    assert sum(held) >= of_one
    if CASES[kind][name].strategy.get("tensor_parallel_size"):
        assert max(held) < 0.8 * of_one  # embeddings and norms lie on both
    else:
        assert max(held) < of_one * (0.62 if "shards" in kind else 0.5)


LEGS = [
    marked(kind, name, leg)
    for kind in CASES
    for name in NAMES[kind]
    for leg in ("fsdp", "ddp", *(f"{start} -> fsdp" for start in STARTS), "fsdp -> ddp")
]
LEGS += [
    marked(kind, "AdamW", leg)
    for kind in ("shards", "more tensor")
    for leg in ("folder -> ddp", "first file -> fsdp", "first folder -> fsdp")
]


@pytest.mark.parametrize(("kind", "name", "leg"), LEGS)
def test_from_everywhere_to_everywhere(
    several: Callable[[str], Whole], one: One, kind: str, name: str, leg: str
) -> None:
    """A run that resumes within an epoch is that of one process; on the same shards to the bit."""
    legs = check(several(kind)["legs"])
    assert_close(legs[name, leg], one(kind, name))
    if leg in ("fsdp -> fsdp", "folder -> fsdp", "first file -> fsdp", "first folder -> fsdp"):
        for part in ("weights", "optimizer"):
            assert_same(legs[name, leg][part], legs[name, "fsdp"][part], part)


@pytest.mark.parametrize(("kind", "name"), STARTED)
@pytest.mark.parametrize("start", ["fsdp", "folder"])
def test_from_shards_to_one_process(
    several: Callable[[str], Whole], one: One, folder: Path, kind: str, name: str, start: str
) -> None:
    check(several(kind)["legs"])
    path = folder / kind / f"{start}-{name}.ckpt"
    assert path.is_dir() == (start == "folder")
    assert_close(sharded.leg(kind, name, start=path), one(kind, name))


@pytest.mark.parametrize(("kind", "name"), STARTED)
def test_a_folder_holds_what_a_file_holds(
    several: Callable[[str], Whole], folder: Path, kind: str, name: str
) -> None:
    check(several(kind)["legs"])
    file, parts = (
        load_checkpoint(folder / kind / f"{start}-{name}.ckpt") for start in ("fsdp", "folder")
    )
    assert_same(parts, file)
    from_one = load_checkpoint(folder / kind / f"one-{name}.ckpt")
    assert file.keys() == from_one.keys()
    assert {key: value.shape for key, value in file["state_dict"].items()} == {
        key: value.shape for key, value in from_one["state_dict"].items()
    }
    files = sorted((folder / kind / f"folder-{name}.ckpt").glob("*of*"))
    assert len(files) == PROCESSES[kind]
    if "shards" in kind:  # of what two hold alike one writes all
        assert max(path.stat().st_size for path in files) < 2 * min(
            path.stat().st_size for path in files
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_norm_of_all_gradients(several: Callable[[str], Whole], kind: str) -> None:
    """Some parameters are in no shard, and shards may be of different meshes."""
    norms = check(several(kind)["norms"])
    assert norms["ours"] == pytest.approx(norms["torch"], rel=1e-7)
    copies = {count for count, _, _ in norms["parts"].values()}
    assert copies == ({1, 2} if kind == "shards" else {1, 2, 4})


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_not_finite_are_named(several: Callable[[str], Whole], kind: str) -> None:
    said = several(kind)["not finite"]
    assert "training rows (counted from 0) whose loss is not: 7" in said
    assert said == sharded.guarded(kind, "auto", Toy(nan_row=7), FiniteLossGuard())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", DRIFTS)
def test_ranks_that_drift_apart_are_noticed(
    several: Callable[[str], Whole], kind: str, what: str | None
) -> None:
    """Only what several processes hold can drift; with tensor parallelism two hold one shard."""
    said = several(kind)[f"drift of {what}"]
    alone = what is None or (kind == "shards" and not what.startswith("balancer"))
    assert said.startswith(
        "" if alone else f"after step 3 the ranks hold different weights, first in {what}"
    ), said
    assert bool(said) != alone, said


def strategy(devices: int = 2, **settings: Any) -> FSDP:
    made = FSDP(**settings)
    made.parallel_devices = [torch.device("cpu")] * devices
    return made


def model(data: Any = Toy, **parts: Any) -> MultiTaskModel:
    made = MultiTaskModel(
        data().tasks, data().input_shape, **{"encoder": partial(MLP, width=8, depth=1), **parts}
    )
    made.configure_model()
    return made


TWO = {"tensor_parallel_size": 2}
TOKENS = {"data": Sentences, "encoder": partial(Transformer, width=9, heads=3, depth=1)}


@pytest.mark.parametrize(
    ("settings", "parts", "says"),
    [
        (
            {"tensor_parallel_size": 0},
            {},
            "strategy.tensor_parallel_size is 0; it must be at least 1",
        ),
        (
            {"tensor_parallel_size": 2, "devices": 3},
            {},
            "tensor_parallel_size is 2, which does not divide the 3 devices: use --devices 2 or 4",
        ),
        (
            TWO,
            {"sharing": MMoE},
            "no layer of MMoE with these encoders says how.*HardSharing.*or leave the setting at 1",
        ),
        (TWO, {"sharing": LearningToBranch}, "no layer of LearningToBranch"),
        (
            TWO,
            {"encoder": partial(MLP, width=9, depth=1)},
            "size 2 does not divide the 9 pieces of encoder.stages.1.0.body.1: its width",
        ),
        (
            TWO,
            TOKENS,
            "size 2 does not divide the 3 pieces of encoder.stages.1.0.queries_keys_values: "
            "its width, or its attention heads",
        ),
        ({"cpu_offload": True}, {}, "strategy.cpu_offload.*leave it out"),
        ({}, {"balancer": AutoLambda}, "AutoLambda moves whole parameters.*use --strategy ddp"),
    ],
)
def test_what_it_cannot_run_is_refused(
    settings: dict[str, Any], parts: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        strategy(**settings).check(model(**parts))


def test_what_it_can_run_is_not() -> None:
    strategy(4, tensor_parallel_size=2).check(model(sharing=HardSharing))
    strategy().check(model(sharing=MMoE))


# 14 steps an epoch; pictures, which read weights on the first rank alone
BRANCHES = (
    *(
        "--data",
        "tests.toy.Toy",
        "--max_epochs",
        3,
        "--model.encoder.width",
        12,
        "--model.encoder.dropout",
        0.2,
    ),
    *(
        "--watch.checkpoint_every",
        4,
        "--watch.figures_every",
        1,
        "--watch.geometry_every",
        5,
        "--watch.ranks_every",
        3,
    ),
    *("--strategy", "fsdp", "--devices", 2, "--accelerator", "cpu"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sharing", "how"),
    [("MMoE", "file"), ("MMoE", "folder"), ("LearningToBranch", "file")],
    ids=["MMoE", "folder", "branches"],
)
def test_killed_in_mid_epoch_and_evaluated_on_one(tmp_path: Path, sharing: str, how: str) -> None:
    flags = (*BRANCHES, "--model.sharing", sharing, "--strategy.checkpoint", how)
    whole = train(tmp_path, *flags, name="whole")
    kill = KillAt.flags(18, tmp_path / "marker", rank=1)
    launch("src.train", "--logs", tmp_path, "--name", "killed", *flags, *kill, code=1)
    killed = only_run(tmp_path / "killed")
    assert load_checkpoint(killed / "checkpoints" / "last.ckpt")["global_step"] < 18
    launch("src.train", "--resume", killed)
    for which in ("last", "best"):
        ours, theirs = (
            load_checkpoint(run / "checkpoints" / f"{which}.ckpt") for run in (killed, whole)
        )
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "metrics"):
            assert_same(ours[part], theirs[part], part)
    assert read_json(killed / "metrics.json") == read_json(whole / "metrics.json")
    launch(
        "src.evaluate",
        "--run",
        killed,
        "--devices",
        1,
        "--strategy",
        "auto",
        "--out",
        tmp_path / "found.json",
    )
    assert read_json(tmp_path / "found.json") == pytest.approx(
        read_json(killed / "metrics.json")["test"], rel=1e-5
    )


@pytest.mark.slow
def test_the_run_as_a_person_starts_it(tmp_path: Path) -> None:
    """One process from the same flags, and from the checkpoint of two."""
    flags = (*BRANCHES[:-6], "--model.sharing", "MMoE", "--accelerator", "cpu")
    one, two = (
        train(tmp_path, *flags, name="one"),
        train(tmp_path, *BRANCHES, "--model.sharing", "MMoE", name="two"),
    )
    ours, theirs = checkpoint(two, "last"), checkpoint(one, "last")
    torch.testing.assert_close(
        dict(ours["state_dict"]), dict(theirs["state_dict"]), rtol=1e-5, atol=1e-6
    )
    for stage in ("validation", "test"):
        assert read_json(two / "metrics.json")[stage] == pytest.approx(
            read_json(one / "metrics.json")[stage], rel=1e-5
        )
