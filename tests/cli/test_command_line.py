"""The command line: aliases, layers of files and flags, classes by short name."""

import inspect
import itertools
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.cli.aliases import ALIASES
from src.files.yaml12 import load
from src.monitoring import Watch
from tests.cli.calling import call, refused, table, words_for_table

CONFIGS = Path(__file__).parents[2] / "configs"


def resolved(*words: object) -> dict[str, Any]:
    """What --print_config shows for a command line."""
    ended = call("train", *words, "--print_config")
    assert (ended.code, ended.err) == (0, "")
    return yaml.safe_load(ended.out)


def write(path: Path, content: Any) -> Path:
    """Writes a YAML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


# -- aliases ---------------------------------------------------------------------------------------
VALUES = {
    "devices": "2",
    "strategy": "ddp",
    "accelerator": "cpu",
    "num_nodes": "3",
    "precision": "bf16-mixed",
    "max_epochs": "7",
    "max_steps": "9",
    "fast_dev_run": "true",
    "overfit_batches": "5",
    "batch_size": "48",
    "lr": "0.25",
    "seed": "11",
}


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_a_second_spelling(alias: str) -> None:
    value = VALUES[alias]
    spellings = (
        [f"--{alias}={value}"],
        [f"--{alias}", value],
        [f"--{ALIASES[alias]}={value}"],
        [f"--{ALIASES[alias]}", value],
    )
    results = [resolved(*words) for words in spellings]
    assert all(result == results[0] for result in results)
    assert results[0] != resolved()


def test_the_last_flag_counts_whatever_its_spelling() -> None:
    assert resolved("--max_epochs", 2, "--trainer.max_epochs", 3)["trainer"]["max_epochs"] == 3
    assert resolved("--trainer.max_epochs", 3, "--max_epochs=2")["trainer"]["max_epochs"] == 2


def test_a_flag_that_needs_no_value() -> None:
    assert resolved("--fast_dev_run")["trainer"]["fast_dev_run"] is True
    assert resolved("--fast_dev_run", "--lr", 0.1) == resolved(
        "--lr", 0.1, "--fast_dev_run", "true"
    )


# -- layers ----------------------------------------------------------------------------------------
def test_files_merge_deeply(tmp_path: Path) -> None:
    tasks = {
        "income": {"weight": 2.0},
        "hours": {"class_path": "Regression", "init_args": {"loss": "huber", "delta": 2.0}},
    }
    data = {"path": "x.csv", "targets": ["income", "hours"], "tasks": tasks}
    first = {
        "data": {"class_path": "Table", "init_args": data},
        "trainer": {"max_epochs": 9, "gradient_clip_val": 0.5},
    }
    second = {
        "data": {"init_args": {"tasks": {"hours": {"init_args": {"delta": 3.0}}}}},
        "trainer": {"max_epochs": 11},
    }
    one, two = write(tmp_path / "one.yaml", first), write(tmp_path / "two.yaml", second)
    result = resolved("--config", one, "--config", two)
    merged = result["data"]["init_args"]["tasks"]
    assert merged["income"] == {"weight": 2.0}
    assert merged["hours"] == {
        "class_path": "Regression",
        "init_args": {"loss": "huber", "delta": 3.0},
    }
    assert (result["trainer"]["max_epochs"], result["trainer"]["gradient_clip_val"]) == (11, 0.5)
    assert resolved("--config", two, "--config", one)["trainer"]["max_epochs"] == 9
    assert (
        resolved("--config", one, "--max_epochs", 3)["trainer"]["max_epochs"] == 3
    )  # flags come after files, wherever they stand
    assert resolved("--max_epochs", 3, "-c", one)["trainer"]["max_epochs"] == 3


def test_settings_may_stand_right_below_a_class_as_in_flags(tmp_path: Path) -> None:
    model = {"encoder": {"width": 24}, "optimizer": {"lr": 0.5}}
    short = write(tmp_path / "short.yaml", {"model": model, "data": {"batch_size": 32}})
    assert resolved("--config", short) == resolved(
        "--model.encoder.width", 24, "--lr", 0.5, "--batch_size", 32
    )


def test_short_and_dotted_keys_may_stand_in_files(tmp_path: Path) -> None:
    short = write(
        tmp_path / "short.yaml",
        {"lr": 0.5, "max_epochs": 2, "model.encoder.width": 24, "model": {"encoder.depth": 1}},
    )
    words = (
        "--lr",
        0.5,
        "--max_epochs",
        2,
        "--model.encoder.width",
        24,
        "--model.encoder.depth",
        1,
    )
    assert resolved("--config", short) == resolved(*words)
    beside = write(
        tmp_path / "beside.yaml", {"model": {"encoder": {"class_path": "ConvNet", "width": 24}}}
    )
    assert resolved("--config", beside) == resolved(
        "--model.encoder", "ConvNet", "--model.encoder.width", 24
    )
    assert resolved(f"-c={short}") == resolved("--config", short)


def test_flags_touch_one_setting_of_one_task(tmp_path: Path) -> None:
    tasks = {"income": {"weight": 2.0}, "hours": "Regression"}
    data = {"path": "x.csv", "targets": ["income", "hours"], "tasks": tasks}
    path = write(tmp_path / "config.yaml", {"data": {"class_path": "Table", "init_args": data}})
    result = resolved(
        "--config", path, "--data.tasks.hours.loss", "mae", "--data.tasks.income.pos_weight", 3
    )["data"]["init_args"]
    assert result["tasks"]["income"] == {"weight": 2.0, "pos_weight": 3}
    assert result["tasks"]["hours"] == {"class_path": "Regression", "init_args": {"loss": "mae"}}


def test_files_are_found_beside_the_file_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {
        "class_path": "Table",
        "init_args": {"path": "../tables/a.csv", "test_path": "/there/b.csv", "targets": ["x"]},
    }
    write(tmp_path / "configs/data/mine.yaml", data)
    path = write(
        tmp_path / "configs/experiment/one.yaml", {"data": "../data/mine.yaml", "name": "one"}
    )
    results = []
    for folder in (tmp_path, path.parent, Path("/")):
        monkeypatch.chdir(folder)
        results.append(resolved("--config", path))
    monkeypatch.chdir(path.parent)
    results.append(resolved("--config", "one.yaml"))
    assert all(result == results[0] for result in results)
    settings = results[0]["data"]["init_args"]
    assert settings["path"] == str(tmp_path / "configs/tables/a.csv")
    assert settings["test_path"] == "/there/b.csv"


@pytest.mark.parametrize(
    "words",
    ["", "--model.encoder ConvNet --devices 2", "--model.optimizer SGD --model.scheduler null"],
)
def test_what_is_printed_can_be_fed_back(tmp_path: Path, words: str) -> None:
    once = resolved(*shlex.split(words))
    assert resolved("--config", write(tmp_path / "printed.yaml", once)) == once


def test_what_is_printed_of_a_table_can_be_fed_back(tmp_path: Path) -> None:
    words = [
        *words_for_table(tmp_path),
        "--data.tasks.income.weight",
        "2",
        "--data.tasks.hours",
        "Regression",
    ]
    once = resolved(*words)
    assert once["data"]["init_args"]["tasks"]["income"] == {"weight": 2}
    assert resolved("--config", write(tmp_path / "printed.yaml", once)) == once


def test_the_config_of_a_run_gives_the_same_config(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(table())
    words = [*words_for_table(tmp_path), "--name", "x", "--seed", "5"]
    assert call("train", *words).code == 0
    (run,) = (tmp_path / "logs/x").iterdir()
    assert resolved("--config", run / "config.yaml") == resolved(*words)


# -- classes ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("key", "short", "path"),
    [
        ("data", "Digits", "src.data.Digits"),
        ("model.encoder", "ConvNet", "src.models.encoders.convnet.ConvNet"),
        ("model.sharing", "HardSharing", "src.models.sharing.hard.HardSharing"),
        ("model.balancer", "StaticWeights", "src.balancing.static.StaticWeights"),
        ("model.optimizer", "SGD", "torch.optim.SGD"),
        ("model.scheduler", "WarmupCosine", "src.models.optimisation.warmup_cosine.WarmupCosine"),
    ],
)
def test_a_class_goes_by_its_short_name(tmp_path: Path, key: str, short: str, path: str) -> None:
    def class_of(*words: object) -> str:
        section = resolved(*words)
        for part in key.split("."):
            section = section[part]
        return section["class_path"].rpartition(".")[2]

    assert class_of(f"--{key}", short) == class_of(f"--{key}", path) == short
    nested: Any = {"class_path": short}
    for part in reversed(key.split(".")):
        nested = {part: nested}
    assert class_of("--config", write(tmp_path / "config.yaml", nested)) == short


def defaults(class_path: str) -> dict[str, Any]:
    """A class's own settings, from its signature."""
    module, _, name = class_path.rpartition(".")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters.values()
    return {
        p.name: list(p.default) if isinstance(p.default, tuple) else p.default
        for p in parameters
        if p.default is not p.empty
    }


