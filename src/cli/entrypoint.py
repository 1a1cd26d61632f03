"""Runs a command as a process: quiet libraries, mistakes in one line, no process left behind.

A command's file is light, and so is this one: a command imports the rest when it is called. So a
file that cannot be imported is a mistake in one line, too, and a process hears of the end of its
parent from its first moment on.
"""

import logging
import multiprocessing
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from src import processes
from src.errors import (
    BrokenFile,
    UserError,
    in_one_line,
    is_broken_file,
    is_first_here,
    where_broken,
)

Command = Callable[[list[str]], object]
CAUGHT = re.compile(r"Caught (\w+) in DataLoader worker process")


def main(command: Command) -> None:
    """Runs a command on the command line, and leaves no process behind that it has started."""
    processes.follow_parent()
    threading.excepthook = end_thread
    patience = 5.0  # seconds: a rank that hangs hears of nothing
    try:
        answer(command)
        patience = 60.0  # the others have the same left to do
    finally:
        processes.end_children(patience)
        # Python would wait for workers that prepare batches, even for stopped ones
        for worker in multiprocessing.active_children():
            worker.kill()


def answer(command: Command) -> None:
    """Runs a command; a user's mistake is one line and exit code 2.

    Any other error keeps its traceback.
    """
    try:
        command(sys.argv[1:])
    except BrokenFile as error:
        fail_once(str(error))
    except Exception as error:
        if is_broken_file(error):
            fail_once(where_broken(error))
        if (line := explain(error)) is not None:
            processes.fail(line)
        if (how := find_lost_process(error)) is not None:
            processes.fail_with_others(how)
        processes.tell_parent(None, 1)
        raise


def fail_once(message: str) -> None:
    """Ends this process because of a file that every process of this machine has found broken."""
    if is_first_here():
        processes.fail(message)
    sys.exit(2)


def quiet() -> None:
    """Silences what Lightning says of itself, so that what a run says can be seen.

    Lightning must have been imported, since that sets its loggers and filters.
    """
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # a table that was asked for
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)
    for message in (
        ".*LeafSpec.*",  # Lightning's own use of torch
        # the command line is handed on after its layers were merged
        ".*args parameter is intended.*",
        ".*smaller than the logging interval.*",  # the end of an epoch logs too
        # evaluation keeps no checkpoints
        ".*callbacks used to create the checkpoint need to be provided.*",
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run's own
        # strategies with shards refuse it
        ".*WeightAveraging callback with a model that overrides.*",
        ".*scheduler is using 'interval': 'epoch'.*",  # the run says so in its own line
        r"\s*Unable to serialize instance",  # of a callback whose error is said in its own line
    ):
        warnings.filterwarnings("ignore", message=message)


def end_thread(args: threading.ExceptHookArgs) -> None:
    """Keeps quiet about TensorBoard's writer on a full disk: the run itself meets it, too."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


# -- whose mistake it is ---------------------------------------------------------------------------
def explain(error: Exception) -> str | None:
    """Returns what a user got wrong, or what this machine lacks, in a line.

    It is None for a bug, and for the end of another process.
    """
    line = explain_worker(error) or explain_memory(error)
    if line is not None:
        return line
    if isinstance(error, UserError) or is_refusal_of_lightning(error):
        return in_one_line(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else in_one_line(error)

    path = find_restored(error)
    if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
        where = f" ({path})" if path is not None else ""
        how = re.sub(r"<class '([\w.]+)'>", r"\1", str(error).splitlines()[1].strip())
        return f"the checkpoint is of another model than the config describes: {how}{where}"
    if path is not None:
        how = f"{type(error).__name__}: {in_one_line(error)}"
        return (
            f"checkpoint {path} is damaged, or was written by other code: it cannot be restored "
            f"({how})"
        )
    return None


def is_refusal_of_lightning(error: Exception) -> bool:
    """Returns whether Lightning has refused a setting.

    It has one class of errors for that, and raises others as well: some settings it looks at only
    once the training has begun. So the module that has raised the error counts.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    if isinstance(error, MisconfigurationException):
        return True
    steps = list(traceback.walk_tb(error.__traceback__))
    module = str(steps[-1][0].f_globals.get("__name__")) if steps else ""
    kinds = (ValueError, RuntimeError, ModuleNotFoundError)
    return isinstance(error, kinds) and module.split(".")[0] == "lightning"


def find_restored(error: Exception) -> Path | str | None:
    """Returns the checkpoint that was being restored when an error came up; None if none was."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if Path(code.co_filename).name == "checkpoint_connector.py" and "restore" in code.co_name:
            path: Path | str | None = frame.f_locals["self"].trainer.ckpt_path
            return path
    return None


def explain_memory(error: Exception) -> str | None:
    """Returns that memory has run out, on the host or on a GPU; None where it has not."""
    words = str(error)
    by_torch = isinstance(error, RuntimeError) and re.search(
        r"can't allocate memory|not enough memory|out of memory", words
    )
    if not (isinstance(error, MemoryError) or by_torch):
        return None
    asked = re.search(r"(?:tried|[Uu]nable) to allocate ([\d.]+ \w+)", words)
    where = "the GPU" if "CUDA" in words or "GPU" in words else "this machine"
    much = f", {asked[1]} were asked for" if asked else ""
    return (
        f"the memory of {where} has run out{much}: lower --batch_size, --data.eval_batch_size or "
        "--data.num_workers, or make the model smaller"
    )


def explain_worker(error: Exception) -> str | None:
    """Returns how a process that prepares batches has failed.

    It is None where none has, or where one has met a bug. torch hands on the class of the error
    and, as text, its traceback.
    """
    words = str(error)
    if ended := re.match(r"DataLoader (worker|timed out)[^.]*", words):
        how = "does not answer" if ended[1] != "worker" else "has ended"
        return (
            f"a process that prepares batches {how} ({ended[0]}): if memory is short, lower "
            "--data.num_workers"
        )
    if not CAUGHT.match(words):
        return None

    # the message stands behind the last line of the traceback, and the class before it
    lines = [line for line in words.splitlines() if line.strip(" ^~")]
    last = max((number for number, line in enumerate(lines) if line.startswith("  ")), default=0)
    said = re.sub(r"^[\w.]+: ", "", " ".join(lines[last + 1 :]))
    if isinstance(error, MemoryError):
        return explain_memory(MemoryError(said))
    return said if isinstance(error, OSError | UserError) else None


def find_lost_process(error: Exception) -> str | None:
    """Returns how gloo, or the store where processes meet, has waited for another in vain."""
    from torch.distributed import DistNetworkError, DistStoreError

    if not isinstance(error, RuntimeError):
        return None
    words = r"onnection .*(closed|reset)|peer|roken pipe|Timed out waiting \d+ms|timeout caused"
    if isinstance(error, DistStoreError | DistNetworkError):
        words += "|imed out|timeout"
    if not re.search(words, str(error)):
        return None
    first = str(error).splitlines()[0].split(". ")[0]  # its advice says nothing of this run
    return re.sub(r"^\[\S+\] ", "", first)  # nor does the line of gloo's source
