"""Small synthetic texts."""

import numpy as np

THINGS = ("tea", "rain", "bread", "trains", "moons", "violins", "boots", "tigers", "chess", "salt", "kites", "glue")
FRAMES = ("tell me about {}", "I want more {}", "{} please", "why is there {}", "where can I buy {}", "{} or not",
          "no {} today", "who likes {}")  # fmt: skip


def texts_and_labels(classes: int = 12) -> tuple[list[str], np.ndarray]:
    """Sentences about one of so many things, and its number."""
    pairs = [(frame.format(thing), number) for number, thing in enumerate(THINGS[:classes]) for frame in FRAMES]
    return [text for text, _ in pairs], np.array([number for _, number in pairs])


def csv_of(classes: int = 12) -> str:
    """The same as a file."""
    texts, labels = texts_and_labels(classes)
    rows = [f"{text},{THINGS[label]}" for text, label in zip(texts, labels.tolist(), strict=True)]
    return "\n".join(["text,label", *rows]) + "\n"
