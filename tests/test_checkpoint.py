"""Checkpoints in folders: whole or not there, whatever breaks while they are written."""

import errno
import multiprocessing
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from src.checkpoint import (
    INDEX,
    SafeCheckpointIO,
    Shard,
    Shards,
    choose_weights,
    group_tasks,
    load_checkpoint,
    map_leaves,
    merge_weights,
    save_folder,
)
from src.errors import UserError
from src.files.atomic import write_atomically


class PowerCut(Exception):
    """Ends all ranks."""


def cut_between_parts_and_index(crossed: int) -> None:
    if crossed == 2:
        raise PowerCut


def written(
    folder: Path,
    weight: Tensor,
    step: int,
    ranks: int = 2,
    at_meeting: Callable[[int], None] = lambda _: None,
) -> None:
    """Saves from ranks that are threads: each has rows of a weight, the first writes a bias."""
    meeting = threading.Barrier(ranks)
    told: list[OSError | None] = [None] * ranks
    raised: list[Exception | None] = [None] * ranks
    name = f"{step}-{secrets.token_hex(4)}"

    def rank(k: int) -> None:
        met = 0

        def agree(error: OSError | None) -> None:
            nonlocal met
            met += 1
            told[k] = error
            meeting.wait(10)
            found = [each for each in told if each is not None]
            meeting.wait(10)
            at_meeting(met)
            if found:
                raise found[0]

        each = -(-len(weight) // ranks)
        part = weight[k * each : (k + 1) * each]
        state = {
            "weight": Shard(part, (min(k * each, len(weight)), 0), tuple(weight.shape)),
            "bias": Shard(weight[0], (0,), (weight.shape[1],), write=k == 0),
            "number": torch.tensor(step),
        }
        try:
            save_folder(
                folder, {"global_step": step, "state": [state], "name": "x"}, name, k, ranks, agree
            )
        except (PowerCut, OSError) as error:
            raised[k] = error

    threads = [threading.Thread(target=rank, args=(k,)) for k in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised[0]:
        assert all(type(error) is type(raised[0]) for error in raised)
        raise raised[0]


def names_of(folder: Path) -> list[str]:
    """The files of a folder, without what makes each save's names its own."""
    return sorted(re.sub(r"-[0-9a-f]{8}-", "-", path.name) for path in folder.iterdir())


def part_of(folder: Path, rank: int) -> Path:
    """The newest part of a rank."""
    names = load_checkpoint(folder / INDEX)["files"]
    return folder / names[rank]


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
    assert names_of(folder) == [*(f"20-{k}of{ranks}.ckpt" for k in range(ranks)), INDEX]
    held = [load_checkpoint(part_of(folder, k)) for k in range(ranks)]
    assert (
        sum(part.numel() for file in held for _, part in file.values()) == OLD.numel() + 3
    )  # nothing twice
    (state,) = load_checkpoint(folder, whole=False)["state"]
    assert isinstance(state["weight"], Shards)
    assert (state["weight"].shape, state["weight"].dtype) == ((5, 3), torch.float32)
    assert torch.equal(state["weight"].assemble(), OLD)


def test_the_next_one_replaces_it(tmp_path: Path) -> None:
    """Of saves by other numbers of ranks the one before stays, and older ones go."""
    folder = tmp_path / "last.ckpt"
    written(folder, OLD, 20, 4)
    of_four = [f"20-{k}of4.ckpt" for k in range(4)]
    (folder / ".20-00c0ffee-1of4.ckpt.123").write_bytes(b"of a process that was killed")
    written(folder, NEW, 21, 2)
    is_the_one(folder, NEW, 21)
    assert names_of(folder) == [*of_four, "21-0of2.ckpt", "21-1of2.ckpt", INDEX]
    written(folder, OLD, 22, 1)
    is_the_one(folder, OLD, 22)
    assert names_of(folder) == ["21-0of2.ckpt", "21-1of2.ckpt", "22-0of1.ckpt", INDEX]


def test_a_power_cut_leaves_the_old_one(tmp_path: Path) -> None:
    """A save after the same step has shards of its own, too."""
    folder = tmp_path / "last.ckpt"
    written(folder, OLD, 20)
    with pytest.raises(PowerCut):
        written(folder, NEW, 20, at_meeting=cut_between_parts_and_index)
    is_the_one(folder, OLD, 20)
    written(folder, NEW, 22)
    is_the_one(folder, NEW, 22)
    assert names_of(folder) == [
        "20-0of2.ckpt",
        "20-1of2.ckpt",
        "22-0of2.ckpt",
        "22-1of2.ckpt",
        INDEX,
    ]


def test_a_power_cut_in_the_first_save_leaves_none(tmp_path: Path) -> None:
    """A folder without an index would be taken for a checkpoint."""
    folder = tmp_path / "last.ckpt"
    with pytest.raises(PowerCut):
        written(folder, OLD, 20, at_meeting=cut_between_parts_and_index)
    assert not folder.exists()
    written(folder, NEW, 21)
    is_the_one(folder, NEW, 21)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("which", ["1of2", INDEX])
def test_an_error_of_one_rank_is_raised_on_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """With its file, and the old one stays, alone."""
    folder = tmp_path / "last.ckpt"
    written(folder, OLD, 20)
    before = names_of(folder)

    def no_room(path: Path, write: Any) -> None:
        if which in path.name:
            raise OSError(errno.EDQUOT, "Disk quota exceeded", str(path))
        write_atomically(path, write)

    with monkeypatch.context() as patch:
        patch.setattr("src.checkpoint.write_atomically", no_room)
        with pytest.raises(OSError, match="Disk quota exceeded") as error:
            written(folder, NEW, 21)
    assert which in error.value.filename
    is_the_one(folder, OLD, 20)
    assert names_of(folder) == before


def test_a_copy_opens_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "last.ckpt"
    written(folder, OLD, 20)
    written(folder, NEW, 21)
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    shutil.rmtree(folder)
    is_the_one(tmp_path / "elsewhere" / "copy", NEW, 21)


def read_on(path: Path, loads: Any, stop: Any, results: Any) -> None:
    """Opens a checkpoint again and again, counts, and puts down what went wrong."""
    torch.set_num_threads(1)
    wrong = []
    while not stop.is_set():
        try:
            found = load_checkpoint(path, whole=bool(loads.value % 2))
            state, step = found["state"][0], found["global_step"]
            weight = state["weight"]
            weight = weight.assemble() if isinstance(weight, Shards) else weight
            if not bool((weight == step).all()) or int(state["number"]) != step:
                wrong.append(f"parts of another save in that of step {step}")
        except Exception as error:
            wrong.append(str(error))
        loads.value += 1
    results.put(wrong)


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param("folder", marks=pytest.mark.slow),
        pytest.param("file", marks=pytest.mark.slow),
        "both",
    ],
)
def test_one_reads_while_another_writes(tmp_path: Path, kinds: str) -> None:
    """Every load gives one whole save, file or folder, while saves go on."""
    path, context = tmp_path / "last.ckpt", multiprocessing.get_context("spawn")
    loads, stop, results = context.Value("i", 0), context.Event(), context.Queue()

    def save(step: int) -> None:
        weight = torch.full((64, 3), float(step))
        if kinds == "file" or (kinds == "both" and step % 2):
            as_file(path, weight, step)
        else:
            written(path, weight, step)

    save(0)
    reader = context.Process(target=read_on, args=(path, loads, stop, results))
    reader.start()
    step, until = 1, time.monotonic() + 120
    while loads.value < 300 and time.monotonic() < until:
        save(step)
        step += 1
    stop.set()
    assert results.get(timeout=60) == []
    reader.join()
    assert loads.value >= 300
    assert step > 20


