"""The files that a search for learning rates leaves: a picture, and rates that train reads."""

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from src.analysis.rate_curves import RateCurve, Suggestion
from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.yaml12 import dump
from src.models.optimisation.range_test import ENCODER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3  # of the picture
WIDTH, HEIGHT = 3.6, 2.6  # inches of a panel


def check_file(key: str, text: str, ending: str, may_replace: bool) -> None:
    """Checks a place for a file before any work is done.

    Args:
        key: The flag that names it.
        text: The file.
        ending: How its name must end.
        may_replace: Whether a file there may be replaced.

    Raises:
        UserError: There is no such folder, or something is there already.
    """
    path = Path(text)
    if path.suffix != ending:
        raise UserError(f"--{key} {text}: unknown kind of file; the name must end in {ending}")
    if not path.parent.is_dir():
        raise UserError(f"--{key} {text}: there is no folder {path.parent}")
    if path.is_dir():
        raise UserError(f"--{key} {text}: this is a folder; name a file")
    if path.exists() and not may_replace:
        raise UserError(
            f"--{key} {text}: there is such a file; choose another name, or add --overwrite"
        )


def name_picture(logs: str, group: str) -> Path:
    """Returns where a picture goes that no flag names: <logs>/<group>/<date-time>.png."""
    return Path(logs) / group / f"{datetime.now():%Y-%m-%d_%H-%M-%S}.png"


def write_rates(
    path: Path, rates: Mapping[str, float], configured: Mapping[str, float], optimizer: str
) -> tuple[float, dict[str, float]]:
    """Writes rates as a file that train reads by --config.

    A part without a suggestion keeps its configured rate.

    Args:
        path: The file.
        rates: {encoder or task: suggested rate}.
        configured: {encoder or task: configured rate}.
        optimizer: The class that the rates are for.

    Returns:
        The rate of the encoder, and {task: factor on it}.
    """
    chosen = {name: round_rate(rate) for name, rate in {**configured, **rates}.items()}
    lr = chosen.pop(ENCODER)
    multipliers = {name: round_rate(rate / lr) for name, rate in chosen.items()}
    tree = {
        "model": {
            "optimizer": {"class_path": optimizer, "init_args": {"lr": lr}},
            "lr_multipliers": multipliers,
        }
    }
    text = "# found by python -m src.lr_find: rates of the encoder and of each head\n" + dump(tree)
    write_atomically(path, lambda file: file.write(text.encode()))
    return lr, multipliers


def round_rate(rate: float) -> float:
    """Returns a rate with two digits; more would say more than a range test knows."""
    return float(f"{rate:.1e}")


def write_picture(
    path: Path,
    curves: Mapping[str, Sequence[RateCurve]],
    found: Mapping[str, Suggestion],
    configured: Mapping[str, float],
) -> None:
    """Draws the losses of each part against its rate, and writes them as a PNG.

    Args:
        path: The file; its folder is made where it is missing.
        curves: {part: a curve for each seed}.
        found: {part: suggestion}.
        configured: {part: configured rate}.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(columns * WIDTH, rows * HEIGHT + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, (name, each) in zip(panels, curves.items(), strict=False):
        draw_part(panel, name, each, found[name], configured[name])
    for panel in panels[len(curves) :]:
        panel.set_axis_off()
    figure.suptitle("loss that a learning rate leads to, a line a seed", fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(picture.getvalue()))


def draw_part(
    panel: "Axes", name: str, curves: Sequence[RateCurve], found: Suggestion, configured: float
) -> None:
    """Draws the curves of one part, with its suggested and its configured rate."""
    for curve in curves:
        panel.plot(curve.rates[: len(curve.losses)], curve.losses, color="#4c78a8", alpha=0.7)
    if found.rate is not None:
        label = f"suggested {found.rate:.2g}"
        panel.axvline(found.rate, color="#d1495b", label=label)
    panel.axvline(configured, color="#868e97", linestyle="--", label=f"configured {configured:.2g}")

    # where losses diverge the rest would be a flat line
    tops = [curve.losses[0] for curve in curves if len(curve.losses)]
    lows = [curve.losses.min() for curve in curves if len(curve.losses)]
    if tops and max(tops) > min(lows):
        room = max(tops) - min(lows)
        panel.set_ylim(min(lows) - 0.1 * room, max(tops) + 0.5 * room)
    panel.set_xscale("log")
    panel.set_title(name, fontsize=9, loc="left")
    panel.tick_params(labelsize=7)
    panel.legend(fontsize=7, frameon=False)
