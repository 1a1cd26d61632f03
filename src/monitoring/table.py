"""Results as a table: one row per task, one column per metric."""

from collections.abc import Mapping

from rich.table import Table

from src.tasks import Task


def results_table(tasks: Mapping[str, Task], metrics: Mapping[str, float], stage: str) -> Table:
    """Lays out ``<stage>/<task>/<metric>`` values; the metric that counts for model selection is bold."""
    columns = list(dict.fromkeys(metric for task in tasks.values() for metric in task.metric_names))
    table = Table(title=f"{stage}: score {metrics[f'{stage}/score']:.4f}", title_justify="left")
    table.add_column("task")
    table.add_column("kind")
    for column in ["loss", *columns]:
        table.add_column(column, justify="right")
    for name, task in tasks.items():
        cells = [f"{metrics[f'{stage}/loss/{name}']:.4f}"]
        for column in columns:
            value = metrics.get(f"{stage}/{name}/{column}")
            text = "" if value is None else f"{value:.4f}"
            cells.append(f"[bold]{text}[/]" if column == task.monitor else text)
        table.add_row(name, type(task).__name__, *cells)
    return table
