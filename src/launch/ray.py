"""Trains on a Ray cluster: python -m src.launch.ray --num_workers 4 [--gpu] [--address ray://...] -- [flags of src.train].

Each worker runs src.train as torchrun would start it, and Ray starts all of them again when one is
lost. The repository and --logs must be where all nodes see them. ``pip install 'ray[train]'``.
"""

import argparse
import os
import runpy
import sys
import uuid
from pathlib import Path
from typing import Any


def work(task: dict[str, Any]) -> None:
    """What one worker does, in the process group that Ray has made.

    Raises:
        RuntimeError: The run has failed, and said why.
    """
    os.chdir(task["folder"])
    # Ray says the rank and where the processes meet; by these two they are a job that may be
    # started again
    os.environ |= {"TORCHELASTIC_RUN_ID": task["job"], "TORCHELASTIC_RESTART_COUNT": "1"}
    sys.path.insert(0, task["folder"])
    sys.argv = ["src.train", *task["args"]]
    try:
        runpy.run_module("src.train", run_name="__main__", alter_sys=True)
    except SystemExit as end:  # which Ray would not take for a failure
        if end.code:
            raise RuntimeError(f"src.train has ended with exit code {end.code}") from None


def launch(args: list[str]) -> None:
    """Asks Ray for workers and waits for them."""
    parser = argparse.ArgumentParser(
        prog="python -m src.launch.ray", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--num_workers", type=int, default=2, help="Processes, each with a device of its own."
    )
    parser.add_argument("--gpu", action="store_true", help="Give each worker a GPU.")
    parser.add_argument(
        "--address", default=None, help="Of a Ray cluster; without one Ray is started here."
    )
    parser.add_argument(
        "--max_failures",
        type=int,
        default=3,
        help="How often a run that has lost a worker goes on.",
    )
    parser.add_argument(
        "--timeout",
        type=int,
        default=600,
        help="Seconds that a worker waits for the others, as --strategy.timeout.",
    )
    parser.add_argument(
        "--storage", type=Path, default=Path("logs/ray"), help="Where Ray keeps its own notes."
    )
    parser.add_argument("args", nargs="*", help="Flags of src.train, after --.")
    asked = parser.parse_args(args)
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer
    except ModuleNotFoundError:
        parser.error("ray is not installed: pip install 'ray[train]'")
    folder = os.getcwd()
    ray.init(address=asked.address, runtime_env={"env_vars": {"PYTHONPATH": folder}})
    trainer = TorchTrainer(
        work,
        train_loop_config={"folder": folder, "args": asked.args, "job": f"ray {uuid.uuid4().hex}"},
        torch_config=TorchConfig(timeout_s=asked.timeout),
        scaling_config=ScalingConfig(num_workers=asked.num_workers, use_gpu=asked.gpu),
        run_config=RunConfig(
            storage_path=str(asked.storage.absolute()),
            failure_config=FailureConfig(max_failures=asked.max_failures),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError:  # each worker has said why
        sys.exit(1)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    launch(sys.argv[1:])
