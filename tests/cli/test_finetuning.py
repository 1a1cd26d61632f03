"""Fine-tuning on the command line: what a run says of it, and who opens the run afterwards."""

from pathlib import Path

import peft
import pytest
import torch

from src.checkpoint import load_checkpoint
from src.cli.runs import load_run
from src.models.encoders import MLP
from src.models.transfer.lora import is_adapter, strip_adapters
from tests.cli.calling import call, refused
from tests.launching import only_run, read_json

TOY = (
    *("--data", "tests.toy.Toy", "--model.encoder.width", 8, "--model.encoder.depth", 1),
    *("--accelerator", "cpu", "--max_epochs", 1),
)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--finetune.freeze", "enccoder"), ["finetune.freeze", "did you mean 'encoder'?"]),
        (("--finetune.freeze", "[heads.numbr]"), ["did you mean 'heads.number'?"]),
        (("--finetune.freez", "encoder"), ["finetune.freez", "did you mean 'finetune.freeze'?"]),
        (("--finetune.freeze", "[encoder, heads]"), ["nothing would train in epoch 0"]),
        (("--finetune.thaw_at", "{stages.0: 1}"), ["'stages.0', which is not frozen"]),
        (
            ("--finetune.freeze", "encoder", "--finetune.thaw_at", "{stages.0:1}"),
            ["YAML wants a space behind the colon, {stages.0: 1}"],
        ),
        (("--finetune.lora", "true"), ["finetune.lora is 'True'", "{rank: 8}"]),
        (("--finetune.lora.rank", "0"), ["finetune.lora.rank is 0"]),
        (("--finetune.lora.rnk", "2"), ["did you mean 'finetune.lora.rank'?"]),
        (
            ("--finetune.lora.rank", "2", "--finetune.bias_only", "true"),
            ["leave one of them out"],
        ),
        (
            ("--finetune.lora.rank", "2", "--model.sharing", "TaskAdapters"),
            ["TaskAdapters reads the weights of its encoders"],
        ),
        (
            ("--finetune.lora.rank", "2", "--finetune.freeze", "encoder"),
            ["finetune.freeze covers all adapters"],
        ),
        (
            (
                *("--finetune.freeze", "stages.0", "--finetune.thaw_at", "{stages.0: 1}"),
                *("--strategy", "pipeline", "--devices", "2"),
            ),
            ["--strategy pipeline", "finetune.thaw_at", "ddp, fsdp or placement"],
        ),
        (
            (
                *("--finetune.lora.rank", "2", "--strategy", "fsdp", "--devices", "2"),
                *("--strategy.tensor_parallel_size", "2"),
            ),
            ["has an adapter of finetune.lora"],
        ),
    ],
)
def test_mistakes_are_answered_in_a_line(tmp_path: Path, words: tuple[str, ...], says: list[str]):
    refused(call("train", *TOY, "--logs", tmp_path, *words), says)
    assert not [*tmp_path.iterdir()]


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    ended = call("train", *TOY, "--logs", tmp_path, "--finetune.lora.rank", 2)
    refused(ended, ["finetune.lora needs the package peft: pip install peft"])


def test_a_run_says_what_trains(tmp_path: Path):
    frozen = ("--finetune.freeze", "encoder", "--finetune.thaw_at.stages.1", 1)
    ended = call("train", *TOY, "--logs", tmp_path, *frozen, "--plan")
    assert ended.code == 0
    assert "finetune trains 207 of 431 parameters: encoder 0 of 224, heads 207 of 207" in ended.out
    assert "stages.1 +176 from epoch 1" in ended.out

    more = ("--model.lr_multipliers.encoder", 0.1, "--model.balancer", "PCGrad", "--no_test")
    ended = call("train", *TOY, "--logs", tmp_path, "--finetune.freeze", "encoder", *more)
    assert ended.code == 0
    assert "finetune freezes weights that are random" in ended.out
    assert "PCGrad balances gradients in the encoder, which does not train" in ended.out
    assert "model.lr_multipliers.encoder has no effect: encoder is frozen" in ended.out


def test_a_run_with_adapters_is_opened_by_all(tmp_path: Path):
    ended = call("train", *TOY, "--logs", tmp_path, "--name", "a", "--finetune.lora.rank", 2)
    assert ended.code == 0
    run = only_run(tmp_path / "a")
    assert f"adapters, which PeftModel.from_pretrained opens: {run}/adapter" in ended.out

    # its own commands
    ended = call("evaluate", "--run", run, "--split", "test", "--finetune.bias_only", "true")
    assert ended.code == 0
    assert "--finetune.bias_only has no effect here" in ended.err
    score = read_json(run / "metrics.json")["test"]["test/score"]
    assert f"test: score {score:.4f}" in ended.out
    model, _ = load_run(run)
    assert any(is_adapter(name) for name, _ in model.named_parameters())

    # peft
    encoder = model.eval().sharing.get_submodule("encoder")
    base = MLP(model.input_shape, width=8, depth=1)
    base.load_state_dict(strip_adapters(encoder.state_dict()))
    opened = peft.PeftModel.from_pretrained(base.eval(), str(run / "adapter"))
    x = model.input_shape.example(5)
    assert torch.equal(opened(x), encoder(x))

    # a plain run, which gets the merged weights
    ended = call("train", *TOY, "--logs", tmp_path, "--name", "b", "--init_from", run, "--lr", 0.0)
    assert ended.code == 0
    plain = load_checkpoint(only_run(tmp_path / "b") / "checkpoints" / "last.ckpt")["state_dict"]
    assert not any(is_adapter(name) for name in plain)
    fresh = MLP(model.input_shape, width=8, depth=1)
    own = "sharing.encoder."
    fresh.load_state_dict(
        {name.removeprefix(own): p for name, p in plain.items() if name.startswith(own)}
    )
    torch.testing.assert_close(fresh.eval()(x), encoder(x), rtol=1e-5, atol=1e-6)
