"""Reports on the parts of a model that starts from a trained one."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["kept", "grown", "fresh", "dropped"]


@dataclass(frozen=True)
class PartReport:
    """A part of a model, and where its weights come from.

    Attributes:
        part: Its name: encoder, sharing.<its part> or heads.<task>.
        status: kept: all of its weights are the source's; grown: some are, and others are new;
            fresh: none is; dropped: the source alone has the part.
        why: The reason, or what is new or gone; "" where there is nothing to say.
    """

    part: str
    status: Status
    why: str = ""