def as_file(path: Path, weight: Tensor, step: int) -> None:
    state = {"weight": weight, "bias": weight[0], "number": torch.tensor(step)}
    SafeCheckpointIO().save_checkpoint({"global_step": step, "state": [state], "name": "x"}, path)


@pytest.mark.parametrize("at_once", [True, False])
def test_from_file_to_folder_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """A save that breaks leaves the one before; one that is done leaves nothing else.

    Not every system can exchange a file and a folder at once.
    """
    path = tmp_path / "last.ckpt"
    if not at_once:
        monkeypatch.setattr("src.files.atomic.swap", lambda a, b: False)
    as_file(path, OLD, 1)
    with pytest.raises(PowerCut):
        written(path, NEW, 2, at_meeting=cut_between_parts_and_index)
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
        patch.setattr("src.files.atomic.swap", cut)
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
    part_of(folder, 1).unlink()


def index_removed(folder: Path) -> None:
    (folder / INDEX).unlink()


def cut_off(folder: Path) -> None:
    part = part_of(folder, 0)
    part.write_bytes(part.read_bytes()[:-100])


def of_another_run(folder: Path) -> None:
    torch.save({}, part_of(folder, 1))


def a_list(folder: Path) -> None:
    torch.save([1], folder / INDEX)


def a_pipe(folder: Path) -> None:
    (folder / INDEX).unlink()
    os.mkfifo(folder / INDEX)


