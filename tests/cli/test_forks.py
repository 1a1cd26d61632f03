"""A fork's own classes: what is wrong with one is said in a line, with the way out."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import src.tasks
from src.balancing import (
    Coordinates,
    GradientBalancer,
    GramianBalancer,
    LossBalancer,
    Problem,
    TaskLosses,
)
from src.batch import InputShape
from src.models.encoders import MLP, Encoder
from src.models.encoders.convnet import ConvNet
from tests.cli.calling import call, refused
from tests.launching import ROOT, environment

TOY = [
    "--data",
    "tests.toy.Toy",
    "--accelerator",
    "cpu",
    "--model.encoder.width",
    "8",
    "--fast_dev_run",
]


# -- files -----------------------------------------------------------------------------------------
BROKEN: dict[str, tuple[str | bytes, list[str]]] = {
    "syntax": ("x = 1\ndef f(:\n", ["line 2", "SyntaxError"]),
    "indentation": ("def f():\nreturn 1\n", ["line 2", "IndentationError", "indented block"]),
    "a name that is not there": (
        "\n\nfrom src.tasks import Nothing\n",
        ["line 3", "ImportError", "Nothing"],
    ),
    "a package that is not there": (
        "import none_such\n",
        ["line 1", "ModuleNotFoundError", "none_such"],
    ),
    "a slip": ("class Mine(Task):\n    pass\n", ["line 1", "NameError", "'Task'"]),
    "no text": (b"\xff\xfe\x00", ["mine.py"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    content, says = BROKEN[name]
    (tmp_path / "mine.py").write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(src.tasks, "__path__", [*src.tasks.__path__, str(tmp_path)])
    monkeypatch.setattr("src.errors.SOURCES", tmp_path)
    refused(call("train", *TOY), [f"{tmp_path.name}/mine.py", *says, "mend it"])


@pytest.fixture(scope="module")
def fork(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, with a class of another's name."""
    here = tmp_path_factory.mktemp("fork")
    for name in ("src", "configs"):
        shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
    for package, file, name in (
        ("models.encoders", "mlp", "MLP"),
        ("tasks", "regression", "Regression"),
    ):
        content = f'"""Mine."""\n\nfrom src.{package} import {file}\n\n\n'
        content += f'class {name}({file}.{name}):\n    """Mine."""\n'
        (here / "src" / package.replace(".", "/") / "aaa.py").write_text(content)
    return here


