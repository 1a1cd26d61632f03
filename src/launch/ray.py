"""Trains on a Ray cluster: python -m src.launch.ray --num_workers 4 --gpu -- [flags of src.train].

Each worker runs src.train as torchrun would start it. When a worker is lost, Ray starts all of them
again. The repository and --logs must be where all nodes see them. ``pip install 'ray[train]'``.
"""

import argparse
import os
import runpy
import sys
import uuid
from pathlib import Path
from typing import Any


def work(job: dict[str, Any]) -> None:
    """Trains in a worker, in the process group that Ray has made.

    Args:
        job: The "folder" of the repository, the "args" of src.train, and the "name" of the job.

    Raises:
        RuntimeError: The run has failed, and said why.
    """
    os.chdir(job["folder"])
    # Ray sets the rank and where processes meet. These two variables make the workers a job that
    # may be started again.
    os.environ |= {"TORCHELASTIC_RUN_ID": job["name"], "TORCHELASTIC_RESTART_COUNT": "1"}
    sys.path.insert(0, job["folder"])
    sys.argv = ["src.train", *job["args"]]
    try:
        runpy.run_module("src.train", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        # Ray would not take it for a failure.
        if end.code:
            raise RuntimeError(f"src.train has ended with exit code {end.code}") from None


def make_parser() -> argparse.ArgumentParser:
    """Makes the parser of the command line."""
    summary = str(__doc__).splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m src.launch.ray", description=summary)
    add = parser.add_argument
    add("--num_workers", type=int, default=2, help="Processes, each with a device of its own.")
    add("--gpu", action="store_true", help="Give each worker a GPU.")
    add("--address", default=None, help="Address of a Ray cluster; by default Ray starts here.")
    add(
        "--max_failures", type=int, default=3, help="How often a run continues after a lost worker."
    )
    add(
        "--timeout",
        type=int,
        default=600,
        help="Seconds that a worker waits for the others, as --strategy.timeout.",
    )
    add("--storage", type=Path, default=Path("logs/ray"), help="Where Ray keeps its own notes.")
    add("args", nargs="*", help="Flags of src.train, after --.")
    return parser


def launch(args: list[str]) -> None:
    """Asks Ray for workers and waits for them.

    Args:
        args: The command line.
    """
    parser = make_parser()
    asked = parser.parse_args(args)
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer
    except ModuleNotFoundError:
        parser.error("ray is not installed: pip install 'ray[train]'")

    folder = os.getcwd()
    job = {"folder": folder, "args": asked.args, "name": f"ray {uuid.uuid4().hex}"}
    ray.init(address=asked.address, runtime_env={"env_vars": {"PYTHONPATH": folder}})
    trainer = TorchTrainer(
        work,
        train_loop_config=job,
        torch_config=TorchConfig(timeout_s=asked.timeout),
        scaling_config=ScalingConfig(num_workers=asked.num_workers, use_gpu=asked.gpu),
        run_config=RunConfig(
            storage_path=str(asked.storage.absolute()),
            failure_config=FailureConfig(max_failures=asked.max_failures),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError:
        sys.exit(1)  # each worker has said why
    finally:
        ray.shutdown()


if __name__ == "__main__":
    launch(sys.argv[1:])
