"""The command line of an audit of data: the data are built as for a training, and nothing else."""

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from src.cli.app import CLI
from src.data import MultiTaskDataModule


class DataCLI(CLI):
    """Builds the data that a training with the same flags would see; no model, and no Trainer.

    So data are audited that the configured network cannot read, such as texts by an MLP.
    """

    def before_instantiate_classes(self) -> None:
        """Leaves the devices alone: none is needed."""

    def instantiate_classes(self) -> None:
        """Builds the data; where the run would start from another one, as that run reads them."""
        self.find_start()
        parser = LightningArgumentParser()
        parser.add_subclass_arguments(MultiTaskDataModule, "data")
        built = parser.instantiate(
            Namespace(data=self.config["data"]), instantiators=[(self.build_one, object, True)]
        )
        self.datamodule = built["data"]

    def after_instantiate_classes(self) -> None:
        """Checks nothing: there is no model that the data must fit."""