def with_index(**changed: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        torch.save(torch.load(folder / INDEX) | changed, folder / INDEX)

    return damage


def in_many_places(times: int = 60) -> list[Any]:
    """A list that would be written out in 2^times places."""
    content: list[Any] = [1]
    for _ in range(times):
        content = [content, content]
    return content


def in_itself() -> list[Any]:
    content: list[Any] = []
    content.append(content)
    return content


def deep(levels: int = 400) -> list[Any]:
    content: list[Any] = []
    for _ in range(levels):
        content = [content]
    return content


NO_INDEX = "last.ckpt is damaged: its index.ckpt is none"
NOT_ALL = "last.ckpt is damaged: its files do not hold all of state/0/weight$"
WEIGHT = "/state/0/weight"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a part is gone": (removed, "-1of2.ckpt does not exist"),
    "the index is gone": (index_removed, "index.ckpt does not exist"),
    "a part is cut off": (cut_off, "-0of2.ckpt is cut off"),
    "a part of another run": (of_another_run, NOT_ALL),
    "the index is a list": (a_list, NO_INDEX),
    "the index is a pipe": (a_pipe, "index.ckpt is no file"),
    "no checkpoint in it": (with_index(checkpoint=7), NO_INDEX),
    "files by number": (with_index(files=[1, 2]), NO_INDEX),
    "a list in many places": (with_index(checkpoint={"state": in_many_places()}), NO_INDEX),
    "a list in itself": (with_index(checkpoint={"state": in_itself()}), NO_INDEX),
    "lists in lists": (with_index(checkpoint={"state": deep()}), NO_INDEX),
    "a shape that is none": (with_index(tensors={WEIGHT: ("ab", torch.float32)}), NOT_ALL),
    "a shape below 0": (with_index(tensors={WEIGHT: ((-5, -3), torch.float32)}), NOT_ALL),
    "another shape of as many numbers": (
        with_index(tensors={WEIGHT: ((3, 5), torch.float32)}),
        NOT_ALL,
    ),
    "another type": (with_index(tensors={WEIGHT: ((5, 3), torch.float64)}), NOT_ALL),
    "no type": (with_index(tensors={WEIGHT: ((0, 3), "float32")}), NOT_ALL),
    "no entry": (with_index(tensors={WEIGHT: None}), NOT_ALL),
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_folder_is_refused_in_one_line(tmp_path: Path, kind: str, whole: bool) -> None:
    damage, says = DAMAGES[kind]
    written(tmp_path / "last.ckpt", OLD, 20)
    damage(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=says) as refused:
        load_checkpoint(tmp_path / "last.ckpt", whole=whole)
    assert re.fullmatch(r"checkpoint \S+ .+", str(refused.value))


def test_leaves_are_mapped_by_their_path() -> None:
    tree = {"a": [1, {"b": 2}], "c": (3,)}
    assert map_leaves(tree, lambda key, leaf: (key, leaf)) == {
        "a": [("/a/0", 1), {"b": ("/a/1/b", 2)}],
        "c": ("/c", (3,)),
    }
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


# -- several sets of weights -----------------------------------------------------------------------
def of_step(step: int) -> dict[str, Any]:
    """A checkpoint whose only weight is its step."""
    tasks: dict[str, dict[str, object]] = {"a": {}, "b": {}, "c": {}}
    return {"global_step": step, "state_dict": {"w": torch.tensor(step)}, "tasks": tasks}


def test_each_task_has_the_weights_of_its_step() -> None:
    """After three validations: a is the best of the third, b of the second, c of the first."""
    first, second, third = of_step(10), of_step(20), of_step(30)
    merge_weights(second, first, "abc", ["c"])
    assert second["task_steps"] == {"a": 20, "b": 20, "c": 10}
    merge_weights(third, second, "abc", ["b", "c"])
    assert third["task_steps"] == {"a": 30, "b": 20, "c": 10}
    assert {*third["other_weights"]} == {10, 20}
    assert [int(choose_weights(third, step)["w"]) for step in (10, 20, 30)] == [10, 20, 30]
    # its own weights come last, so that they are the ones that stay loaded
    assert group_tasks(third) == {10: ["c"], 20: ["b"], 30: ["a"]}

    # a set that no task needs any longer is left out
    fourth = of_step(40)
    merge_weights(fourth, third, "abc", ["c"])
    assert {*fourth["other_weights"]} == {10}
    assert group_tasks(of_step(10)) == {}


def test_weights_that_are_not_there_are_named() -> None:
    checkpoint = of_step(10) | {"task_steps": {"a": 5, "b": 10, "c": 10}, "other_weights": {}}
    with pytest.raises(UserError, match="damaged: it holds no weights of step 5"):
        choose_weights(checkpoint, 5)
    with pytest.raises(UserError, match="its task_steps are not of its tasks"):
        group_tasks(checkpoint | {"task_steps": {"a": 5}})
