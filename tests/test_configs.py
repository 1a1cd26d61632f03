"""Every YAML in configs/ runs for a step."""

import inspect
from pathlib import Path

import pytest
import yaml

from src.cli.comparison import Comparison
from src.cli.entrypoint import quiet
from src.cli.flags import split_flags
from src.cli.study_call import read_call
from src.data.tables.table import Table
from src.train import train
from tests.data.images.made_images import make_table
from tests.data.images.made_omniglot import write_omniglot
from tests.data.images.test_celeba import write_celeba
from tests.data.images.test_multi_mnist import write_mnist
from tests.data.molecules.made_molecules import write_molecules, write_qm9, write_tox21
from tests.data.pixels.dense_files import write_folder, write_nuclei, write_published
from tests.data.several_inputs import write_table
from tests.data.treebanks.made_treebanks import write_treebank
from tests.launching import ROOT, only_run, read_json

ADULT = (
    "39, State-gov, 7, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, "
    "White, Male, 2174, 0, 40, United-States, <=50K",
    "50, Private, 8, HS-grad, 9, Married-civ-spouse, Sales, Husband, "
    "Black, Female, 0, 0, 13, Cuba, >50K",
    "38, ?, 9, HS-grad, 9, Divorced, ?, Own-child, "
    "White, Female, 0, 1902, 55, United-States, <=50K",
    "28, Private, 9, Masters, 14, Never-married, Sales, Unmarried, "
    "White, Male, 0, 0, 60, Mexico, >50K",
)

# what a model needs for data that are no vectors, or no rows, where the config names none
MODELS = {
    "episodes": ["--model.meta", "ANIL"],
    "omniglot": ["--model.encoder.width", "8"],
    "sinusoids": ["--model.meta", "MAML", "--model.encoder.width", "8"],
    "qm9": ["--model.encoder", "MessagePassing"],
    "treebank": ["--model.encoder", "BiLSTM"],
}


