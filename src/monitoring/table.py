"""Results as a table: one row per task, one column per metric."""

from collections.abc import Mapping

from rich.table import Table

from src.tasks import Task

HEADINGS = {
    "accuracy": "acc",
    "balanced_accuracy": "bal.acc",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "AP",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R2",
}


def results_table(tasks: Mapping[str, Task], metrics: Mapping[str, float], stage: str) -> Table:
    """Lays out ``<stage>/<task>/<metric>`` values; the metric that counts for model selection is bold."""
    columns = list(dict.fromkeys(metric for task in tasks.values() for metric in task.metric_names))
    title = f"{stage}: score {metrics[f'{stage}/score']:.4f}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    table.add_column("task", no_wrap=True)
    for column in ["loss", *(HEADINGS.get(c, c) for c in columns)]:
        table.add_column(column, justify="right", no_wrap=True)
    for name, task in tasks.items():
        cells = [f"{metrics[f'{stage}/{name}/loss']:.4f}"]
        for column in columns:
            value = metrics.get(f"{stage}/{name}/{column}")
            text = "" if value is None else f"{value:.4f}"
            cells.append(f"[bold]{text}[/]" if column == task.monitor else text)
        table.add_row(name, *cells)
    return table
