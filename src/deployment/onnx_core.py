"""The numeric part of an ONNX file: the traced network, without what reads and writes rows."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import torch

from src.deployment.network import DecodedNetwork, Inputs, list_tensors
from src.errors import UserError, in_one_line

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20  # the first one with regular expressions and strings that can be joined
NEEDS = "export needs the onnx packages: pip install onnx onnxscript onnxruntime"


def check_packages() -> None:
    """Checks that the packages are there that write and try an ONNX file.

    Raises:
        UserError: One is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(NEEDS) from None


def make_core(
    network: DecodedNetwork, program: torch.export.ExportedProgram, example: Inputs
) -> "ModelProto":
    """Returns the network as ONNX, its inputs and outputs under the network's names.

    Args:
        network: The network.
        program: The same network, traced.
        example: Inputs of a few rows.

    Raises:
        UserError: An operation of the network has no form in ONNX.
    """
    check_packages()
    names = [f"in{k}" for k in range(len(list_tensors(example)))]
    outputs = [f"out{k}" for k in range(len(network.outputs))]
    with quiet_exporter():
        try:
            found = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=outputs,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise UserError(
                f"the network has an operation without a form in ONNX: {in_one_line(error)[:200]}"
            ) from None
    assert found is not None
    model = found.model_proto
    # shapes of intermediate values hold for the example alone in places
    del model.graph.value_info[:]
    return model


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silences the exporter, which reports its progress and packages that nobody needs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.filterwarnings("ignore", module=r"(torch|onnxscript|onnx_ir|copyreg)")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
