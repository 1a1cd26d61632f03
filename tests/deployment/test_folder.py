"""An exported folder runs in an environment with nothing but its own requirements."""

import json
from importlib.metadata import version

import pytest

from src.deployment.folder import write_folder, write_requirements
from tests.benchmarks.exporting import LIMITS, export
from tests.deployment.fresh import install, measure_packages, probe


def test_requirements_have_exact_versions():
    lines = write_requirements("torch").split()
    assert lines[0] == f"numpy=={version('numpy')}"
    assert lines[1] == f"torch=={version('torch').partition('+')[0]}"


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_files_import_their_neighbours_alone(form, tmp_path):
    write_folder(tmp_path, form, b"model", {"format": 1, "inputs": []})
    handler = (tmp_path / "handler.py").read_text()
    assert f"from {form}_runtime import predict" in handler
    for path in tmp_path.glob("*.py"):
        assert "src" not in path.read_text()
        compile(path.read_text(), path, "exec")
    schema = json.loads((tmp_path / "schema.json").read_text())
    # of the word model
    digest = "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"
    assert schema["model"]["sha256"] == digest


@pytest.mark.slow
def test_a_fresh_environment_answers_within_the_limits(tmp_path):
    pytest.importorskip("onnxscript")
    folder, row = export(tmp_path)
    try:
        python = install(folder, tmp_path / "venv")
    except ConnectionError:
        pytest.skip("no registry of packages can be reached")
    probe(python, folder, [row])
    found = min((probe(python, folder, [row]) for _ in range(3)), key=lambda one: one["first"])
    assert found["statusCode"] == 200
    (answer,) = json.loads(found["body"])["predictions"]
    assert answer["label0"] in ("yes", "no")
    assert 0 < answer["label0.p_yes"] < 1
    assert found["loaded"] == []
    # a machine that does other work has four times as long
    assert found["first"] < 4 * LIMITS["first"]
    assert found["warm"] < 4 * LIMITS["warm"]
    assert measure_packages(tmp_path / "venv") < LIMITS["packages"]
