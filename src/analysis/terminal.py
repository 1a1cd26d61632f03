"""Tables of a report on a terminal, never wider than it: columns are folded into several blocks."""

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

from src.analysis.tables import Cell, Column, ReportTable

GAP = 2  # blanks between columns
LEAST_NAME = 12  # a name is cut to no less than this many characters


class FoldedTable(JupyterMixin):
    """A table that fits into the console.

    Columns that do not fit side by side follow in further blocks, and names are cut if they must
    be. Numbers are never cut.

    Args:
        table: The table.
    """

    def __init__(self, table: ReportTable) -> None:
        self.table = table

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Yields the title and the blocks."""
        yield Text(self.table.title, style="bold")
        longest = max((cell_len(name) for name in self.table.rows), default=0)
        widest = max((measure_width(column) for column in self.table.columns), default=0)
        room = options.max_width
        size = max(min(longest, room - widest), min(longest, LEAST_NAME))
        for columns in fold_columns(self.table.columns, room - size):
            yield make_block(self.table.rows, columns, size)


def make_block(rows: list[str], columns: list[Column], size: int) -> Table:
    """Returns columns side by side, behind the names of the rows.

    Args:
        rows: The names.
        columns: The columns.
        size: Characters of a name.
    """
    block = Table(box=None, padding=(0, 0, 0, 0), pad_edge=False, header_style="")
    block.add_column("", width=size, no_wrap=True, overflow="ellipsis")
    for column in columns:
        heading = Text("\n".join(column.heading), justify="right" if column.is_number else "left")
        block.add_column(
            heading,
            justify="right" if column.is_number else "left",
            # words may be wider than a terminal, and are then broken
            no_wrap=column.is_number,
            overflow="fold",
        )
        block.columns[-1].width = None
    for row, name in enumerate(rows):
        block.add_row(Text(name), *(draw_cell(column.cells[row]) for column in columns))
    block.padding = (0, GAP, 0, 0)
    return block


def draw_cell(cell: Cell) -> Text:
    """Returns a cell with its mark."""
    return Text(cell.text + cell.mark, style="bold" if cell.bold else "")


def measure_width(column: Column) -> int:
    """Returns the characters of a column, with the blanks before it."""
    texts = [*column.heading, *(cell.text + cell.mark for cell in column.cells)]
    return GAP + max(cell_len(text) for text in texts)


def fold_columns(columns: list[Column], room: int) -> list[list[Column]]:
    """Folds columns into as few blocks as fit; a block has at least one column.

    Args:
        columns: The columns.
        room: Characters of a block, without the names of rows.
    """
    blocks: list[list[Column]] = []
    left = 0
    for column in columns:
        width = measure_width(column)
        if not blocks or width > left:
            blocks.append([])
            left = room
        blocks[-1].append(column)
        left -= width
    return blocks