def test_no_setting_of_a_replaced_class_stays(tmp_path: Path) -> None:
    encoder = {"class_path": "MLP", "init_args": {"width": 99, "depth": 7, "dropout": 0.5}}
    optimizer = {
        "class_path": "torch.optim.AdamW",
        "init_args": {"lr": 0.7, "weight_decay": 0.3, "maximize": True},
    }
    first = write(tmp_path / "first.yaml", {"model": {"encoder": encoder, "optimizer": optimizer}})
    second = {
        "model": {
            "encoder": {"class_path": "ConvNet"},
            "optimizer": {"class_path": "torch.optim.SGD"},
        }
    }
    by_file = resolved("--config", first, "--config", write(tmp_path / "second.yaml", second))[
        "model"
    ]
    by_flag = resolved("--config", first, "--model.encoder", "ConvNet", "--model.optimizer", "SGD")[
        "model"
    ]
    for model in (by_file, by_flag):
        for part in ("encoder", "optimizer"):
            stated, own = model[part]["init_args"], defaults(model[part]["class_path"])
            assert stated == {key: own[key] for key in stated}
    both_ways = resolved("--config", first, "--model.encoder", "ConvNet", "--model.encoder", "MLP")[
        "model"
    ]["encoder"]["init_args"]
    assert both_ways == defaults("src.models.encoders.MLP")