def trained(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What the verb says in that folder."""
    command = [sys.executable, "-m", "src.train", *words]
    return subprocess.run(
        command, cwd=here, env=environment(), capture_output=True, text=True, timeout=100
    )


@pytest.mark.slow
def test_a_class_with_the_name_of_another(fork: Path) -> None:
    flags = (
        "--data",
        "Table",
        "--data.path",
        "x",
        "--data.targets",
        "[a]",
        "--data.tasks.a",
        "Regression",
        "--print_config",
    )
    done = trained(fork, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "note: MLP is src.models.encoders.mlp.MLP; for the other of this name write "
        "src.models.encoders.aaa.MLP",
        "note: Regression is src.tasks.regression.Regression; for the other of this name write "
        "src.tasks.aaa.Regression",
    ]
    assert re.search(r"class_path: src.models.encoders.(mlp.)?MLP\n", done.stdout)
    assert "class_path: src.tasks.regression.Regression\n" in done.stdout


def test_a_broken_file_is_named_once_whatever_imports_it(fork: Path) -> None:
    (fork / "src/tasks/mine.py").write_text("def f(:\n")
    with (fork / "src/tasks/__init__.py").open("a") as file:
        file.write("from src.tasks.mine import f\n")
    done = trained(fork, "--devices", "2", "--accelerator", "cpu")
    assert done.returncode != 0
    assert done.stderr.startswith(
        "error: src/tasks/mine.py cannot be imported: line 1: SyntaxError"
    ), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


# -- encoders --------------------------------------------------------------------------------------
class WrongSize(MLP):
    """Says 32."""

    def __init__(self, shape: InputShape, width: int = 16) -> None:
        super().__init__(shape, width)
        self.features = 32


class NoSize(Encoder):
    """Says nothing."""

    def __init__(self, shape: InputShape, width: int = 16) -> None:
        super().__init__(shape)
        self.stages = nn.Sequential(nn.Linear(shape.dense[0], width))


class NoStages(Encoder):
    """Has none."""

    def __init__(self, shape: InputShape, width: int = 16) -> None:
        super().__init__(shape)
        self.features = width


ENCODERS = {
    "WrongSize": ["WrongSize", "32", "puts out 8", "self.features = 8"],
    "NoSize": ["NoSize", "self.features"],
    "NoStages": ["NoStages", "self.stages", "nn.Sequential"],
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("sharing", ["HardSharing", "MMoE"])
def test_an_encoder_that_breaks_its_contract(name: str, sharing: str) -> None:
    path = f"tests.cli.test_forks.{name}"
    refused(
        call("train", *TOY, "--model.encoder", path, "--model.sharing", sharing), ENCODERS[name]
    )


def test_an_image_encoder_whose_channels_are_not_last() -> None:
    class First(ConvNet):
        def __init__(self, shape: InputShape) -> None:
            super().__init__(shape, width=4, depth=1)
            self.stages = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1))

    with pytest.raises(ValueError, match=r"features have size 4.* puts out 8 .*channels come last"):
        First(InputShape((1, 8, 8))).check(InputShape((1, 8, 8)))


# -- balancers -------------------------------------------------------------------------------------
class OneWeight(LossBalancer):
    """One for all."""

    def weigh(self, losses: TaskLosses) -> Tensor:
        return losses.global_T.mean()


class NoTotal(LossBalancer):
    """No scalar."""

    def weigh(self, losses: TaskLosses) -> Tensor:
        return torch.ones_like(losses.global_T)

    def total(self, losses: TaskLosses, weights_T: Tensor) -> Tensor:
        return weights_T * losses.local_T


class Whole(GramianBalancer):
    """A matrix."""

    def weigh(self, problem: Problem) -> np.ndarray:
        return problem.G


class Listed(GramianBalancer):
    """A list."""

    def weigh(self, problem: Problem) -> Any:
        return [1.0] * len(problem.G)


class Rows(GradientBalancer):
    """All rows."""

    def combine(self, rows_TN: Tensor, losses: TaskLosses, where: Coordinates) -> Tensor:
        return rows_TN


BALANCERS = {
    "OneWeight": ["OneWeight.weigh", "shape ()", "must return shape (8,), a weight for each task"],
    "NoTotal": ["NoTotal.total", "shape (8,)", "a scalar"],
    "Whole": ["Whole.weigh", "shape (8, 8)", "must return shape (8,)"],
    "Listed": ["Listed.weigh", "a list", "must return shape (8,)"],
    "Rows": ["Rows.combine", "must return shape"],
}


@pytest.mark.parametrize("name", BALANCERS)
def test_a_balancer_of_a_wrong_shape(tmp_path: Path, name: str) -> None:
    words = ["--model.balancer", f"tests.cli.test_forks.{name}", "--logs", tmp_path / "logs"]
    refused(call("train", *TOY, *words), BALANCERS[name])


# -- settings of torch's and the environment -------------------------------------------------------
@pytest.mark.parametrize("name", ["SparseAdam", "LBFGS", "Muon", "torch.optim.SparseAdam"])
def test_an_optimizer_that_cannot_train_a_model(name: str) -> None:
    refused(
        call("train", *TOY, "--model.optimizer", name),
        ["model.optimizer", name.rpartition(".")[2], "AdamW"],
    )


LONE: dict[str, list[str]] = {
    "RANK": ["RANK is 1", "unset RANK", "torchrun"],
    "LOCAL_RANK": ["LOCAL_RANK is 1", "unset LOCAL_RANK"],
    "SLURM_PROCID": ["SLURM_PROCID is 1", "unset SLURM_PROCID"],
    "NODE_RANK": ["NODE_RANK is 1", "unset NODE_RANK", "--num_nodes"],
    "GROUP_RANK": ["GROUP_RANK is 1", "unset GROUP_RANK"],
}


@pytest.mark.parametrize("name", LONE)
def test_a_rank_that_no_launcher_has_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    refused(call("train", *TOY, "--logs", tmp_path / "logs"), LONE[name])
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(("name", "value"), [("RANK", "0"), ("WORLD_SIZE", "2")])
def test_what_does_no_harm_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert call("train", *TOY).code == 0


def test_a_class_of_data_that_lacks_a_setting_points_to_its_file() -> None:
    refused(
        call("train", "--data", "Sources"),
        ["data.sources is missing", "--data configs/data/sources.yaml"],
    )
