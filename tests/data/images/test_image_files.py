import os
import pickle
import zipfile
from pathlib import Path

import pytest

from src.data.images.image_files import ImageFiles, find_images_of, holds_images
from src.data.images.images import BadImage
from src.errors import UserError
from tests.data.images.made_images import make_table, zip_images


@pytest.mark.parametrize("within", [None, "", "photos/"])
def test_folders_and_archives_have_the_same_files(tmp_path: Path, within: str | None) -> None:
    make_table(tmp_path, 7)
    (tmp_path / "images" / "notes.txt").touch()
    (tmp_path / "images" / "._000.png").touch()
    folder = ImageFiles(tmp_path / "images")
    files = folder if within is None else ImageFiles(zip_images(tmp_path, within))
    names = files.list_images()
    assert len(names) == 7
    assert names == folder.list_images()
    for name in names:
        assert files.read(name) == (tmp_path / "images" / name).read_bytes()
        assert files.find_size(name) == (tmp_path / "images" / name).stat().st_size
    if within:
        assert files.read(within + names[0]) == files.read(names[0])


def test_what_macos_adds_is_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("top/", "top/a.png", "top/b/c.JPG", "__MACOSX/top/._a.png"):
            file.writestr(name, b"x")
    assert ImageFiles(tmp_path / "a.zip").list_images() == ["a.png", "b/c.JPG"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_is_not_there(tmp_path: Path, kind: str) -> None:
    make_table(tmp_path, 3)
    path = zip_images(tmp_path) if kind == "zip" else tmp_path / "images"
    files = ImageFiles(path)
    assert files.find_size("x.png") is None
    with pytest.raises(BadImage, match=f"there is no such file in {path}"):
        files.read("x.png")


@pytest.mark.parametrize("name", ["../labels.csv", "/etc/hostname", "a/../../labels.csv"])
def test_names_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    make_table(tmp_path, 3)
    files = ImageFiles(tmp_path / "images")
    assert files.find_size(name) is None
    with pytest.raises(BadImage, match="its name leads out of"):
        files.read(name)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing: there is no such folder, nor such a \.zip file"):
        ImageFiles(tmp_path / "nothing")
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"a\.zip: cannot be read as a \.zip file"):
        ImageFiles(tmp_path / "a.zip").list_images()


def test_where_the_images_of_a_table_are(tmp_path: Path) -> None:
    table = make_table(tmp_path, 3)
    archive = zip_images(tmp_path)
    assert not holds_images(str(table))
    assert find_images_of(str(table)) == tmp_path
    assert find_images_of(str(tmp_path / "images")) == tmp_path / "images"
    assert find_images_of(str(archive)) == archive
    # a compressed table is no archive of images
    with zipfile.ZipFile(tmp_path / "labels.csv.zip", "w") as file:
        file.write(table, "labels.csv")
    assert find_images_of(str(tmp_path / "labels.csv.zip")) == tmp_path


def test_each_process_opens_the_archive_for_itself(tmp_path: Path) -> None:
    """A handle that is shared over a fork has one position for both processes."""
    make_table(tmp_path, 5)
    files = ImageFiles(zip_images(tmp_path))
    name = files.list_images()[0]
    content = files.read(name)
    ours = files._open()
    assert files._open() is ours
    read, write = os.pipe()
    if os.fork() == 0:
        theirs = files.read(name)
        os.write(write, b"1" if theirs == content and files._open() is not ours else b"0")
        os._exit(0)
    assert os.read(read, 1) == b"1"
    os.wait()
    os.close(read)
    os.close(write)
    assert files.read(name) == content

    again = pickle.loads(pickle.dumps(files))
    assert again._zip is None
    assert again.read(name) == content
    again.close()
    files.close()
