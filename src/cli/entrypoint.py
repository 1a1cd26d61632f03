"""How a verb runs as a process: quiet libraries, mistakes in one line, and no process left behind."""

import logging
import multiprocessing
import re
import sys
import sysconfig
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only

from src import processes
from src.errors import BrokenFile, first_here
from src.processes import fail, fail_with_others

launcher: Any = None  # of the processes that this one has started


def quiet() -> None:
    """Silences what Lightning says of itself, so that what a run says of the user's work can be seen."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch.profilers").setLevel(
        logging.INFO
    )  # a table that was asked for
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


@rank_zero_only
def remark(message: str) -> None:
    """Tells the person at the terminal something besides the results, once."""
    print(f"note: {message}", file=sys.stderr, flush=True)


def thread_ended(args: threading.ExceptHookArgs) -> None:
    """Keeps quiet about TensorBoard's writer: the run itself meets the same full disk, and says so in its one line."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


def by_word(error: BaseException, building: bool = True) -> bool:
    """Whether an error was raised by word: then it is what a user got wrong, and its message says so.

    One that comes out of an expression is a bug and keeps its traceback. While classes are built
    any library may refuse what it is given; later, what numpy or the standard library refuses is a
    bug, and what the Trainer refuses is a setting.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not str(frames[-1].line).startswith("raise "):
        return False
    path = Path(frames[-1].filename)
    in_a_library = "site-packages" in path.parts or path.is_relative_to(
        sysconfig.get_paths()["stdlib"]
    )
    kinds: tuple[type[BaseException], ...] = (
        ValueError,
        ModuleNotFoundError,
        MisconfigurationException,
    )
    if not building and in_a_library:
        return "lightning" in path.parts and isinstance(error, (*kinds, RuntimeError))
    return isinstance(error, kinds)


def unwrapped(error: BaseException) -> BaseException:
    """The error that jsonargparse has wrapped into its own."""
    inner: BaseException | None = error
    while inner is not None:
        frames = traceback.extract_tb(inner.__traceback__)
        if frames and "jsonargparse" not in Path(frames[-1].filename).parts:
            return inner
        inner = inner.__cause__ or inner.__context__
    return error


def main(verb: Callable[[list[str]], object]) -> None:
    """Runs a verb on the command line, and leaves no process behind that it has started."""
    quiet()
    threading.excepthook = thread_ended
    patience = 5.0  # seconds: a rank that hangs hears of nothing
    try:
        answer(verb)
        patience = 60.0  # the others have the same left to do
    finally:
        end_children(patience)


def end_children(seconds: float) -> None:
    """Ends the processes of other ranks, and those that prepare batches, which would be waited for should they be stopped."""
    processes.end(getattr(launcher, "procs", []), seconds)
    for worker in multiprocessing.active_children():
        worker.kill()


def answer(verb: Callable[[list[str]], object]) -> None:
    """Runs a verb; what a user got wrong is one line and exit code 2, anything else keeps its traceback."""
    try:
        verb(sys.argv[1:])
    except BrokenFile as error:  # every process of this machine has found it
        fail(str(error)) if first_here() else sys.exit(2)
    except Exception as error:
        if (line := in_a_line(error)) is not None:
            fail(line)
        if isinstance(error, RuntimeError) and (how := lost_another(error)) is not None:
            fail_with_others(getattr(launcher, "procs", []), how)
        if processes.parent is not None:
            processes.parent.tell(None, 1)
        raise


def in_a_line(error: Exception) -> str | None:
    """Says what a user got wrong, or what this machine lacks; None for a bug, and for the end of another process."""
    if (line := of_a_worker(error) or short_of_memory(error)) is not None:
        return line
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else one_line(error)
    if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
        where = f" ({path})" if (path := restored(error)) is not None else ""
        how = re.sub(r"<class '([\w.]+)'>", r"\1", str(error).splitlines()[1].strip())
        return f"the checkpoint is of another model than the config describes: {how}{where}"
    if by_word(error, building=False):
        return one_line(error)
    if (path := restored(error)) is not None:
        how = f"{type(error).__name__}: {one_line(error)}"
        return f"checkpoint {path} is damaged, or was written by other code: it cannot be restored ({how})"
    return None


def restored(error: Exception) -> Path | str | None:
    """Returns the checkpoint that was being restored when an error came up; None where none was."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if Path(code.co_filename).name == "checkpoint_connector.py" and "restore" in code.co_name:
            path: Path | str | None = frame.f_locals["self"].trainer.ckpt_path
            return path
    return None


def short_of_memory(error: Exception) -> str | None:
    """Says that memory has run out, on the host or on a GPU; None where it has not."""
    words = str(error)
    by_torch = isinstance(error, RuntimeError) and re.search(
        r"can't allocate memory|not enough memory|out of memory", words
    )
    if not (isinstance(error, MemoryError) or by_torch):
        return None
    asked = re.search(r"(?:tried|[Uu]nable) to allocate ([\d.]+ \w+)", words)
    where = "the GPU" if "CUDA" in words or "GPU" in words else "this machine"
    return (
        f"the memory of {where} has run out{f', {asked[1]} were asked for' if asked else ''}: lower --batch_size, "
        "--data.eval_batch_size or --data.num_workers, or make the model smaller"
    )


def of_a_worker(error: Exception) -> str | None:
    """Says how a process that prepares batches has failed; None where none has, or by a bug, which keeps its traceback."""
    words = str(error)
    if ended := re.match(r"DataLoader (worker|timed out)[^.]*", words):
        how = "does not answer" if ended[1] != "worker" else "has ended"
        return f"a process that prepares batches {how} ({ended[0]}): if memory is short, lower --data.num_workers"
    if not re.match(r"Caught \w+ in DataLoader worker process", words):
        return None
    # torch has the traceback as text
    traced = [line for line in words.splitlines() if line.strip(" ^~")]
    last = max((number for number, line in enumerate(traced) if line.startswith("  ")), default=0)
    raised_by_word = traced[last].strip().startswith("raise ")
    said = re.sub(r"^[\w.]+: ", "", " ".join(traced[last + 1 :]))
    if isinstance(error, MemoryError):
        return short_of_memory(MemoryError(said))
    return (
        said
        if isinstance(error, OSError) or (isinstance(error, ValueError) and raised_by_word)
        else None
    )


def lost_another(error: RuntimeError) -> str | None:
    """Says how gloo, or the store through which processes meet, has waited for another process in vain; None where it has not."""
    words = r"onnection .*(closed|reset)|peer|roken pipe|Timed out waiting \d+ms|timeout caused"
    if isinstance(error, dist.DistStoreError | dist.DistNetworkError):
        words += "|imed out|timeout"
    if not re.search(words, str(error)):
        return None
    first = str(error).splitlines()[0].split(". ")[0]  # its advice says nothing of this run
    return re.sub(r"^\[\S+\] ", "", first)  # nor does the line of gloo's source


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())
