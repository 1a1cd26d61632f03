"""Small files of images with labels per pixel, in the forms that data modules read."""

from pathlib import Path

import numpy as np
from PIL import Image


def draw_scene(
    rng: np.random.Generator, height: int = 12, width: int = 16
) -> dict[str, np.ndarray]:
    """Draws an image with a bright square, and labels that follow from it, some missing."""
    mask = np.zeros((height, width), dtype=np.uint8)
    y, x = rng.integers(0, height - 4), rng.integers(0, width - 4)
    mask[y : y + 4, x : x + 4] = 1
    image = (mask * 150 + rng.integers(0, 60, mask.shape)).astype(np.uint8)
    depth = 1 + 2.0 * mask + 0.1 * rng.random(mask.shape)
    normal = np.stack([0.6 * mask, 0 * mask, 1 - 0.2 * mask], -1)
    labelled = mask.copy()
    labelled[0, :3], depth[1, :2], normal[2, :2] = 255, 0, 0
    return {"image": image, "mask": labelled, "depth": depth, "normal": normal}


def write_folder(root: Path, rows: int = 12, seed: int = 0) -> Path:
    """Writes image/, mask/, depth/, normal/ and share/, a number an image."""
    rng = np.random.default_rng(seed)
    for row in range(rows):
        scene = draw_scene(rng)
        for part, values in scene.items():
            place = root / part
            place.mkdir(parents=True, exist_ok=True)
            if values.dtype == np.uint8:
                Image.fromarray(values).save(place / f"{row}.png")
            else:
                np.save(place / f"{row}.npy", values.astype(np.float32))
        (root / "share").mkdir(exist_ok=True)
        np.save(root / "share" / f"{row}.npy", np.array(scene["image"].mean() / 255))
    return root


def write_published(
    root: Path, label: str = "label", classes: int = 13, normals: bool = True, train: int = 10
) -> Path:
    """Writes train/ and val/ as MTAN has NYUv2 and Cityscapes, of 12 x 16 pixels."""
    rng = np.random.default_rng(0)
    for side, rows in (("train", train), ("val", 4)):
        for row in range(rows):
            scene = draw_scene(rng)
            ids = rng.integers(0, classes, scene["mask"].shape).astype(np.float32)
            ids[scene["mask"] == 255] = -1
            parts: dict[str, np.ndarray] = {
                "image": rng.random((*ids.shape, 3)),
                label: ids,
                "depth": scene["depth"][..., None],
            }
            if normals:
                parts["normal"] = scene["normal"]
            for part, values in parts.items():
                (root / side / part).mkdir(parents=True, exist_ok=True)
                np.save(root / side / part / f"{row}.npy", values)
    return root


def draw_nuclei(rng: np.random.Generator, size: int = 32, nuclei: int = 4) -> np.ndarray:
    """Draws a map of instances: discs, later ones over earlier ones."""
    y, x = np.mgrid[:size, :size]
    instances = np.zeros((size, size), dtype=np.uint16)
    for number in range(1, nuclei + 1):
        center = rng.integers(0, size, 2)
        instances[(y - center[0]) ** 2 + (x - center[1]) ** 2 < rng.integers(9, 40)] = number
    return instances


def write_nuclei(root: Path, rows: int = 20) -> Path:
    """Writes the arrays images, instances and ids."""
    rng = np.random.default_rng(0)
    instances = np.stack([draw_nuclei(rng, nuclei=int(rng.integers(1, 7))) for _ in range(rows)])
    noise = rng.integers(0, 20, instances.shape)
    images = ((instances > 0) * 60 + noise).astype(np.uint8)
    ids = np.array([f"{number:04x}" for number in rng.permutation(rows)])
    root.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(root / "nuclei.npz", images=images, instances=instances, ids=ids)
    return root
