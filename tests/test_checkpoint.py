"""Checkpoints in folders: whole or not there, whatever breaks while they are written."""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from src.checkpoint import INDEX, Part, Parts, SafeCheckpointIO, exchanged, load_checkpoint, save_folder, write_atomically


class PowerCut(Exception):
    """Ends all ranks."""


def cut_between_parts_and_index(crossed: int) -> None:
    if crossed == 2:
        raise PowerCut


def written(folder: Path, weight: Tensor, step: int, ranks: int = 2, at_barrier: Callable[[int], None] = lambda _: None) -> None:
    """Ranks as threads: each has some rows of a weight, and all have the whole bias, which the first one writes."""
    meeting, broken = threading.Barrier(ranks), []

    def rank(k: int) -> None:
        crossed = 0

        def barrier() -> None:
            nonlocal crossed
            crossed += 1
            meeting.wait(10)
            at_barrier(crossed)

        each = -(-len(weight) // ranks)
        part = weight[k * each : (k + 1) * each]
        state = {
            "weight": Part(part, (min(k * each, len(weight)), 0), tuple(weight.shape)),
            "bias": Part(weight[0], (0,), (weight.shape[1],), write=k == 0),
            "number": torch.tensor(step),
        }
        try:
            save_folder(folder, {"global_step": step, "state": [state], "name": "x"}, k, ranks, barrier)
        except PowerCut:
            broken.append(k)

    threads = [threading.Thread(target=rank, args=(k,)) for k in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise PowerCut


def is_the_one(path: Path, weight: Tensor, step: int) -> None:
    expected = {"weight": weight, "bias": weight[0], "number": torch.tensor(step)}
    found = load_checkpoint(path)
    assert found["global_step"] == step
    assert found["name"] == "x"
    torch.testing.assert_close(found["state"], [expected], rtol=0, atol=0)


OLD, NEW = torch.arange(15.0).view(5, 3), -torch.arange(15.0).view(5, 3)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_parts_make_the_whole(tmp_path: Path, ranks: int) -> None:
    """Of four ranks each has two rows, one or none."""
    folder = tmp_path / "last.ckpt"
    written(folder, OLD, 20, ranks)
    is_the_one(folder, OLD, 20)
    names = {f"20-{k}of{ranks}.ckpt" for k in range(ranks)}
    assert {path.name for path in folder.iterdir()} == {INDEX, *names}
    held = [load_checkpoint(folder / name) for name in sorted(names)]
    assert sum(part.numel() for file in held for _, part in file.values()) == OLD.numel() + 3  # nothing twice
    (state,) = load_checkpoint(folder, whole=False)["state"]
    assert isinstance(state["weight"], Parts)
    assert (state["weight"].shape, state["weight"].dtype) == ((5, 3), torch.float32)
    assert torch.equal(state["weight"].whole(), OLD)


def test_the_next_one_replaces_it(tmp_path: Path) -> None:
    """Written by another number of ranks."""
    folder = tmp_path / "last.ckpt"
    written(folder, OLD, 20, 4)
    (folder / ".20-1of4.ckpt.123").write_bytes(b"of a process that was killed")
    written(folder, NEW, 21, 2)
    is_the_one(folder, NEW, 21)
    assert {path.name for path in folder.iterdir()} == {INDEX, "21-0of2.ckpt", "21-1of2.ckpt"}


def test_a_power_cut_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "last.ckpt"
    written(folder, OLD, 20)
    with pytest.raises(PowerCut):
        written(folder, NEW, 21, at_barrier=cut_between_parts_and_index)
    is_the_one(folder, OLD, 20)
    written(folder, NEW, 22)
    is_the_one(folder, NEW, 22)
    assert len(list(folder.iterdir())) == 3


def as_file(path: Path, weight: Tensor, step: int) -> None:
    state = {"weight": weight, "bias": weight[0], "number": torch.tensor(step)}
    SafeCheckpointIO().save_checkpoint({"global_step": step, "state": [state], "name": "x"}, path)


def test_from_file_to_folder_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that breaks leaves the one before, of whatever kind it is; one that is done leaves nothing else."""
    path = tmp_path / "last.ckpt"
    as_file(path, OLD, 1)
    with pytest.raises(PowerCut):
        written(path, NEW, 2, at_barrier=cut_between_parts_and_index)
    is_the_one(path, OLD, 1)
    as_file(path, OLD, 2)  # goes on as before, whatever the attempt has left
    is_the_one(path, OLD, 2)
    assert list(tmp_path.iterdir()) == [path]
    written(path, NEW, 3)
    is_the_one(path, NEW, 3)
    assert list(tmp_path.iterdir()) == [path]

    def cut(*args: Any) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", cut)
        with pytest.raises(PowerCut):
            as_file(path, OLD, 4)
    is_the_one(path, NEW, 3)
    as_file(path, OLD, 4)
    is_the_one(path, OLD, 4)
    assert list(tmp_path.iterdir()) == [path]
    written(path, NEW, 5)
    SafeCheckpointIO().remove_checkpoint(path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_switch_has_left_is_no_obstacle(tmp_path: Path) -> None:
    """A folder that was moved aside for a file, and one that was half written beside a file."""
    path = tmp_path / "last.ckpt"
    written(path, OLD, 1)
    path.rename(tmp_path / ".last.ckpt.aside")
    (tmp_path / ".last.ckpt.parts").mkdir()
    written(path, NEW, 2)
    as_file(path, OLD, 3)
    is_the_one(path, OLD, 3)
    assert list(tmp_path.iterdir()) == [path]


def removed(folder: Path) -> None:
    (folder / "20-1of2.ckpt").unlink()


def index_removed(folder: Path) -> None:
    (folder / INDEX).unlink()


def cut_off(folder: Path) -> None:
    part = folder / "20-0of2.ckpt"
    part.write_bytes(part.read_bytes()[:-100])


def of_another_run(folder: Path) -> None:
    torch.save({}, folder / "20-1of2.ckpt")


def no_index(folder: Path) -> None:
    torch.save([1], folder / INDEX)


DAMAGES: dict[Callable[[Path], None], str] = {
    removed: "20-1of2.ckpt does not exist",
    index_removed: "index.ckpt does not exist",
    cut_off: "20-0of2.ckpt is cut off",
    of_another_run: r"last.ckpt is damaged: its files do not hold all of state/0/weight$",
    no_index: "last.ckpt is damaged: its index.ckpt is none",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_folder_is_refused_in_one_line(tmp_path: Path, damage: Callable[[Path], None], whole: bool) -> None:
    written(tmp_path / "last.ckpt", OLD, 20)
    damage(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=DAMAGES[damage]) as refused:
        load_checkpoint(tmp_path / "last.ckpt", whole=whole)
    assert re.fullmatch(r"checkpoint \S+ .+", str(refused.value))


def test_leaves_are_exchanged_by_their_path() -> None:
    tree = {"a": [1, {"b": 2}], "c": (3,)}
    assert exchanged(tree, lambda key, leaf: (key, leaf)) == {"a": [("/a/0", 1), {"b": ("/a/1/b", 2)}], "c": ("/c", (3,))}
    assert tree == {"a": [1, {"b": 2}], "c": (3,)}


def test_a_write_beside_a_folder_fails_without_harm(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    written(path, OLD, 20)

    def half(file: Any) -> None:
        file.write(b"new")
        raise PowerCut

    with pytest.raises(PowerCut):
        write_atomically(path, half)
    is_the_one(path, OLD, 20)
    assert list(tmp_path.iterdir()) == [path]
