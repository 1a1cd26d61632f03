"""The run folder: what a run leaves behind, and how to open it again.

logs/<name>/<date-time>/
    config.yaml       the resolved configuration
    run.json          command, versions, git state, data, seed, duration, peak memory, how it ended
    code.diff         changes of the code that no commit holds; code-2.diff for a second session on
                      other code
    run.lock          who trains here now: process, host, since when
    schema.json       how to read new rows, where the data module needs the training data for that
    metrics.json      validation and test metrics of the best checkpoint
    progress.json     steps so far, and the scores of each validation
    calibration.json  the maps that calibrate outputs, and conformal scores; without it outputs are
                      as the network gives them
    thresholds.json   the thresholds of binary tasks by group of rows, as src.audit fits them
    ensemble.json     the members, of a folder that holds the averaged predictions of several runs
    merge.json        the runs whose weights were merged, and how
    checkpoints/      best.ckpt (by val/score; with watch.patience_by_task the weights of several
                      epochs), last.ckpt (to resume from) and start.ckpt (the weights of a run that
                      starts from another)
    events.*          TensorBoard
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only

from src.checkpoint import load_checkpoint
from src.errors import UserError, in_one_line
from src.files.atomic import write_atomically, write_in_place
from src.files.typed import find_mismatch, read_json, to_json
from src.files.yaml12 import load_as_written
from src.run.contents import Checkpoint, Record, Results
from src.run.lock import Lock
from src.run.provenance import (
    command_line,
    cut_diff,
    describe_system,
    format_now,
    measure_peak_memory,
    read_code_state,
)


class Run:
    """A run folder.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.record = self.path / "run.json"
        self.metrics = self.path / "metrics.json"
        self.schema = self.path / "schema.json"
        self.calibration = self.path / "calibration.json"
        self.lock = Lock(self.path)
        self.best = self.path / "checkpoints" / "best.ckpt"
        self.last = self.path / "checkpoints" / "last.ckpt"
        self.start = self.path / "checkpoints" / "start.ckpt"

    # -- folders -----------------------------------------------------------------------------------
    @classmethod
    def create(cls, root: str, name: str) -> "Run":
        """Makes a fresh folder <root>/<name>/<date-time>.

        Ranks other than the first make none, and learn its name later.

        Raises:
            UserError: The system does not let it.
        """
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        for attempt in range(1, 1000):
            path = Path(root) / name / (stamp if attempt == 1 else f"{stamp}_{attempt}")
            try:
                if getattr(rank_zero_only, "rank", 0) in (0, None):
                    path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise UserError(
                    f"--logs {root}: no run folder can be made there: {error.strerror}"
                ) from None
            return cls(path)
        raise AssertionError("a thousand runs in one second")

    @classmethod
    def of_job(cls, root: str, name: str, job: str) -> "Run | None":
        """Returns the latest run that a job has begun with this command line, if any.

        A job may train several runs, one after another.
        """
        command = command_line()
        for record in sorted((Path(root) / name).glob("*/run.json"), reverse=True):
            with suppress(OSError, ValueError):
                for session in read_json(record, Record)["sessions"]:
                    if session.get("job") == job and session["command"] == command:
                        return cls(record.parent)
        return None

    @rank_zero_only
    def discard(self) -> None:
        """Removes a fresh folder that nothing was written to."""
        for folder in (self.path, self.path.parent):
            with suppress(OSError):
                folder.rmdir()

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """Opens the folder of an earlier run.

        Raises:
            UserError: There is no run in this folder.
        """
        run = cls(path)
        if run.path.is_file():
            raise UserError(f"{path} is a file; name the run folder that it is in")
        if not run.path.is_dir():
            raise UserError(f"run folder {path} does not exist")
        if not run.config.is_file():
            raise UserError(f"{path} is no run folder: it holds no config.yaml")
        return run

    # -- reading -----------------------------------------------------------------------------------
    def checkpoint(self, which: str | None = None) -> Path:
        """Returns the path of a checkpoint that can be opened.

        Args:
            which: best or last; None: the best, or the last of a run that did not validate.

        Raises:
            UserError: The run has none, or it is damaged.
        """
        if which not in ("best", "last", None):
            raise UserError(f"--checkpoint is '{which}'; it must be best or last")
        never_validated = self.last.exists() and not self.best.exists()
        path = self.last if which == "last" or (which is None and never_validated) else self.best
        if not path.exists() and (method := self.read_config().get("method")) is not None:
            raise UserError(
                f"run {self.path} is the reference {method}, which is no network and has no "
                "weights: its results are in metrics.json, and a new run makes it anew"
            )
        if not path.exists():
            raise UserError(f"run {self.path} has no checkpoint {path.relative_to(self.path)}")
        if which is None and self.has_lost_best():
            raise UserError(
                f"{self.best} is gone, the weights of the best validation: restore it, or add "
                "--checkpoint last for others"
            )
        if not self.schema.is_file() and self._had_schema():
            raise UserError(
                f"{self.schema} is gone, which says what the run's rows are: restore it, or train "
                "anew"
            )
        self._read(path)
        return path

    def _read(self, path: Path) -> Any:
        """Opens a checkpoint of this run; its large tensors are not read yet.

        Raises:
            UserError: It is damaged, or of something else.
        """
        checkpoint = load_checkpoint(path, mmap=True, whole=False)
        if not isinstance(checkpoint, dict) or "pytorch-lightning_version" not in checkpoint:
            raise UserError(f"checkpoint {path} is not from a training run")
        if (wrong := find_mismatch(checkpoint, Checkpoint)) is not None:
            raise UserError(f"checkpoint {path} is damaged: {wrong}")
        return checkpoint

    def read_tasks(self) -> dict[str, dict[str, Any]]:
        """Returns {task: its kind and settings, with chosen thresholds} of the weights that count.

        Raises:
            UserError: The run has no weights, or they are damaged.
        """
        tasks: dict[str, dict[str, Any]] = self._read(self.checkpoint()).get("tasks", {})
        return tasks

    def has_lost_best(self) -> bool:
        """Returns whether last.ckpt knows of a best validation whose weights are gone."""
        if self.best.exists() or not self.last.exists():
            return False
        selection = self._read(self.last)["callbacks"].get("selection")
        return isinstance(selection, dict) and bool(selection.get("best"))

    def check_results(self) -> None:
        """Checks the files that a resumed run compares itself with at its end.

        Raises:
            UserError: The best weights or the metrics are gone or damaged.
        """
        self._read_record()
        self.read_results()
        if self.best.exists():
            self._read(self.best)
        elif self.has_lost_best():
            raise UserError(
                f"{self.best} is gone, the weights of the best validation so far: restore it, or "
                "train anew; the last weights are for evaluate --checkpoint last"
            )

    def _had_schema(self) -> bool:
        """Returns whether the record is of data from files, and of a run that wrote a schema."""
        # a damaged record is refused where it is needed
        with suppress(OSError, ValueError):
            data = self._read_record().get("data") or {}
            return bool(data.get("files")) and data.get("schema", True)
        return False

    def read_config(self) -> dict[str, Any]:
        """Returns the resolved configuration.

        Raises:
            UserError: The file is damaged.
        """
        try:
            config = load_as_written(self.config.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            config = None
        sections = ("data", "model", "trainer")
        if not isinstance(config, dict) or not all(
            isinstance(config.get(key), dict) for key in sections
        ):
            raise UserError(
                f"{self.config} is damaged: it is no configuration that a run has written"
            )
        return config

    def read_results(self) -> Results | None:
        """Returns the metrics that the run has written down; None where it has none.

        Raises:
            UserError: The file is damaged.
        """
        if not self.metrics.is_file():
            return None
        found = read_json(self.metrics, Results, "remove it, and the run will test anew")
        return cast(Results, found)

    def _read_record(self) -> dict[str, Any]:
        """Returns the record of earlier sessions; empty where there is none.

        Raises:
            UserError: It is damaged.
        """
        if not self.record.is_file():
            return {}
        way_out = "remove it, and the run will resume without its history"
        return cast(dict[str, Any], read_json(self.record, Record, way_out))

    # -- writing -----------------------------------------------------------------------------------
    @rank_zero_only
    def write(self, path: Path, content: dict[str, Any]) -> None:
        """Writes JSON, whole or not at all; see :func:`src.files.typed.to_json`."""
        write_atomically(path, lambda file: file.write(to_json(content)))

    @rank_zero_only
    def begin(
        self,
        config: str,
        seed: int,
        resumed: bool,
        job: str | None = None,
        data: dict[str, Any] | None = None,
        start: Mapping[str, Any] | None = None,
    ) -> None:
        """Takes the folder, and notes what is about to run.

        A resumed run may have other limits and devices: the next resume starts from these.

        Args:
            config: The resolved configuration as YAML.
            seed: Its seed.
            resumed: Whether the run goes on.
            job: The job that this process belongs to.
            data: The fingerprint of the run's data; None keeps what is noted already.
            start: The run that its weights start from; None keeps what is noted already.

        Raises:
            UserError: Another process trains here, or the record is damaged.
        """
        self.lock.take(job)
        try:
            earlier = self._read_record() if resumed else {}
        except UserError:
            self.lock.release()
            raise
        write_atomically(self.config, lambda file: file.write(config.encode()))

        sessions = earlier.get("sessions", [])
        for session in sessions:
            # no process runs it any more: the lock is ours
            if session["status"] == "running":
                session["status"] = "killed"
        git = self._note_code(len(sessions) + 1)
        sessions.append(
            {
                "started": format_now(),
                "command": command_line(),
                "job": job,
                "git": git,
                "status": "running",
            }
        )

        record = {
            "seed": seed,
            **describe_system(),
            "git": git,
            "data": earlier.get("data") if data is None else data,
            "init_from": earlier.get("init_from") if start is None else dict(start),
            "sessions": sessions,
        }
        self.write(self.record, record)
        self.started = time.monotonic()

    def _note_code(self, session: int) -> dict[str, Any]:
        """Writes the changes that no commit holds; sessions on the same code share one file."""
        state, diff = read_code_state()
        if not diff:
            return state | {"diff": None}
        kept = cut_diff(diff)
        for path in sorted(self.path.glob("code*.diff")):
            if path.is_file() and path.read_bytes() == kept:
                return state | {"diff": path.name}
        path = self.path / ("code.diff" if session == 1 else f"code-{session}.diff")
        write_atomically(path, lambda file: file.write(kept))
        return state | {"diff": path.name}

    @rank_zero_only
    def end(self, status: str, **notes: Any) -> None:
        """Notes how the run has ended, and gives the folder back.

        Args:
            status: One word for it.
            notes: Further entries of the session.

        Raises:
            OSError: The record cannot be written.
        """
        try:
            self._note_end(status, notes)
        finally:
            self.lock.release()

    def fail(self, error: BaseException) -> None:
        """Notes that an error has ended the run, as far as the system lets it."""
        # the user is to read this error, not one that comes up as it is noted
        with suppress(OSError):
            self.end("failed", error=in_one_line(error) or type(error).__name__)

    def _note_end(self, status: str, notes: dict[str, Any]) -> None:
        record = json.loads(self.record.read_text())
        record["sessions"][-1] |= {
            "status": status,
            "seconds": round(time.monotonic() - self.started, 2),
            "peak_memory_bytes": measure_peak_memory(),
            **notes,
        }
        try:
            self.write(self.record, record)
        except OSError:
            # a full disk has no room for another file, but the last block of this one has some
            write_in_place(self.record, to_json(record))