def test_the_order_of_flags_does_not_matter() -> None:
    flags = [
        "--model.optimizer=SGD",
        "--lr=0.2",
        "--model.optimizer.momentum=0.9",
        "--model.encoder.depth=1",
    ]
    flags.append("--model.encoder=ConvNet")
    results = [
        resolved(*order) for order in itertools.islice(itertools.permutations(flags), 0, None, 11)
    ]
    assert all(result == results[0] for result in results)
    model = results[0]["model"]
    assert model["optimizer"]["init_args"]["momentum"] == 0.9
    assert (model["optimizer"]["init_args"]["lr"], model["encoder"]["init_args"]) == (
        0.2,
        {"width": 32, "depth": 1},
    )


# -- the shipped files -----------------------------------------------------------------------------
@pytest.mark.parametrize("path", sorted(CONFIGS.glob("model/*.yaml")), ids=lambda path: path.stem)
def test_model_files_state_class_defaults(tmp_path: Path, path: Path) -> None:
    """A value that differs from its class's default would be lost unseen when another layer names
    the class.
    """
    stated = load(path.read_text())
    shown = resolved("--config", write(tmp_path / "config.yaml", {"model": str(path)}))["model"]
    for part, value in stated.items():
        if isinstance(value, dict) and value:
            own = defaults(shown[part]["class_path"])
            settings = value.get(
                "init_args", {key: item for key, item in value.items() if key != "class_path"}
            )
            assert settings == {key: own[key] for key in settings}, part


def test_train_yaml_states_class_defaults() -> None:
    stated = load((CONFIGS / "train.yaml").read_text())
    watch = {
        name: parameter.default for name, parameter in inspect.signature(Watch).parameters.items()
    }
    assert stated["watch"] == {key: watch[key] for key in stated["watch"]}
    data = load((CONFIGS / stated["data"]).read_text())
    own = defaults(f"src.data.{data['class_path']}")
    assert data["init_args"] == {key: own[key] for key in data["init_args"]}


# -- abbreviations ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "flag",
    [
        "--trainer.max_epoch",
        "--max_epoch",
        "--device",
        "--model.enc",
        "--data.batch",
        "--seed_every",
    ],
)
def test_abbreviations_are_refused(flag: str) -> None:
    refused(call("train", flag, 3), ["unknown key", flag.removeprefix("--")])
