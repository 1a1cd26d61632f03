"""A small table with numbers, categories, texts and images, of which each tells one label."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

GOOD = ("lovely", "great", "superb", "fine")
BAD = ("awful", "poor", "dreadful", "weak")
FILL = [f"word{k}" for k in range(30)]
FIELDS = ("age", "city", "comment", "photo", "mood", "bright", "hours")

# flags of small encoders for it
TEXT = ("--data.text", "[comment]")
IMAGES = ("--data.images", "[photo]", "--data.image_size", 8)
SMALL = (
    *("--model.encoder", "Fusion", "--model.encoder.width", 16),
    *("--model.encoder.table", "MLP", "--model.encoder.table.width", 16),
    *("--model.encoder.text", "Transformer", "--model.encoder.text.width", 16),
    *("--model.encoder.text.depth", 1),
    *("--model.encoder.images", "ConvNet", "--model.encoder.images.width", 8),
    *("--model.encoder.images.depth", 1),
)
SENTENCES = (
    *("--data.inputs", "[]", *TEXT, "--model.encoder", "Transformer"),
    *("--model.encoder.width", 32, "--model.encoder.depth", 1, "--model.encoder.pool", "mean"),
)


def write_table(folder: Path, rows: int = 120) -> Path:
    """Writes a table and its photos, and returns its path."""
    photos = folder / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    path = folder / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        for row in range(rows):
            mood, bright = rng.integers(2, size=2)
            words = [*rng.choice(FILL, rng.integers(1, 9)), rng.choice(GOOD if mood else BAD)]
            rng.shuffle(words)
            text = " ".join(words) if row % 40 else ""
            pixels = rng.integers(0, 100, (8, 8, 3)) + 120 * bright
            Image.fromarray(pixels.astype(np.uint8)).save(photos / f"{row}.png")
            age = rng.integers(18, 90)
            city = rng.choice(["Rome", "Oslo", "Lima"])
            labels = ["bad", "good"][mood], ["no", "yes"][bright], round(age / 10, 1)
            writer.writerow([age, city, text, f"photos/{row}.png", *labels])
    return path
