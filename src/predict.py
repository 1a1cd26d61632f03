"""Predicts new rows: python -m src.predict --run RUN [--data.path new.csv] --out predictions.parquet [--devices N]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor

from src.batch import PADDING
from src.cli import CLI, open_run, output_file
from src.parallel.replicas import gathered
from src.verb import main

if TYPE_CHECKING:
    import pandas as pd

WRITERS = {".csv": "to_csv", ".tsv": "to_csv", ".parquet": "to_parquet"}


def add_arguments(parser: LightningArgumentParser) -> None:
    """Adds what only this verb knows."""
    parser.add_argument("--out", type=str, required=True, help="Where predictions go: a .csv, .tsv or .parquet file.")


def predict(args: list[str]) -> None:
    """Writes one row per input row, in the order of the input: sample ids, decoded values, class probabilities."""
    checkpoint, cli = open_run(args, add_arguments)
    out = output_file(cli.config["out"], list(WRITERS))
    parts = cli.trainer.predict(cli.model, cli.datamodule, ckpt_path=checkpoint)
    ids, outputs = in_order(parts or [])
    if not cli.trainer.is_global_zero:
        return
    frame = readable(cli, ids, outputs)
    settings: dict[str, Any] = {"sep": "\t"} if out.suffix == ".tsv" else {}
    getattr(frame, WRITERS[out.suffix])(out, index=False, **settings)
    print(f"{len(frame)} rows, {len(frame.columns)} columns: {out}", flush=True)


def in_order(parts: list[Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Joins the batches of all ranks and sorts them by row number, padding left out."""
    mine = [(ids.cpu(), {name: out.float().cpu() for name, out in outputs.items()}) for ids, outputs in parts]
    batches = [batch for part in gathered(mine) for batch in part]
    ids = torch.cat([ids for ids, _ in batches])
    order = ids.argsort()[(ids == PADDING).sum() :]
    return ids[order], {name: torch.cat([outputs[name] for _, outputs in batches])[order] for name in batches[0][1]}


def readable(cli: CLI, ids: Tensor, outputs: dict[str, Tensor]) -> pd.DataFrame:
    """Outputs as columns: <task> or <task>.<output> holds the prediction, <task>.p_<class> a probability."""
    import pandas as pd

    names = cli.datamodule.sample_ids()
    columns: dict[str, Any] = {"id": [names[i] for i in ids.tolist()] if names is not None else ids.tolist()}
    for name, task in cli.model.tasks.items():
        for suffix, values in task.decode(outputs[name]).items():
            columns[f"{name}.{suffix}" if suffix else name] = values
    return pd.DataFrame(columns)


if __name__ == "__main__":
    main(predict)