@pytest.fixture
def data(tmp_path: Path) -> dict[str, list[str]]:
    """Small files of the form that a config's data has, as flags."""
    (tmp_path / "adult.data").write_text("\n".join(ADULT * 30) + "\n")
    (tmp_path / "adult.test").write_text(
        "|1x3 Cross validator\n" + "\n".join(line + "." for line in ADULT * 5) + "\n"
    )
    people = "\n".join(f"{20 + i % 40},{i % 2},{i / 7}" for i in range(100))
    (tmp_path / "people.csv").write_text(f"age,income,hours\n{people}\n")
    scenes = write_folder(tmp_path / "dense")
    nyuv2 = write_published(tmp_path / "nyuv2")
    cityscapes = write_published(tmp_path / "cityscapes", classes=7, normals=False)
    nuclei = write_nuclei(tmp_path / "nuclei")
    # a full encoder would take a minute for a step
    small = ["--model.encoder", "UNet", "--model.encoder.width", "4", "--model.encoder.depth", "1"]
    write_mnist(tmp_path / "mnist", train=600, test=40)
    write_celeba(tmp_path / "celeba")
    omniglot = str(write_omniglot(tmp_path / "omniglot"))
    alphabets = ["--data.val_classes", "[Latin]", "--data.test_classes", "[Greek]"]
    few = ["--data.ways", "3", "--data.val_episodes", "2", "--data.test_episodes", "4"]
    images = make_table(tmp_path / "pictures")
    folder = ["--data.root", str(images.parent / "images"), "--data.targets", "[side, red]"]
    tiny = ["--data.size", "16", "--data.num_workers", "0", "--model.encoder.width", "8"]
    offers = str(write_table(tmp_path / "offers"))
    several = ["--data.path", offers, "--data.targets", "[mood, hours]"]
    return {
        "celeba": ["--data.root", str(tmp_path / "celeba"), *tiny],
        "data/omniglot": ["--data.root", omniglot],
        "experiment/omniglot": ["--data.source.root", omniglot, *alphabets, *few],
        "image_table": ["--data.path", str(images), *folder],
        "multi_mnist": ["--data.root", str(tmp_path / "mnist")],
        "multi-mnist": ["--data.root", str(tmp_path / "mnist")],
        "cityscapes": ["--data.root", str(cityscapes), *small],
        "dense": ["--data.root", str(scenes), *small],
        "nuclei": ["--data.root", str(nuclei), *small],
        "nyuv2": ["--data.root", str(nyuv2), *small],
        "adult": ["--data.root", str(tmp_path)],
        "adult-fair": ["--data.root", str(tmp_path)],
        "molecules": ["--data.path", write_molecules(tmp_path), "--data.targets", "[ring, acid]"],
        "qm9": ["--data.root", write_qm9(tmp_path), "--data.num_workers", "0"],
        "tox21": ["--data.root", write_tox21(tmp_path)],
        "treebank": ["--data.root", str(write_treebank(tmp_path / "treebank"))],
        "table": ["--data.path", str(tmp_path / "people.csv")],
        "text": ["--data.path", offers, "--data.targets", "[mood, hours]"],
        "fusion": [*several, "--data.image_size", "16"],
    }


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, marks=pytest.mark.slow if p.name == "resnet.yaml" else ())
        for p in sorted((ROOT / "configs").rglob("*.yaml"))
        if p.parent.name not in ("study", "sweep")  # no configurations of one run
    ],
    ids=lambda p: str(p.relative_to(ROOT / "configs")),
)
def test_runs_for_a_step(path: Path, data: dict[str, list[str]], tmp_path: Path) -> None:
    quiet()
    group = path.parent.name
    words = (
        ["--config", str(path)]
        if group in ("configs", "debug", "experiment")
        else [f"--{group}", str(path)]
    )
    if group == "data":
        words += MODELS.get(path.stem, [])
    limits = ["--max_epochs", "1", "--trainer.limit_train_batches", "2"]
    if path.name == "overfit.yaml":
        limits[2:] = []
    if path.name == "ddp.yaml":
        limits += ["--devices", "1"]  # several processes are launched elsewhere
    files = data.get(f"{group}/{path.stem}", data.get(path.stem, []))
    train([*words, *files, *limits, "--logs", str(tmp_path / "logs"), "--name", "x"])
    run = only_run(tmp_path / "logs" / "x")
    assert read_json(run / "run.json")["sessions"][-1]["status"] == "finished"
    assert read_json(run / "run.json")["sessions"][-1]["steps"] in (1, 2)
    metrics = read_json(run / "metrics.json")["test"]
    assert all(
        value > 0
        for key, value in metrics.items()
        if key.startswith("test/") and key.endswith("/loss")
    )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "study").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_study_can_be_planned(path: Path, data: dict[str, list[str]], tmp_path: Path) -> None:
    """Each row is built, and each trial's configuration is resolved."""
    quiet()
    words = ["--config", str(path), *data.get(path.stem, []), "--logs", str(tmp_path)]
    if path.stem == "table":
        words += ["--data.targets", "[income, hours]"]
    comparison = Comparison(read_call(split_flags(words)))
    run, plan = comparison.walk()
    assert plan.total >= len(comparison.study.variants)
    assert len(plan.left) == len(plan.works)
    for row in run.record["rows"]:
        folds = comparison.study.folds or 1
        seeds = 1 if row["role"] == "reference" else len(comparison.study.seeds)
        assert len(row["replicates"]) == folds * seeds


def test_the_table_config_states_every_setting() -> None:
    stated = yaml.safe_load((ROOT / "configs/data/table.yaml").read_text())["init_args"]
    defaults = {
        key: p.default
        for key, p in inspect.signature(Table).parameters.items()
        if key not in ("schema_path", "seed")
    }
    assert stated.keys() == defaults.keys()
    for key in defaults.keys() - {"path", "targets"}:
        assert (stated[key] or None) == (defaults[key] or None), key
