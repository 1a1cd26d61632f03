"""Limits that cannot be."""

import pytest

from src.deployment.serving.limits import Limits
from src.errors import UserError


@pytest.mark.parametrize("name", ["max_body", "max_rows", "max_waiting", "max_batch", "time_limit"])
def test_a_limit_of_nothing_is_refused(name: str):
    with pytest.raises(UserError, match=f"--{name} is 0; it must be"):
        Limits(**{name: 0})
