"""The files of a treebank in a folder: found by the names that public releases give them."""

from pathlib import Path

from src.data.download import fetch
from src.errors import UserError

SOURCE = "https://universaldependencies.org or https://github.com/UniversalDependencies"
SIDES = {"train": "train", "val": "dev", "test": "test"}  # our names, and those of the files

# the English Web Treebank as of UD 2.16, and Universal NER's labels of its dev and test sentences
EWT = (
    "https://raw.githubusercontent.com/UniversalDependencies/UD_English-EWT/"
    "15d613d8447b3478787d4c278730a1e48a945efb/"
)
UNER = (
    "https://raw.githubusercontent.com/UniversalNER/UNER_English-EWT/"
    "8ed072de2fd24022cc62458997fe96a8fe191ea4/"
)
HASHES = {
    f"{EWT}en_ewt-ud-train.conllu": (
        "3fb78e2b55482c8ee00caa653af436c88c9e5bc9a73ce26e4ae3ddc79d2b7e7b"
    ),
    f"{EWT}en_ewt-ud-dev.conllu": (
        "531a54ff90d6ab12201c5a50c3e78e6ddac4de69abc4bce5d275d3cd29efe2b6"
    ),
    f"{EWT}en_ewt-ud-test.conllu": (
        "e266e515a0a7547657ed3d90d9ba46487d6bd251f27ad4269d4e8a427c8555cd"
    ),
    f"{UNER}en_ewt-ud-dev.iob2": (
        "0cafd881cf31d39897b6d588420fab8fbbe4423d271725c59921ac9dd49c0713"
    ),
    f"{UNER}en_ewt-ud-test.iob2": (
        "821ad826d5f503ac03b4edc3fbc2174f21fbb005ec25863caf2051c434616d6e"
    ),
}


def find_treebank(root: str, download: bool) -> dict[str, list[Path]]:
    """Returns the CoNLL-U files of each side of a treebank; val has none where there is no dev.

    Args:
        root: The folder.
        download: Whether the English Web Treebank is fetched into a folder without a treebank.

    Raises:
        UserError: There is no treebank, or there are several.
    """
    found = {side: list_files(root, name, "conllu") for side, name in SIDES.items()}
    if download and not any(found.values()):
        fetch_ewt(root)
        return find_treebank(root, download=False)

    lacking = [f"*-ud-{SIDES[side]}.conllu" for side in ("train", "test") if not found[side]]
    if lacking:
        raise UserError(
            f"{root}: {' and '.join(lacking)} (or .gz) missing; get a treebank of Universal "
            f"Dependencies from {SOURCE}, or add --data.download true for English EWT"
        )
    names = {path.name.partition("-ud-")[0] for files in found.values() for path in files}
    if len(names) > 1:
        raise UserError(f"{root}: holds several treebanks ({', '.join(sorted(names))}): keep one")
    return found


def find_entities(folder: str) -> dict[str, list[Path]]:
    """Returns the IOB2 files of each side that has any.

    Raises:
        UserError: There are none.
    """
    found = {side: list_files(folder, name, "iob2") for side, name in SIDES.items()}
    if not any(found.values()):
        raise UserError(
            f"{folder}: no *-ud-dev.iob2 (or .gz) is there, which data.targets 'ner' takes; get "
            "them from https://github.com/UniversalNER, or leave out ner"
        )
    return {side: files for side, files in found.items() if files}


def list_files(folder: str, side: str, ending: str) -> list[Path]:
    """Lists the files of a side; large treebanks have several, as train-a and train-b."""
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).glob(f"*-ud-{side}*.{ending}*")):
        # of a file and its gzipped copy, one will do
        if path.is_file() and path.suffix in (f".{ending}", ".gz"):
            found.setdefault(path.name.removesuffix(".gz"), path)
    return list(found.values())


def fetch_ewt(root: str) -> None:
    """Fetches the English Web Treebank and its entities, with their checksums checked."""
    for url, sha256 in HASHES.items():
        fetch(url, Path(root) / url.rpartition("/")[2], sha256)
