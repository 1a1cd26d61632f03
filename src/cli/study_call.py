"""The command line of ``python -m src.compare``: a study, and where it runs."""

from dataclasses import dataclass
from pathlib import Path

from src.analysis.settings import Settings, refuse_own_keys
from src.analysis.study import Study, parse_study, read_file
from src.cli.flags import Flag, Flags
from src.cli.layers import ConfigError
from src.cli.places import PLACES, read_number
from src.files.yaml12 import load

ROOT = "logs/studies"
OWN = (
    Flag("config", str, None, "The study: configs/study/*.yaml say what can stand in it."),
    Flag("plan", bool, False, "List the trials, and estimate the time that they take."),
    Flag("seeds", int, None, "Seeds of each row, in place of the file's."),
    Flag("folds", int, None, "Folds of a table, in place of the file's."),
    *PLACES,
)


@dataclass(frozen=True)
class Call:
    """A command line of compare.

    Attributes:
        path: The file of the study.
        study: The study, with what flags change of it.
        root: The folder of all studies.
        plans: Whether a plan is all that was asked for.
        parallel: Trials side by side.
        executor: Where trials run: local, slurm or ray.
        cluster: Settings of a cluster, as YAML.
    """

    path: Path
    study: Study
    root: Path
    plans: bool
    parallel: int
    executor: str
    cluster: str | None


def read_call(pairs: Flags) -> Call:
    """Reads the command line; all flags but the command's own change the base of the study.

    Raises:
        UserError: No study is named, or a flag has a value that it cannot have.
    """
    own = {flag.name for flag in OWN} | {"logs", "name"}
    given = {key: value for key, value in pairs if key in own}
    files = [value for key, value in pairs if key == "config"]
    if len(files) != 1 or files[0] is None:
        raise ConfigError(
            "--config names one study, such as configs/study/digits-balancing.yaml; what trains "
            "in it stands there under base"
        )
    settings: Settings = {}
    for key, value in pairs:
        if key not in own:
            settings[key] = "true" if value is None else value
    refuse_own_keys(settings, "--")

    path = Path(files[0])
    content = read_file(path)
    for key in ("seeds", "folds", "name"):
        if given.get(key) is not None:
            content[key] = load(str(given[key]))
    study = parse_study(content, path, settings)
    return Call(
        path=path,
        study=study,
        root=Path(given.get("logs") or ROOT),
        plans="plan" in given,
        parallel=read_number(given, "parallel", 1),
        executor=given.get("executor") or "local",
        cluster=given.get("cluster"),
    )
