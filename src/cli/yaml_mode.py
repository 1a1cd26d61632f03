"""Makes jsonargparse read and write YAML 1.2, as this project does."""

from typing import Any, cast

from jsonargparse import _loaders_dumpers as loaders_dumpers
from jsonargparse import set_dumper, set_parsing_settings

from src.files.yaml12 import Loader, dump


def use_yaml_12() -> None:
    """Sets how jsonargparse reads values, and writes them.

    Its own loader takes ``NO`` for false and ``12:30`` for 750. The public ``set_loader`` changes
    how files are read, but not how single values are.
    """
    cast(Any, loaders_dumpers).yaml_default_loader = Loader
    set_dumper("yaml", dump)
    # a value of any type stays as it was given: no class is built of it
    set_parsing_settings(instantiate_subclass_spec_in_any=False)
