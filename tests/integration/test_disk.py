"""A disk that gives out ends a run in one line with the file and the reason; checkpoints stay."""

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.checkpoint import load_checkpoint
from src.run import Run
from tests.cli.calling import call
from tests.launching import launch, only_run, read_json
from tests.toy import RunAt

# a checkpoint after every fourth step, and after the 18th the disk gives out
TOY = (
    *(
        "--data",
        "tests.toy.Toy",
        "--max_epochs",
        2,
        "--model.encoder.width",
        16,
        "--watch.checkpoint_every",
        4,
    ),
    *("--watch.figures_every", 0),
)


def root(*words: str) -> None:
    """Runs a command that this machine may not permit."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{words[0]} is not permitted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    root("mount", "-t", "tmpfs", "-o", getattr(request, "param", "size=16m"), "tmpfs", str(place))
    yield place
    subprocess.run(["chattr", "-R", "-i", str(place)], capture_output=True, check=False)
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def gives_out(disk: Path, command: str, rank: int = 0) -> tuple[object, ...]:
    """Flags of a run there that does something to its disk."""
    then = RunAt.flags(18, disk.parent / "marker", rank)
    return ("--logs", disk, "--name", "run", *TOY, *then, "--trainer.callbacks.command", command)


def ended_well(
    run: Path, err: str, reason: str, file: str = "last.ckpt", status: str = "failed"
) -> None:
    """Checks what is said and left."""
    lines = [line for line in err.splitlines() if not line.startswith("warning: TensorBoard")]
    where = f"{run}/checkpoints/{file}"
    assert len(lines) == 1, err
    assert lines[0].startswith(f"error: {where}"), err
    assert lines[0].endswith(f": {reason}"), err
    session = read_json(run / "run.json")["sessions"][-1]
    assert session["status"] == status
    if status == "failed":
        assert reason in session["error"]
        assert where in session["error"]
    assert load_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 16


FULL = "cat /dev/zero > {disk}/fill 2>/dev/null || true"
NO_INODES = "i=0; while touch {disk}/$i 2>/dev/null; do i=$((i+1)); done"
SPOILED = {
    "full": ("size=16m", FULL, "No space left on device", "rm {disk}/fill"),
    "no inodes": (
        "size=16m,nr_inodes=100",
        NO_INODES,
        "No space left on device",
        "rm {disk}/[0-9]*",
    ),
    "permission": (
        "size=16m",
        "chattr +i {disk}/run/*/checkpoints",
        "Operation not permitted",
        "chattr -R -i {disk}/run",
    ),
    "read-only": (
        "size=16m",
        "mount -o remount,ro {disk}",
        "Read-only file system",
        "mount -o remount,rw {disk}",
    ),
}


@pytest.mark.parametrize(
    ("disk", "kind"), [(SPOILED[kind][0], kind) for kind in SPOILED], indirect=["disk"], ids=SPOILED
)
def test_a_disk_gives_out(disk: Path, kind: str) -> None:
    """Once it is mended the run goes on."""
    _, command, reason, mend = SPOILED[kind]
    if kind == "permission":
        root("chattr", "+i", str(disk))
        root("chattr", "-i", str(disk))
    ended = call("train", *gives_out(disk, command.format(disk=disk)))
    assert ended.code == 2
    run = only_run(disk / "run")
    # nothing can be written where all is read-only
    ended_well(run, ended.err, reason, status="running" if kind == "read-only" else "failed")
    subprocess.run(mend.format(disk=disk), shell=True, check=True)
    assert call("train", "--resume", run).code == 0
    assert [s["status"] for s in read_json(run / "run.json")["sessions"]][-1] == "finished"
    assert load_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 28


@pytest.mark.parametrize(
    ("devices", "strategy", "rank"),
    [
        pytest.param(1, (), 0, marks=pytest.mark.slow),
        pytest.param(2, (), 0, marks=pytest.mark.slow),
        pytest.param(
            2, ("--strategy", "fsdp", "--strategy.checkpoint", "folder"), 0, marks=pytest.mark.slow
        ),
        pytest.param(
            2, ("--strategy", "fsdp", "--strategy.checkpoint", "folder"), 1, marks=pytest.mark.slow
        ),
    ],
)
def test_one_process_may_write_no_more(
    tmp_path: Path, devices: int, strategy: tuple[object, ...], rank: int
) -> None:
    """Under a quota of 4 kB a file it and all others end with one line; needs no rights of root."""
    (tmp_path / "logs").mkdir()
    limit = "prlimit --pid $PPID --fsize=4096:"
    words = (*gives_out(tmp_path / "logs", limit, rank), "--devices", devices, *strategy)
    done = launch("src.train", *words, code=2)
    run = only_run(tmp_path / "logs" / "run")
    ended_well(run, done.stderr, "File too large")


def test_the_record_is_written_where_there_is_no_room_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It overwrites the old one; a note that cannot be written does not hide why the run failed."""
    run = Run.create(str(tmp_path), "x")
    run.begin("config", seed=0, resumed=False)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device", str(run.record))

    monkeypatch.setattr("src.run.run.write_atomically", full)
    run.fail(ValueError("the first error"))
    session = read_json(run.record)["sessions"][-1]
    assert (session["status"], session["error"]) == ("failed", "the first error")
    assert not run.lock.path.exists()

    before = run.record.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        run.fail(ValueError("an error of many words " * 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run.record.read_bytes() == before
