"""Finding translations: the adapter against an independent solution, and that meta-training helps."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from metarl.errors import UsageError
from metarl.fewshot.datasets import storage
from metarl.fewshot.texts.encoders import NgramEncoder
from metarl.fewshot.translation import baselines, pairs, retrieval
from metarl.fewshot.translation.adapter import Adapter, AdapterParameters, meta_train
from metarl.fewshot.translation.pairs import LANGUAGES, Language, language
from tests import programs

SIDE = 330


def toy(seed: int, count: int = SIDE, width: int = 24) -> Language:
    """Translations are the sentences, moved by a map of the language's own that is near the identity, and noise."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(count, width))
    x = y @ (np.eye(width) + rng.normal(size=(width, width)) / np.sqrt(width)) + 1.2 * rng.normal(size=y.shape)
    sources, targets = (torch.nn.functional.normalize(torch.from_numpy(each), dim=-1) for each in (x, y))
    noise = rng.normal(size=(2, count, 40))
    psi = noise / np.linalg.norm(noise, axis=-1, keepdims=True)
    ngrams, surface = (torch.from_numpy(psi[0] @ psi[other].T) for other in (0, 1))
    return Language(f"toy{seed}", sources, targets, ngrams, surface, np.arange(count))


def test_the_map_is_scikit_learns_ridge_in_the_joint_features() -> None:
    """With features [φ, √w ψ] the adapter is a ridge regression of φ(y) − φ(x)."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["ab", "cd", "efg", "hi", "jkl"], 4)) for _ in range(40)]
    psi = NgramEncoder(num_features=128).encode(texts).astype(np.float64)
    base = toy(1, 40)
    one = base._replace(ngrams=torch.from_numpy(psi @ psi.T))
    support, query = np.arange(12), np.arange(12, 40)
    weight, strength = 2.5, 0.7
    joint = np.concatenate([one.sources.numpy(), np.sqrt(weight) * psi], axis=1)
    model = Ridge(alpha=strength, fit_intercept=False)
    model.fit(joint[support], (one.targets - one.sources).numpy()[support])
    mapped = one.sources.numpy() + model.predict(joint)
    mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
    cosines = mapped @ one.targets.numpy()[query].T
    near = np.sort(cosines[support], axis=0)[-10:].mean(0)
    expected = cosines[query] + 0.3 * one.surface.numpy()[np.ix_(query, query)] - 0.4 * near
    adapter = Adapter(AdapterParameters(ngrams=weight, ridge=strength, surface=0.3, hubness=0.4))
    np.testing.assert_allclose(adapter.scores(one, support, query, query), expected, atol=1e-9)
    alone = adapter.scores(one, support, query[:1], query)
    np.testing.assert_allclose(alone[0], expected[0], atol=1e-9)  # no query helps another


def test_without_pairs_sentences_stay_where_they_are() -> None:
    one, some = toy(2), np.arange(20)
    none = np.arange(0)
    plain = Adapter(AdapterParameters(surface=0.0)).scores(one, none, some, some)
    torch.testing.assert_close(plain, baselines.unadapted(one, none, some, some))
    far = Adapter(AdapterParameters(ridge=1e9)).scores(one, np.arange(50, 60), some, some)
    torch.testing.assert_close(far, plain, atol=1e-6, rtol=0)


def test_meta_training_helps_on_languages_that_were_never_trained_on() -> None:
    parameters, losses = meta_train([toy(seed) for seed in range(10, 16)], steps=60, seed=0)
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert parameters == meta_train([toy(seed) for seed in range(10, 16)], steps=60, seed=0)[0]
    before, after, first = list[float](), list[float](), list[float]()
    for seed in range(20, 24):
        one = toy(seed)
        drawn = retrieval.draws(one, 100, 200, 3, 0)
        before.append(retrieval.accuracy(one, baselines.unadapted, drawn, 100).mean())
        after.append(retrieval.accuracy(one, Adapter(parameters).scores, drawn, 100).mean())
        first.append(retrieval.accuracy(one, Adapter().scores, drawn, 100).mean())
    assert np.mean(after) > np.mean(before) + 0.05 and np.mean(after) > np.mean(first)


def test_equal_translations_are_both_right_and_draws_never_meet() -> None:
    one = toy(3)
    twins = one._replace(targets=one.targets[np.arange(SIDE) // 2], meanings=np.arange(SIDE) // 2)
    everything = np.arange(SIDE)

    def second(*given: object) -> torch.Tensor:
        return torch.eye(SIDE)[everything ^ 1]

    assert retrieval.retrieved(twins, second, everything[:1], everything).all()
    assert not retrieval.retrieved(one, second, everything[:1], everything).any()
    for draw in retrieval.draws(one, 100, 200, 3, 0):
        assert len(set(draw.support) | set(draw.candidates)) == 300
    with pytest.raises(ValueError, match="100 pairs and 300 candidates need 400 pairs; toy3 has 330"):
        retrieval.draws(one, 100, 300, 3, 0)
    with pytest.raises(ValueError, match="at least 300 pairs each"):
        meta_train([toy(1, 40)], steps=1, seed=0)


def test_languages_of_the_splits_are_disjoint() -> None:
    names = [name for split in LANGUAGES.values() for name in split]
    assert len(names) == len(set(names)) and LANGUAGES["test"] == ("ukr", "ces", "hun", "fin")


def write_archive(root: Path, names: list[str]) -> None:
    path = root / pairs.ARCHIVE.path
    path.parent.mkdir(parents=True)
    words = ["tea", "rain", "bread", "trains", "moons", "boots", "tigers", "chess", "salt", "kites", "glue"]
    with zipfile.ZipFile(path, "w") as archive:
        for seed, name in enumerate(names):
            rng = np.random.default_rng(seed)
            lines = [" ".join(rng.choice(words, 4)) + f" {n}" for n in range(SIDE)]
            archive.writestr(f"tatoeba/v1/tatoeba.{name}-eng.eng", "\n".join(lines) + "\n")
            moved = [line.replace("a", "o").replace("e", "i") for line in lines]
            archive.writestr(f"tatoeba/v1/tatoeba.{name}-eng.{name}", "\n".join(moved) + "\n")


def call(*arguments: str | Path) -> int:
    return programs.call("translation", *arguments)


def test_the_program_prints_and_writes_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"train": ("aaa",), "validation": ("bbb",), "test": ("ccc",)}
    for split, names in small.items():
        monkeypatch.setitem(LANGUAGES, split, names)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(storage, "verify", lambda path, accepted: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_archive(tmp_path, ["aaa", "bbb", "ccc"])
    command = ("--data-root", tmp_path, "--text-encoder", "ngrams", "--steps", "2", "--draws", "2")
    sizes = ("--pairs", "5", "20", "--candidates", "100")
    assert call("--output", tmp_path / "out.json", *command, *sizes) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["retrieval_at_1"].keys() == {"ccc"} and found["languages"]["train"] == ["aaa"]
    methods = found["retrieval_at_1"]["ccc"]
    assert methods.keys() == {"unadapted", "Procrustes", "ridge", "ridge towards identity", "meta-trained"}
    assert methods["meta-trained"].keys() == {"0", "5", "20"} and methods["ridge"].keys() == {"5", "20"}
    assert all(name in printed for name in methods) and found["encoder"].startswith("n-grams")
    assert AdapterParameters(**found["parameters"]) != AdapterParameters()
    assert call("--output", tmp_path / "two.json", *command, "--pairs", "100", "--candidates", "300") == 2
    assert "has 330" in capsys.readouterr().err and not (tmp_path / "two.json").exists()


def test_a_language_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "verify", lambda path, accepted: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_archive(tmp_path, ["aaa"])
    with pytest.raises(UsageError, match="has no language"):
        pairs.load(tmp_path, NgramEncoder(), ("xxx",), lambda name: None)
    with pytest.raises(ValueError, match="aaa has 1 sentences, but 2 translations"):
        language("aaa", ["one"], ["two", "three"], NgramEncoder())
