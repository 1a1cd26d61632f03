"""Every mistake gets one line that names the key, file, column or row and what would be right, and
exit code 2.
"""

import errno
import os
import shlex
import shutil
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from src.checkpoint import load_checkpoint
from src.run import Run
from tests.cli.calling import ROWS, call, refused, table, with_cell, words_for_table
from tests.launching import finish, start
from tests.toy import Toy

TOY = [
    "--data",
    "tests.toy.Toy",
    "--accelerator",
    "cpu",
    "--max_epochs",
    "1",
    "--model.encoder.width",
    "8",
]
Content = str | bytes | None

# -- tables: content of table.csv, further flags, words of the message -----------------------------
TABLES: dict[str, tuple[Content, str, list[str]]] = {
    "missing file": (None, "", ["table.csv", "no such file"]),
    "empty file": ("", "", ["table.csv", "empty"]),
    "header only": (table(0), "", ["table.csv", "no rows"]),
    "semicolons": (table().replace(",", ";"), "", ["--data.delimiter ';'"]),
    "tabs": (table().replace(",", "\t"), "", [r"--data.delimiter '\t'"]),
    "wrong delimiter": (table(), "--data.delimiter ';'", ["--data.delimiter ','"]),
    "long delimiter": (table(), "--data.delimiter ';;'", ["data.delimiter", "one character"]),
    "not utf-8": (with_cell("city", 5, "Malm\xf6").encode("latin1"), "", ["table.csv", "UTF-8"]),
    "utf-16": (table().encode("utf-16"), "", ["table.csv", "UTF-8"]),
    "row too long": (
        table() + "1,2,3,4,5,6,7,8\n",
        "",
        ["table.csv", f"line {ROWS + 2}", "Expected 6"],
    ),
    "open quote": (table() + '"open,1,2', "", ["table.csv", "string"]),
    "column named twice": (table().replace("age,city", "age,age", 1), "", ["'age'", "unique"]),
    "no parquet": (
        table(),
        "--data.path {here}/table.parquet",
        ["table.parquet", "not a parquet file"],
    ),
    "no gzip": (table(), "--data.path {here}/table.csv.gz", ["table.csv.gz", "gzip"]),
    "unknown ending": (
        table(),
        "--data.path {here}/table.xls",
        ["table.xls", ".csv, .tsv or .parquet"],
    ),
    "unknown target": (
        table(),
        "--data.targets [incom,hours]",
        ["data.targets", "'incom'", "did you mean 'income'"],
    ),
    "unknown input": (table(), "--data.inputs [agee]", ["data.inputs", "'agee'", "age"]),
    "unknown id": (table(), "--data.id number", ["data.id", "'number'", "there are age, city"]),
    "target as input": (
        table(),
        "--data.inputs [age,income]",
        ["data.inputs", "'income'", "target"],
    ),
    "no input left": (table(), "--data.inputs [age] --data.drop [age]", ["no input column"]),
    "target named twice": (
        table(),
        "--data.targets [income,income]",
        ["data.targets", "income, income"],
    ),
    "targets no list": (table(), "--data.targets 5", ["data.targets", "list", "5"]),
    "text in numbers": (
        with_cell("age", 17, "old"),
        "",
        ["row 17", "'age'", "'old'", "data.missing"],
    ),
    "text in numeric target": (with_cell("hours", 17, "many"), "", ["row 17", "'hours'", "'many'"]),
    "text in a regression": (
        table(),
        "--data.tasks.income Regression",
        ["row 1", "'income'", "'low'", "number"],
    ),
    "infinite input": (with_cell("age", 9, "inf"), "", ["row 9", "'age'", "not finite"]),
    "infinite target": (with_cell("hours", 9, "-inf"), "", ["row 9", "'hours'", "finite"]),
    "dates": (
        table(day=[f"2026-01-{1 + i % 28:02}" for i in range(ROWS)]),
        "",
        ["'day'", "--data.dates expand", "--data.drop"],
    ),
    "target all missing": (table(income=[None] * ROWS), "", ["'income'", "no label", "training"]),
    "target missing in training": (
        table(income=["low" if i % 5 > 2 else None for i in range(ROWS)]),
        "--data.split_column stage",
        ["'income'", "no label", "training"],
    ),
    "single class": (table(income=["low"] * ROWS), "", ["'income'", "single value 'low'"]),
    "label far from all others": (
        with_cell("hours", 5, "3e38"),
        "--data.split_column stage",
        ["row 5", "'hours'", "3e+38"],
    ),
    "constant regression": (
        table(hours=[3.5] * ROWS),
        "--data.tasks.hours Regression",
        ["'hours'", "single value"],
    ),
    "class only in validation file": (
        table(),
        "--data.val_path {here}/val.csv",
        ["val.csv row 3", "'income'", "'huge'", "low"],
    ),
    "class only in test rows": (
        with_cell("income", 5, "huge"),
        "--data.split_column stage",
        ["row 5", "'income'", "'huge'"],
    ),
    "label outside the classes": (
        table(),
        "--data.targets [grade] --data.tasks.grade Classification --data.tasks.grade.classes [a,b]",
        ["row 2", "'grade'", "'c'", "a, b"],
    ),
    "three classes for two": (
        table(),
        "--data.targets [grade] --data.tasks.grade BinaryClassification",
        ["'grade'", "3 values"],
    ),
    "validation file lacks a column": (
        table(),
        "--data.val_path {here}/lacking.csv",
        ["lacking.csv", "'age'"],
    ),
    "no validation file": (
        table(),
        "--data.val_path {here}/none.csv",
        ["none.csv", "no such file"],
    ),
    "too few rows": (table(3), "", ["split has no rows", "3 rows"]),
    "a split that no row names": (
        table(stage=["train"] * ROWS),
        "--data.split_column stage",
        ["val split", "'stage'"],
    ),
    "bad split value": (
        with_cell("stage", 12, "trial"),
        "--data.split_column stage",
        ["row 12", "'trial'", "train, val or test"],
    ),
    "missing group": (
        with_cell("city", 12, ""),
        "--data.group city",
        ["row 12", "'city'", "group"],
    ),
    "one group": (
        table(city=["Rome"] * ROWS),
        "--data.group city",
        ["'city'", "1 groups, too few"],
    ),
    "group and split column": (
        table(),
        "--data.group city --data.split_column stage",
        ["data.group", "data.split_column"],
    ),
    "fraction out of range": (
        table(),
        "--data.val_fraction 1.5",
        ["data.val_fraction", "1.5", "[0, 1)"],
    ),
    "negative fraction": (
        table(),
        "--data.test_fraction=-0.1",
        ["data.test_fraction", "-0.1", "[0, 1)"],
    ),
    "fractions of everything": (
        table(),
        "--data.val_fraction .5 --data.test_fraction .5",
        ["val_fraction", "no rows to train"],
    ),
    "unknown choice": (
        table(),
        "--data.dates sometimes",
        ["data.dates", "'refuse' or 'expand'", "'sometimes'"],
    ),
    "settings of an unknown task": (
        table(),
        "--data.tasks.incme.weight 2",
        ["data.tasks", "'incme'", "income"],
    ),
    "unknown setting of a task": (
        table(),
        "--data.tasks.income.wieght 2",
        ["'income'", "'wieght'", "weight"],
    ),
    "unknown kind of task": (
        table(),
        "--data.tasks.income Clasification",
        ["'income'", "'Clasification'", "Classification"],
    ),
    "text for a task's number": (
        table(),
        "--data.tasks.income.weight heavy",
        ["'income'", "weight", "'heavy'", "number"],
    ),
    "number for a task's list": (
        table(),
        "--data.tasks.income.classes 5",
        ["'income'", "classes", "5", "list"],
    ),
    "unknown loss": (
        table(),
        "--data.tasks.hours.loss foo",
        ["'hours'", "'foo'", "mse, mae, huber"],
    ),
    "fraction for a task's whole number": (
        table(),
        "--data.tasks.income.depth 1.5",
        ["depth '1.5'", "whole number"],
    ),
    "truth for a task's number": (
        table(),
        "--data.tasks.income.pos_weight true",
        ["pos_weight", "number"],
    ),
    "word for a task's weights": (
        table(),
        "--data.targets [grade] --data.tasks.grade Classification "
        "--data.tasks.grade.class_weights heavy",
        ["'grade'", "class_weights 'heavy'", "a list or null"],
    ),
    "setting of a task without a value": (
        table(),
        "--data.tasks.income.weight",
        ["--data.tasks.income.weight needs a value"],
    ),
    "kind of a task without a value": (
        table(),
        "--data.tasks.income",
        ["--data.tasks.income needs a value"],
    ),
    "none to validate": (table(), "--data.val_fraction 0", ["val split", "data.val_fraction is 0"]),
    "a folder": (table(), "--data.path {here}", ["is a folder"]),
    "an address": (
        table(),
        "--data.path https://there/table.csv",
        ["https://there/table.csv", "address"],
    ),
    "broken value of a task": (
        table(),
        "--data.tasks.hours.loss [",
        ["--data.tasks.hours.loss", "YAML"],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path: Path, name: str) -> None:
    content, flags, says = TABLES[name]
    for other in ("table.parquet", "table.csv.gz", "table.xls"):
        (tmp_path / other).write_text(table())
    (tmp_path / "val.csv").write_text(with_cell("income", 3, "huge"))
    (tmp_path / "lacking.csv").write_text(table(without=["age"]))
    if content is not None:
        (tmp_path / "table.csv").write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
    refused(
        call("train", *words_for_table(tmp_path), *shlex.split(flags.format(here=tmp_path))), says
    )
    assert not (tmp_path / "logs").exists()  # refused before a run begins


def test_what_a_message_proposes_works(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(table().replace(",", "\t"))
    assert (
        call("train", *words_for_table(tmp_path), "--data.delimiter", r"\t", "--fast_dev_run").code
        == 0
    )
    (tmp_path / "table.csv").write_text(
        table(day=[f"2026-01-{1 + i % 28:02}" for i in range(ROWS)])
    )
    assert (
        call("train", *words_for_table(tmp_path), "--data.dates", "expand", "--fast_dev_run").code
        == 0
    )
    (tmp_path / "table.csv").write_text(with_cell("age", 17, "old"))
    assert (
        call("train", *words_for_table(tmp_path), "--data.missing", "[old]", "--fast_dev_run").code
        == 0
    )


# -- configuration files: content of config.yaml, words of the message -----------------------------
CONFIGS: dict[str, tuple[Content, list[str]]] = {
    "missing": (None, ["config.yaml", "No such file"]),
    "unknown section": (
        "modle:\n  encoder: MLP\n",
        ["'modle.encoder'", "'model.encoder'", "config.yaml"],
    ),
    "unknown key": (
        "model:\n  encodr: MLP\n",
        ["'model.encodr'", "'model.encoder'", "config.yaml"],
    ),
    "unknown key of the trainer": (
        "trainer:\n  max_epoch: 3\n",
        ["'trainer.max_epoch'", "'trainer.max_epochs'", "config.yaml"],
    ),
    "unknown key of a class": (
        "model:\n  encoder:\n    class_path: MLP\n    init_args:\n      widht: 9\n",
        ["'model.encoder.widht'", "'model.encoder.width'", "config.yaml"],
    ),
    "unknown key right below a class": (
        "data:\n  bach_size: 9\n",
        ["'data.bach_size'", "'data.batch_size'", "config.yaml"],
    ),
    "key of another class": (
        "model:\n  encoder:\n    class_path: ConvNet\n    init_args:\n      dropout: 0.1\n",
        ["'model.encoder.dropout'", "ConvNet knows width, depth", "config.yaml"],
    ),
    "unknown class": (
        "model:\n  encoder:\n    class_path: ConvNt\n",
        ["model.encoder", "'ConvNt'", "'ConvNet'", "config.yaml"],
    ),
    "wrong type": (
        "data:\n  init_args:\n    batch_size: many\n",
        ["data.batch_size", "int", "'many'", "config.yaml"],
    ),
    "list for a class": ("model:\n  encoder: [MLP]\n", ["model.encoder", "['MLP']", "config.yaml"]),
    "list for a section": ("trainer: [1]\n", ["trainer", "mapping", "config.yaml"]),
    "word for a section": ("model: mlp\n", ["model", "'mlp'", "mapping", "config.yaml"]),
    "empty section": ("trainer:\n", ["trainer", "mapping", "config.yaml"]),
    "broken brackets": ("model:\n  encoder: [MLP\nlogs: x\n", ["config.yaml", "line 3", "YAML"]),
    "tab": ("model:\n\tencoder: MLP\n", ["config.yaml", "line 2", "YAML"]),
    "code": (
        "name: !!python/object/apply:os.system ['touch here']\n",
        ["config.yaml", "line 1", "tag"],
    ),
    "binary": (b"\xff\xfe\x00\x01", ["config.yaml", "UTF-8"]),
    "a list": ("- model\n", ["config.yaml", "list", "mapping"]),
    "a word": ("model\n", ["config.yaml", "str", "mapping"]),
    "a key twice": (
        "trainer:\n  max_epochs: 2\n  max_epochs: 3\n",
        ["config.yaml", "line 3", "'max_epochs'", "twice"],
    ),
    "settings that are no mapping": (
        "model:\n  encoder:\n    class_path: MLP\n    init_args: 3\n",
        ["config.yaml", "model.encoder", "'3'", "mapping"],
    ),
    "typo of class_path": (
        "model:\n  encoder:\n    classpath: MLP\n",
        ["config.yaml", "'classpath'", "'class_path'"],
    ),
    "null for a number": (
        "model:\n  encoder:\n    width: null\n",
        ["model.encoder.width", "null", "MLP needs a value"],
    ),
    "null for a class": ("model:\n  balancer: null\n", ["model.balancer", "null"]),
    "unknown callback": (
        "trainer:\n  callbacks:\n  - class_path: EarlyStoping\n",
        ["trainer.callbacks", "'EarlyStopping'"],
    ),
    "reference to no file": ("data: data/none.yaml\n", ["data/none.yaml", "No such file"]),
    "reference to itself": ("data: config.yaml\n", ["config.yaml", "itself"]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(tmp_path: Path, name: str) -> None:
    content, says = CONFIGS[name]
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(call("train", "--config", path, "--logs", tmp_path / "logs"), says)
    assert not (tmp_path / "logs").exists()


# -- flags -----------------------------------------------------------------------------------------
FLAGS: dict[str, tuple[str, list[str]]] = {
    "unknown": ("--foo 3", ["'foo'", "--help"]),
    "typo": ("--trainer.max_epocs 3", ["'trainer.max_epocs'", "'trainer.max_epochs'"]),
    "typo of a short one": ("--batchsize 3", ["'batchsize'", "'batch_size'"]),
    "a stray word": ("train", ["'train'", "--key value"]),
    "a second value": ("--lr 0.1 0.2", ["'0.2'", "--key value"]),
    "no value": ("--max_epochs", ["--trainer.max_epochs", "value"]),
    "config without a file": ("--config", ["--config"]),
    "unknown encoder": ("--model.encoder MLPP", ["model.encoder", "'MLPP'", "'MLP'"]),
    "unknown data": ("--data Digit", ["data", "'Digit'", "'Digits'"]),
    "unknown balancer": ("--model.balancer StaticWeight", ["model.balancer", "'StaticWeights'"]),
    "contract of balancers": (
        "--model.balancer GramianBalancer",
        ["GramianBalancer is a contract", "PCGrad"],
    ),
    "unknown level": (
        "--model.balancer PCGrad --model.balancer.level all",
        ["model.balancer.level", "'features' or 'parameters'"],
    ),
    "a level that a method lacks": (
        "--model.balancer MoCo --model.balancer.level features",
        ["MoCo tracks", "level parameters"],
    ),
    "setting of a balancer": (
        "--model.balancer CAGrad --model.balancer.c=-1",
        ["CAGrad", "c -1", "at least 0"],
    ),
    "micro-batches at features": (
        "--model.balancer PCGrad --trainer.accumulate_grad_batches 2",
        ["PCGrad", "micro-batch", "--model.balancer.level parameters"],
    ),
    "micro-batches of a nonlinear method": (
        "--model.balancer LogSum --trainer.accumulate_grad_batches 2",
        ["LogSum", "accumulate_grad_batches 1"],
    ),
    "looks never": ("--watch.geometry_every=-3", ["watch.geometry_every", "at least 0"]),
    "conflict out of range": (
        "--data Synthetic --data.conflict 3",
        ["data.conflict", "3", "[-1, 1]"],
    ),
    "unknown optimizer": ("--model.optimizer AdamWW", ["model.optimizer", "'AdamW'"]),
    "far from any class": (
        "--model.encoder Kolmogorov",
        ["model.encoder", "'Kolmogorov'", "known are", "MLP"],
    ),
    "class of another role": (
        "--model.encoder HardSharing",
        ["model.encoder", "'HardSharing'", "known are", "MLP"],
    ),
    "no encoder": (
        "--model.encoder torch.nn.Linear",
        ["model.encoder", "torch.nn.Linear is no Encoder", "MLP"],
    ),
    "the contract of encoders": (
        "--model.encoder Encoder",
        ["model.encoder", "Encoder is a contract", "MLP"],
    ),
    "the contract of sharing": (
        "--model.sharing Sharing",
        ["model.sharing", "contract", "HardSharing"],
    ),
    "another case": ("--model.encoder mlp", ["'mlp'", "did you mean 'MLP'"]),
    "none in words": ("--model.scheduler None", ["model.scheduler", "write null"]),
    "a class for the model": ("--model MLP", ["--model MLP", "--model.encoder MLP"]),
    "a file for the data": (
        "--data people.csv",
        ["'people.csv'", "--data Table --data.path people.csv"],
    ),
    "a setting without its class": (
        "--model.weight_decay 1",
        ["'model.weight_decay'", "'model.optimizer.weight_decay'"],
    ),
    "a setting without its section": ("--min_steps 3", ["'min_steps'", "'trainer.min_steps'"]),
    "equals nothing": ("--lr=", ["--model.optimizer.lr needs a value"]),
    "a seed in words": ("--seed true", ["seed_everything", "expected int", "'True'"]),
    "a name elsewhere": ("--name ../../etc", ["--name ../../etc", "--logs"]),
    "a name from the root": ("--name /tmp/x", ["--name /tmp/x", "--logs"]),
    "negative multiplier": (
        "--model.lr_multipliers.digit=-1",
        ["model.lr_multipliers.digit", "-1", "at least 0"],
    ),
    "weight of no task": ("--model.weights.dgit 2", ["model.weights", "'dgit'", "digit"]),
    "negative weight": ("--model.weights.digit=-2", ["model.weights.digit", "-2", "at least 0"]),
    "negative clipping": (
        "--trainer.gradient_clip_val=-1",
        ["trainer.gradient_clip_val", "-1", "at least 0"],
    ),
    "validation every 0 epochs": (
        "--trainer.check_val_every_n_epoch 0",
        ["check_val_every_n_epoch", "at least 1"],
    ),
    "no patience": ("--watch.patience 0", ["watch.patience", "at least 1"]),
    "negative pictures": ("--watch.figures_every=-1", ["watch.figures_every", "at least 0"]),
    "a package that is not there": (
        "--trainer.logger WandbLogger --fast_dev_run",
        ["wandb", "pip install"],
    ),
    "unknown module": (
        "--model.encoder my.own.Encoder",
        ["model.encoder", "'my.own.Encoder'", "No module named 'my'"],
    ),
    "setting of another class": (
        "--model.encoder.dropout 0.1 --model.encoder ConvNet",
        ["model.encoder.dropout'", "ConvNet knows"],
    ),
    "setting of another data": (
        "--data.path x.csv",
        ["'data.path'", "Digits knows", "batch_size", "path is a setting of", "Table"],
    ),
    "folds of data without": (
        "--data Synthetic --data.folds 5",
        ["'data.folds'", "Synthetic knows", "folds is a setting of Adult", "Digits", "Table"],
    ),
    "a fold that is not there": (
        "--data.folds 5 --data.fold 5",
        ["data.fold is 5", "count from 0 to 4"],
    ),
    "setting of another optimizer": (
        "--model.optimizer SGD --model.optimizer.betas [1,1]",
        ["model.optimizer.betas", "SGD knows"],
    ),
    "required setting": ("--data Table", ["data.path", "missing"]),
    "required setting of torch's": (
        "--model.scheduler StepLR",
        ["model.scheduler.step_size", "missing"],
    ),
    "targets not named": ("--data Table --data.path x.csv", ["data.targets", "missing"]),
    "text for a whole number": ("--batch_size ten", ["data.batch_size", "int", "'ten'"]),
    "fraction for a whole number": ("--max_epochs 1.5", ["trainer.max_epochs", "int", "'1.5'"]),
    "text for a number": ("--lr fast", ["model.optimizer.lr", "float", "'fast'"]),
    "text for a class's number": (
        "--model.encoder.width wide",
        ["model.encoder.width", "int", "'wide'"],
    ),
    "none of the choices": (
        "--model.scheduler_interval never",
        ["model.scheduler_interval", "'step' or 'epoch'", "'never'"],
    ),
    "negative seed": ("--seed=-5", ["seed", "-5"]),
    "zero rows a step": ("--batch_size 0", ["data.batch_size", "0", "at least 1"]),
    "negative rows a step": (
        "--data.eval_batch_size=-1",
        ["data.eval_batch_size", "-1", "at least 1"],
    ),
    "negative workers": ("--data.num_workers=-1", ["data.num_workers", "-1", "from 0 to 256"]),
    "workers without end": ("--data.num_workers 1000000000", ["data.num_workers", "from 0 to 256"]),
    "zero devices": ("--devices 0", ["--devices", "0", "at least 1"]),
    "minus three devices": ("--devices=-3", ["--devices", "-3", "at least 1"]),
    "minus three devices, spaced": ("--devices -3", ["--devices", "-3", "at least 1"]),
    "devices in words": ("--devices two", ["--devices", "two", "number"]),
    "a list of CPUs": ("--accelerator cpu --devices [0,1]", ["--devices", "[0, 1]", "number"]),
    "more GPUs than there are": (
        "--accelerator gpu --devices 99",
        ["--devices", "99 GPUs", "this machine has"],
    ),
    "no nodes": ("--num_nodes 0", ["num_nodes", "0"]),
    "fewer rows than devices": (
        "--accelerator cpu --devices 2 --batch_size 1",
        ["data.batch_size", "1", "2 devices"],
    ),
    "unknown strategy": ("--strategy magic", ["strategy", "magic"]),
    "unknown precision": ("--precision 12", ["trainer.precision", "'12'", "'bf16-mixed'"]),
    "sampler of Lightning's": (
        "--trainer.use_distributed_sampler true",
        ["trainer.use_distributed_sampler", "false"],
    ),
    "no accumulation": (
        "--trainer.accumulate_grad_batches 0",
        ["trainer.accumulate_grad_batches", "at least 1"],
    ),
    "overfit on too much": ("--overfit_batches 1.5", ["overfit_batches", "1.5"]),
    "unknown multiplier": (
        "--model.lr_multipliers '{{digt: 0.1}}'",
        ["model.lr_multipliers", "'digt'", "'digit'"],
    ),
    "unknown multiplier, dotted": (
        "--model.lr_multipliers.digt 0.1",
        ["model.lr_multipliers", "'digt'", "'digit'"],
    ),
    "negative rate": ("--lr=-0.1 --fast_dev_run", ["model.optimizer", "learning rate", "-0.1"]),
    "negative rate of a run": ("--lr=-0.1", ["model.optimizer", "learning rate", "-0.1"]),
    "a rate without end": ("--lr 1e400", ["model.optimizer.lr", "inf", "finite"]),
    "a rate that is no number": ("--lr .nan", ["model.optimizer.lr", "nan", "finite"]),
    "settings that do not go together": (
        "--model.optimizer SGD --model.optimizer.nesterov true",
        ["model.optimizer", "Nesterov"],
    ),
    "warm-up longer than the run": (
        "--model.scheduler.warmup 2 --fast_dev_run",
        ["model.scheduler", "warmup", "2"],
    ),
    "width of no groups": (
        "--model.encoder ConvNet --model.encoder.width 12 --fast_dev_run",
        ["ConvNet", "12", "8"],
    ),
    "no stage": (
        "--model.encoder ConvNet --model.encoder.depth 0 --fast_dev_run",
        ["ConvNet", "depth 0"],
    ),
    "dropout above 1": ("--model.encoder.dropout 2 --fast_dev_run", ["MLP", "dropout 2"]),
    "ConvNet on vectors": (
        "--data tests.toy.Toy --model.encoder ConvNet --fast_dev_run",
        ["ConvNet", "--model.encoder MLP"],
    ),
    "checkpoints never": ("--watch.checkpoint_every 0", ["watch.checkpoint_every", "at least 1"]),
    "logs below a file": ("--logs {here}/file/logs", ["--logs", "file/logs", "Not a directory"]),
    "logs are a file": ("--logs {here}/file", ["--logs", "file", "Not a directory"]),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags(tmp_path: Path, name: str) -> None:
    flags, says = FLAGS[name]
    (tmp_path / "file").touch()
    words = shlex.split(flags.format(here=tmp_path))
    refused(
        call("train", *([] if "--logs" in words else ["--logs", tmp_path / "logs"]), *words), says
    )


def test_convnet_on_a_table(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(table())
    refused(
        call("train", *words_for_table(tmp_path), "--model.encoder", "ConvNet"),
        ["categorical", "--model.encoder MLP"],
    )


class Picky(Toy):
    """A fork's own data class, which refuses a setting or has a bug."""

    def __init__(self, rows: int = 1, batch_size: int = 16, seed: int = 0) -> None:
        if rows < 1:
            raise ValueError(f"data.rows is {rows}; it must be at least 1")
        super().__init__(batch_size=rows.no_such_attribute, seed=seed)  # type: ignore[attr-defined]


def test_own_classes(tmp_path: Path) -> None:
    """A ValueError is the user's mistake, one line; any other error is a bug and keeps its
    traceback.
    """
    words = ["--data", "tests.cli.test_bad_input.Picky", "--logs", tmp_path]
    refused(call("train", *words, "--data.rows", 0), ["data.rows", "at least 1"])
    with pytest.raises((AttributeError, ValueError)) as caught:
        call("train", *words)
    assert "no_such_attribute" in "".join(traceback.format_exception(caught.value))


# -- runs: what --run and --resume may find --------------------------------------------------------
@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run on the toy data and one on a table."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "table.csv").write_text(table())
    words = {"toy": [*TOY, "--logs", str(folder / "logs")], "table": words_for_table(folder)}
    for name, flags in words.items():
        assert call("train", *flags, "--name", name).code == 0
    return {name: next((folder / "logs" / name).iterdir()) for name in words}


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def cut(run: Run) -> None:
    for path in (run.best, run.last):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(run: Run) -> None:
    run.best.write_bytes(b"")


def text(run: Run) -> None:
    run.best.write_text("hello, this is a text")


def other_file(run: Run) -> None:
    torch.save({"weights": torch.ones(3)}, run.best)


def code(run: Run) -> None:
    torch.save({"state_dict": {}, "code": Code(run.path / "executed")}, run.best)


def lacking(run: Run) -> None:
    checkpoint = torch.load(run.best, weights_only=True)
    checkpoint["state_dict"].popitem()
    torch.save(checkpoint, run.best)


def no_checkpoints(run: Run) -> None:
    shutil.rmtree(run.best.parent)


def damaged_config(run: Run) -> None:
    run.config.write_text("trainer: [")


def empty_config(run: Run) -> None:
    run.config.write_text("")


def damaged_record(run: Run) -> None:
    run.record.write_text("{")


RUNS: dict[str, tuple[str, Callable[[Run], None] | None, str, list[str]]] = {
    "no --run": ("evaluate", None, "", ["--run", "missing"]),
    "--run without a folder": ("predict", None, "--out {here}/x.csv --run", ["--run", "missing"]),
    "no run folder": ("evaluate", None, "--run {here}/none", ["none", "does not exist"]),
    "a folder that is no run": ("evaluate", None, "--run {here}", ["no run folder", "config.yaml"]),
    "no checkpoint": ("evaluate", no_checkpoints, "--run {run}", ["no checkpoint", "best.ckpt"]),
    "cut checkpoint": ("evaluate", cut, "--run {run}", ["best.ckpt", "cut off"]),
    "empty checkpoint": ("evaluate", empty, "--run {run}", ["best.ckpt", "cut off"]),
    "text as checkpoint": ("evaluate", text, "--run {run}", ["best.ckpt", "no checkpoint"]),
    "other file as checkpoint": (
        "evaluate",
        other_file,
        "--run {run}",
        ["best.ckpt", "not from a training run"],
    ),
    "checkpoint with code": ("evaluate", code, "--run {run}", ["best.ckpt", "code", "never run"]),
    "checkpoint lacks a weight": (
        "evaluate",
        lacking,
        "--run {run}",
        ["checkpoint", "another model", "heads."],
    ),
    "another width": (
        "evaluate",
        None,
        "--run {run} --model.encoder.width 16",
        ["checkpoint", "another model", "size mismatch"],
    ),
    "other tasks": (
        "evaluate",
        None,
        "--run {run} --data Digits",
        ["checkpoint", "class2", "quadrants"],
    ),
    "damaged config": ("evaluate", damaged_config, "--run {run}", ["config.yaml", "damaged"]),
    "empty config": (
        "predict",
        empty_config,
        "--run {run} --out {here}/x.csv",
        ["config.yaml", "damaged"],
    ),
    "unknown split": (
        "evaluate",
        None,
        "--run {run} --split tests",
        ["--split", "'tests'", "train, val or test"],
    ),
    "metrics into no folder": (
        "evaluate",
        None,
        "--run {run} --out {here}/none/x.json",
        ["--out", "no folder"],
    ),
    "metrics into a table": (
        "evaluate",
        None,
        "--run {run} --out {here}/x.csv",
        ["--out", ".json"],
    ),
    "a checkpoint for a run": (
        "evaluate",
        None,
        "--run {run}/checkpoints/best.ckpt",
        ["best.ckpt", "is a file", "run folder"],
    ),
    "unknown checkpoint": (
        "evaluate",
        None,
        "--run {run} --checkpoint first",
        ["--checkpoint", "'first'", "best or last"],
    ),
    "nothing to evaluate": (
        "evaluate",
        None,
        "--run {run} --trainer.limit_test_batches 0",
        ["limit_test_batches", "nothing"],
    ),
    "typo of evaluate": ("evaluate", None, "--run {run} --splt test", ["'splt'", "'split'"]),
    "no devices to evaluate": (
        "evaluate",
        None,
        "--run {run} --devices 0",
        ["--devices", "at least 1"],
    ),
    "no --out": ("predict", None, "--run {run}", ["out", "missing"]),
    "predictions as a sheet": (
        "predict",
        None,
        "--run {run} --out {here}/x.xls",
        ["--out", ".csv or .tsv or .parquet"],
    ),
    "predictions into no folder": (
        "predict",
        None,
        "--run {run} --out {here}/none/x.csv",
        ["--out", "no folder"],
    ),
    "predictions into a folder": (
        "predict",
        None,
        "--run {run} --out {here}/folder.csv",
        ["--out", "folder"],
    ),
    "resume nothing": ("train", None, "--resume {here}/none", ["none", "does not exist"]),
    "resume no run": ("train", None, "--resume {here}", ["no run folder", "config.yaml"]),
    "resume without a folder": ("train", None, "--resume", ["--resume", "value"]),
    "resume without checkpoint": (
        "train",
        no_checkpoints,
        "--resume {run}",
        ["no checkpoint", "last.ckpt"],
    ),
    "resume a cut checkpoint": ("train", cut, "--resume {run}", ["last.ckpt", "cut off"]),
    "resume a damaged record": ("train", damaged_record, "--resume {run}", ["run.json", "damaged"]),
    "resume another model": (
        "train",
        None,
        "--resume {run} --model.encoder.width 9",
        ["--model.encoder.width", "--resume"],
    ),
    "resume with another decay": (
        "train",
        None,
        "--resume {run} --model.optimizer.weight_decay 0.1",
        ["--model.optimizer.weight_decay", "--resume", "--lr RATE"],
    ),
    "resume with another seed": (
        "train",
        None,
        "--resume {run} --seed 3",
        ["--seed_everything", "--resume"],
    ),
    "resume with a config": (
        "train",
        None,
        "--resume {run} --config x.yaml",
        ["--config", "--resume"],
    ),
    "resume for less": (
        "train",
        None,
        "--resume {run} --max_epochs 0",
        ["trainer.max_epochs is 0", "1 epochs already"],
    ),
    "resume for fewer steps": (
        "train",
        None,
        "--resume {run} --trainer.max_steps 3",
        ["max_steps is 3", "14 steps already"],
    ),
    "resume and keep nothing": (
        "train",
        None,
        "--resume {run} --fast_dev_run",
        ["--fast_dev_run", "--resume"],
    ),
    "resume elsewhere": ("train", None, "--resume {run} --logs {here}", ["--logs", "--resume"]),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs(tmp_path: Path, trained: dict[str, Path], name: str) -> None:
    verb, damage, flags, says = RUNS[name]
    (tmp_path / "folder.csv").mkdir()
    run = Run(shutil.copytree(trained["toy"], tmp_path / "run")) if damage else Run(trained["toy"])
    if damage:
        damage(run)
    before = run.config.read_text() if run.config.is_file() else ""
    refused(call(verb, *shlex.split(flags.format(here=tmp_path, run=run.path))), says)
    assert (run.config.read_text() if run.config.is_file() else "") == before
    assert not (run.path / "executed").exists()


ROWS_TO_PREDICT: dict[str, tuple[Content, list[str]]] = {
    "missing file": (None, ["new.csv", "no such file"]),
    "no rows": (table(0), ["new.csv", "no rows"]),
    "lacks an input": (table(without=["age"]), ["new.csv", "'age'"]),
    "text in numbers": (with_cell("age", 8, "old"), ["new.csv row 8", "'age'", "'old'"]),
    "infinite": (with_cell("age", 8, "inf"), ["new.csv row 8", "'age'", "not finite"]),
}


def test_settings_of_training_are_said_to_have_no_effect(trained: dict[str, Path]) -> None:
    ended = call("evaluate", "--run", trained["toy"], "--lr", 3, "--seed", 4)
    assert ended.code == 0
    assert (
        ended.err == "note: --model.optimizer.lr, --seed_everything has no effect here: "
        "the run has settled that\n"
    )


def test_rows_without_labels_are_not_to_be_evaluated(
    tmp_path: Path, trained: dict[str, Path]
) -> None:
    (tmp_path / "new.csv").write_text(table(without=["hours"]))
    words = ("--run", trained["table"], "--data.path", tmp_path / "new.csv")
    refused(call("evaluate", *words), ["new.csv", "'hours'", "python -m src.predict"])


@pytest.mark.parametrize("name", ROWS_TO_PREDICT)
def test_rows_to_predict(tmp_path: Path, trained: dict[str, Path], name: str) -> None:
    content, says = ROWS_TO_PREDICT[name]
    new, out = tmp_path / "new.csv", tmp_path / "out.csv"
    if content is not None:
        new.write_text(str(content))
    refused(call("predict", "--run", trained["table"], "--data.path", new, "--out", out), says)
    assert not out.exists()


def test_damaged_schema(tmp_path: Path, trained: dict[str, Path]) -> None:
    run = Run(shutil.copytree(trained["table"], tmp_path / "run"))
    run.schema.write_text("{")
    refused(call("evaluate", "--run", run.path), ["schema.json", "damaged"])


# -- a disk that fills up --------------------------------------------------------------------------
def test_disk_full_at_the_second_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint of the first save is there and whole, and nothing half-written beside it."""
    saves: list[Any] = []
    real = torch.save

    def save(content: Any, file: Any) -> None:
        if saves:
            raise OSError(errno.ENOSPC, "No space left on device")
        saves.append(real(content, file))

    monkeypatch.setattr(torch, "save", save)
    refused(
        call("train", *TOY, "--name", "full", "--logs", tmp_path),
        [".ckpt", "No space left on device"],
    )
    run = Run(next((tmp_path / "full").iterdir()))
    (kept,) = run.best.parent.iterdir()
    assert load_checkpoint(kept)["state_dict"]
    assert '"failed"' in run.record.read_text()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not allowed to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


# -- as a person types it --------------------------------------------------------------------------
def launched(verb: str, *words: object, says: list[str]) -> None:
    """The same check on a process of its own."""
    done = finish(start(f"src.{verb}", *words), timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in says), done.stderr


@pytest.mark.slow
def test_process_on_a_full_disk(small_disk: Path) -> None:
    """A checkpoint is 0.9 MB here, so that a new one cannot be written while best.ckpt and
    last.ckpt are there.
    """
    launched(
        "train",
        *TOY,
        "--max_epochs",
        4,
        "--model.encoder.width",
        128,
        "--logs",
        small_disk,
        "--name",
        "x",
        says=["No space"],
    )
    run = Run(next((small_disk / "x").iterdir()))
    assert run.best.is_file()
    for path in run.best.parent.iterdir():
        assert load_checkpoint(path)["state_dict"]


@pytest.mark.slow
def test_process_with_a_bad_table(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(with_cell("age", 17, "old"))
    launched("train", *words_for_table(tmp_path), says=["row 17", "'age'"])


@pytest.mark.slow
def test_process_with_a_bad_config(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model:\n  encodr: MLP\n")
    launched("train", "--config", tmp_path / "config.yaml", says=["'model.encoder'", "config.yaml"])


@pytest.mark.slow
def test_process_with_a_bad_checkpoint(tmp_path: Path, trained: dict[str, Path]) -> None:
    run = Run(shutil.copytree(trained["toy"], tmp_path / "run"))
    code(run)
    launched("evaluate", "--run", run.path, says=["best.ckpt", "code"])
    assert not (run.path / "executed").exists()


@pytest.mark.slow
def test_process_without_a_run() -> None:
    launched("predict", "--out", "x.csv", says=["--run is missing"])
