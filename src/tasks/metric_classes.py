"""Classes of metrics by their names."""

import inspect
from collections.abc import Iterator, Sequence
from importlib import import_module

import torchmetrics.classification
import torchmetrics.nominal
import torchmetrics.regression
from torchmetrics import Metric

from src.errors import UserError, in_one_line, suggest

# modules whose classes compare predictions with labels row by row
MODULES = (torchmetrics.classification, torchmetrics.regression, torchmetrics.nominal)
# names of the kinds' own metrics as people write them
WORDS = {
    "auroc": "AUROC",
    "d2": "D2",
    "f1": "F1",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R2",
    "miou": "mIoU",
}


class TaskMetric(Metric):
    """Base of the metrics that task kinds build themselves, and that no setting names."""

    full_state_update = False


def find_class(name: str) -> type[Metric]:
    """Returns the metric of a class name or class path.

    Raises:
        UserError: There is none.
    """
    module, _, short = name.rpartition(".")
    kinds = find_known_classes()
    if name in kinds:
        return kinds[name]
    if module:
        try:
            kind = getattr(import_module(module), short)
        except (ImportError, AttributeError) as error:
            raise UserError(f"metrics names {name}: {in_one_line(error)}") from None
        if inspect.isclass(kind) and issubclass(kind, Metric):
            return kind
        raise UserError(f"metrics names {name}, which is no torchmetrics.Metric")
    names = [known for known in kinds if "." not in known]
    raise UserError(
        f"metrics names '{name}', which is no metric of torchmetrics: "
        f"{suggest(name, names) or 'they are in its modules classification and regression'}; "
        "give the class path of one of your own"
    )


def find_known_classes() -> dict[str, type[Metric]]:
    """Returns the imported metrics by class path, and some of them by class name, too.

    Of torchmetrics the classes that compare predictions with labels go by their name, of other
    packages all classes do.
    """
    found: dict[str, type[Metric]] = {}
    for kind in subclasses(Metric):
        found[path_of(kind)] = kind
        package = kind.__module__.partition(".")[0]
        if package != "torchmetrics" and not kind.__name__.startswith("_"):
            found[kind.__name__] = kind
    for module in reversed(MODULES):
        for name in module.__all__:
            kind = getattr(module, name)
            if inspect.isclass(kind) and issubclass(kind, Metric) and kind is not Metric:
                found[name] = kind
    return found


def subclasses(base: type) -> Iterator[type[Metric]]:
    """Yields the classes below one that have been imported, but for a task's own."""
    children: list[type] = base.__subclasses__()
    for child in children:
        if child is not TaskMetric:
            yield child
            yield from subclasses(child)


def path_of(kind: type[Metric]) -> str:
    """Returns the path of a class, by the module that defines it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def refuse_unknown_classes(described: object) -> None:
    """Refuses classes that nobody has imported: the file of a stranger imports nothing.

    Args:
        described: The ``metrics`` of a task as a schema has them.

    Raises:
        UserError: A class is not known.
    """
    kinds = find_known_classes()
    for entry in described if isinstance(described, Sequence) else ():
        path = entry.get("class_path") if isinstance(entry, dict) else entry
        if path not in kinds:
            raise UserError(f"names the metric {path}, which is not known here")


def parameters_of(kind: type[Metric]) -> dict[str, object]:
    """Returns {name: annotation} of a constructor's parameters, its bases' if it takes any."""
    found: dict[str, object] = {}
    for owner in kind.__mro__:
        if owner is Metric:
            break
        # torchmetrics.CohenKappa chooses the class for a kind of task in __new__
        makers = [vars(owner)[name] for name in ("__new__", "__init__") if name in vars(owner)]
        if not makers:
            continue
        parameters = inspect.signature(makers[0]).parameters.values()
        own = {p.name: p.annotation for p in parameters if p.kind is not p.VAR_KEYWORD}
        found = own | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return {name: kind for name, kind in found.items() if name not in ("self", "cls")}


def spell_metric(metric: str) -> str:
    """Returns a metric's name as people write it."""
    return WORDS.get(metric, metric.replace("_", " "))
