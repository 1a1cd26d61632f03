"""How a verb runs as a process: quiet libraries, mistakes in one line, and no process left behind."""

import logging
import re
import subprocess
import sys
import sysconfig
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only

from src.broken import BrokenFile, first_here
from src.parser import fail

launcher: Any = None  # of the processes that this one has started


def quiet() -> None:
    """Silences what Lightning says of itself, so that what a run says of the user's work can be seen."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # a table that was asked for
    for message in (
        ".*LeafSpec.*",  # Lightning's own use of torch
        ".*args parameter is intended.*",  # the command line is handed on after its layers were merged
        ".*smaller than the logging interval.*",  # the end of an epoch logs too
        ".*callbacks used to create the checkpoint need to be provided.*",  # evaluation keeps no checkpoints
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run's own
        ".*WeightAveraging callback with a model that overrides.*",  # strategies with shards refuse it
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

    One that comes out of an expression is a bug and keeps its traceback. While classes are built any library may refuse what it is
    given; later, what numpy or the standard library refuses is a bug, and what the Trainer refuses is a setting.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not str(frames[-1].line).startswith("raise "):
        return False
    path = Path(frames[-1].filename)
    in_a_library = "site-packages" in path.parts or path.is_relative_to(sysconfig.get_paths()["stdlib"])
    kinds: tuple[type[BaseException], ...] = (ValueError, ModuleNotFoundError, MisconfigurationException)
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
    try:
        answer(verb)
    except BaseException:
        end_children()
        raise


def end_children(seconds: float = 5.0) -> None:
    """Kills what Lightning has started for other ranks and does not end by itself soon: a rank that hangs hears of nothing."""
    until, started = time.monotonic() + seconds, getattr(launcher, "procs", [])
    children = list(started)
    started.clear()  # Lightning looks after them, too, and kills this process as soon as one of them has ended
    for child in children:
        try:
            child.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def answer(verb: Callable[[list[str]], object]) -> None:
    """Runs a verb; what a user got wrong is one line and exit code 2, anything else keeps its traceback."""
    try:
        verb(sys.argv[1:])
    except BrokenFile as error:  # every process of this machine has found it
        fail(str(error)) if first_here() else sys.exit(2)
    except (ValueError, MisconfigurationException) as error:
        if not by_word(error, building=False):
            raise
        fail(one_line(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else one_line(error))
    except RuntimeError as error:
        if "loading state_dict" in str(error):
            fail(f"the checkpoint is of another model than the config describes: {str(error).splitlines()[1].strip()}")
        if by_word(error, building=False):
            fail(one_line(error))
        if not lost_another(error):
            raise
        # without the line of gloo's source
        reason = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0])
        fail(f"another process of this run has ended or does not answer, and this one ends with it: {reason}", code=1)


def lost_another(error: RuntimeError) -> bool:
    """Whether gloo, or the store through which processes meet, has waited for another process in vain."""
    in_store = isinstance(error, dist.DistStoreError | dist.DistNetworkError)
    words = r"onnection .*(closed|reset)|peer|Timed out waiting \d+ms" + ("|imed out|timeout" if in_store else "")
    return re.search(words, str(error)) is not None


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())
