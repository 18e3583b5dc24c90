"""Any PyTorch module as an encoder, and encoders from outside the package."""

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot import encoders
from metarl.fewshot.encoders import ENCODERS, Conv4Config, Encoder, MlpConfig, ModuleConfig, ModuleEncoder
from metarl.fewshot.encoders.mlp import Mlp
from metarl.fewshot.examples import Batch, TaskSignature
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.matching import MatchingConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.fewshot.reptile import ReptileConfig
from metarl.fewshot.transfer import TransferConfig
from metarl.testing import learners as contract
from metarl.testing.toy_tasks import IMAGES, VECTORS, ToyTasks

HERE = __file__


def plain(signature: TaskSignature) -> nn.Module:
    """Two layers."""
    return nn.Sequential(nn.Linear(signature.shape[0], 12), nn.Tanh(), nn.Linear(12, 5))


def normalising(signature: TaskSignature) -> nn.Module:
    """A convolution with batch norm, and a constant buffer."""
    return nn.Sequential(Scaled(), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(4))


class Scaled(nn.Module):
    """x times a constant that is kept as a buffer."""

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Counting(nn.Linear):
    """Counts its calls in a buffer."""

    calls: Tensor

    def __init__(self, signature: TaskSignature) -> None:
        super().__init__(signature.shape[0], 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, input: Tensor) -> Tensor:
        self.calls.add_(1)
        return super().forward(input)


def parameters_of(encoder: Encoder) -> dict[str, Tensor]:
    return encoder.init(torch.Generator().manual_seed(0))


def test_it_is_the_module_as_a_function() -> None:
    encoder = ModuleEncoder(plain, VECTORS)
    assert isinstance(encoder, Encoder) and encoder.num_features == 5 and not encoder.normalises
    parameters = parameters_of(encoder)
    module = plain(VECTORS)
    module.load_state_dict(parameters)
    inputs = torch.randn(7, 16)
    torch.testing.assert_close(encoder(parameters, inputs).features, module(inputs).detach())
    own = {name: torch.stack([value, 2 * value]) for name, value in parameters.items()}
    both = torch.randn(2, 7, 16)
    by_task = encoder(own, both).features
    for task in range(2):
        alone = encoder({name: value[task] for name, value in own.items()}, both[task]).features
        torch.testing.assert_close(by_task[task], alone)
    torch.testing.assert_close(encoder(parameters, both).features[1], encoder(parameters, both[1]).features)


def test_its_first_parameters_follow_from_the_seed_and_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    encoder = ModuleEncoder(plain, VECTORS)
    one, again = parameters_of(encoder), parameters_of(encoder)
    other = encoder.init(torch.Generator().manual_seed(1))
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not torch.equal(one["0.weight"], other["0.weight"])
    assert torch.equal(before, torch.random.get_rng_state())


def test_batch_norm_takes_and_tells_its_statistics() -> None:
    """PyTorch's own layers in training and in evaluation are the oracles."""
    encoder = ModuleEncoder(normalising, IMAGES)
    assert encoder.normalises and encoder.initial_statistics().keys() == {"2"}
    parameters, inputs = parameters_of(encoder), torch.randn(9, 1, 8, 8)
    module = normalising(IMAGES).train()
    module.load_state_dict(parameters, strict=False)
    features, statistics = encoder(parameters, inputs)
    torch.testing.assert_close(features, module(inputs).flatten(1).detach())
    norm = module.get_submodule("2")
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    torch.testing.assert_close(statistics["2"][0], norm.running_mean / 0.1)
    module.eval()
    norm.load_state_dict({"running_mean": statistics["2"][0], "running_var": statistics["2"][1]}, strict=False)
    torch.testing.assert_close(
        encoder(parameters, inputs[:2], statistics).features, module(inputs[:2]).flatten(1).detach()
    )
    tasks = torch.randn(3, 9, 1, 8, 8)
    each = encoder(parameters, tasks)
    assert each.statistics["2"][0].shape == (3, 4)
    torch.testing.assert_close(each.features[1], encoder(parameters, tasks[1]).features)
    first = encoder.initial_statistics()["2"]
    assert torch.equal(first[0], torch.zeros(4)) and torch.equal(first[1], torch.ones(4))


def test_it_pickles_without_its_modules() -> None:
    encoder = ModuleEncoder(plain, VECTORS)
    again = pickle.loads(pickle.dumps(encoder))
    assert again == encoder and len(pickle.dumps(encoder)) < 1000
    inputs = torch.randn(4, 16)
    torch.testing.assert_close(
        again(parameters_of(encoder), inputs).features, encoder(parameters_of(encoder), inputs).features
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda _: nn.Sequential(nn.Linear(16, 4), nn.Dropout(0.1)),
            "dropout (layer '1') draws from a hidden generator",
        ),
        (Counting, "buffer 'calls' changes when it is called"),
        (lambda _: nn.BatchNorm1d(16, track_running_stats=False), "must have track_running_stats=True"),
        (lambda _: nn.Flatten(0), "a row of features for each example, got [32, 1] for 2"),
        (lambda _: 3, "must return a torch.nn.Module, got int"),
    ],
)
def test_modules_that_are_no_functions_are_refused(make: Callable[[TaskSignature], nn.Module], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the message has brackets of its own
        ModuleEncoder(make, VECTORS)
    assert message in str(error.value)


@pytest.mark.parametrize("strategy", ["stacked", "loop"])
def test_maml_adapts_a_module_with_batch_norm_as_an_explicit_loop_does(strategy: str) -> None:
    """Second derivatives included: the meta-gradient, from Adam's first moment."""
    learner = MamlConfig(
        strategy=strategy,  # pyright: ignore[reportArgumentType]
        inner_lr=0.3,
        encoder=ModuleConfig(f"{HERE}:normalising"),
    ).build(IMAGES)
    batch, state = ToyTasks(IMAGES).sample(3, 2, np.random.default_rng(0), shots=2), learner.init(0)
    after, _ = learner.meta_step(state, batch, np.random.default_rng(0))
    module = normalising(IMAGES).train()
    leaves = {name: value.clone().requires_grad_() for name, value in state.parameters.items()}

    def loss(parameters: dict[str, Tensor], part: str, task: int) -> Tensor:
        own = {name.removeprefix("encoder."): value for name, value in parameters.items() if "encoder." in name}
        examples = getattr(batch, part)
        features = torch.func.functional_call(module, own, (examples.inputs[task],)).flatten(1)
        logits = features @ parameters["head.weight"] + parameters["head.bias"]
        return nn.functional.cross_entropy(logits, examples.targets[task])

    total = torch.zeros(())
    for task in range(3):
        gradients = torch.autograd.grad(loss(leaves, "support", task), list(leaves.values()), create_graph=True)
        adapted = {name: leaves[name] - 0.3 * g for name, g in zip(leaves, gradients, strict=True)}
        total = total + loss(adapted, "query", task) / 3
    expected = torch.autograd.grad(total, list(leaves.values()))
    for name, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(10 * after.optimizer[f"exp_avg.{name}"], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_vmap_is_refused_where_pytorchs_second_derivatives_are_wrong() -> None:
    with pytest.raises(ValueError, match="wrong second derivatives under vmap"):
        MamlConfig(strategy="vmap", encoder=MODULE).build(IMAGES)
    MamlConfig(strategy="vmap", encoder=ModuleConfig(f"{HERE}:plain")).build(VECTORS)


MODULE = ModuleConfig(f"{HERE}:normalising")
LEARNERS = {
    "maml": MamlConfig(encoder=MODULE, test_steps=2),
    "reptile": ReptileConfig(encoder=MODULE, test_steps=2),
    "prototypical": PrototypicalConfig(encoder=MODULE),
    "matching": MatchingConfig(encoder=MODULE),
    "transfer": TransferConfig(encoder=MODULE, fit_steps=3),
    "finetune": TransferConfig(encoder=MODULE, fit="finetune", fit_steps=3),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_learners_keep_their_contract_with_it(name: str) -> None:
    learner, tasks = LEARNERS[name].build(IMAGES), ToyTasks(IMAGES)
    state = contract.check_init(learner, 0)
    assert "encoder.1.weight" in state.parameters
    contract.check_predictions(learner, state, tasks.held_out(3, shots=2))
    contract.check_meta_step(learner, state, tasks.collect(learner, state, 0, 0), 0)


# The registry


@dataclasses.dataclass(frozen=True)
class NarrowConfig:
    """An encoder of somebody else's."""

    width: int = 7

    def build(self, signature: TaskSignature) -> Mlp:
        return MlpConfig((self.width,)).build(signature)


OUTSIDE = """
import dataclasses
import torch
from metarl.fewshot.encoders import MlpConfig

def make(signature):
    return torch.nn.Sequential(torch.nn.Linear(signature.shape[0], 6), torch.nn.Tanh())

@dataclasses.dataclass(frozen=True)
class MyEncoder:
    width: int = 9
    def build(self, signature):
        return MlpConfig((self.width,)).build(signature)

number = 3
"""


def test_an_encoder_is_registered_under_a_name() -> None:
    encoders.register("narrow", NarrowConfig)
    encoders.register("plain", plain)
    assert encoders.default_options("narrow") == NarrowConfig()
    assert encoders.default_options("plain") == ModuleConfig("plain")
    assert encoders.id_of(NarrowConfig(3)) == "narrow" and encoders.id_of(ModuleConfig("plain")) == "plain"
    assert encoders.default_options("conv4") == Conv4Config() and encoders.id_of(MlpConfig()) == "mlp"
    contract.check_learner(PrototypicalConfig(meta_batch=4, encoder=ModuleConfig("plain")), VECTORS, outer_steps=5)
    with pytest.raises(ValueError, match="there is an encoder called 'conv4' already"):
        encoders.register("conv4", NarrowConfig)


def test_encoders_of_a_file_outside_are_found_by_their_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(OUTSIDE)
    monkeypatch.chdir(tmp_path)
    for id, features in (("mine.py:make", 6), ("mine.py:MyEncoder", 9)):
        options = encoders.default_options(id)
        assert options.build(VECTORS).num_features == features
        remembered = encoders.id_of(options)  # found from every folder
        assert remembered == f"{(tmp_path / 'mine.py').resolve()}:{id.partition(':')[2]}"
        assert encoders.default_options(remembered) == options
        learner = PrototypicalConfig(encoder=options).build(VECTORS)
        batch: Batch = ToyTasks(VECTORS).held_out(2)
        adapted = learner.start(learner.init(0), 2).adapt(batch.support)
        again = pickle.loads(pickle.dumps(adapted))
        assert torch.equal(again.predict(batch.query.inputs), adapted.predict(batch.query.inputs))
    for id, message in (
        ("mine.py:number", "is not an encoder: it must be a dataclass"),
        ("mine.py:MyEncode", "did you mean MyEncoder"),
        ("conv5", "unknown encoder 'conv5'; did you mean conv4"),
    ):
        with pytest.raises(ValueError, match=message):
            ENCODERS[id]
    with pytest.raises(ValueError, match="is a dataclass of options, not a function"):
        ModuleConfig("conv4").build(IMAGES)


def test_the_default_follows_the_inputs() -> None:
    assert encoders.build(None, VECTORS) == MlpConfig().build(VECTORS)
    assert encoders.build(None, IMAGES) == Conv4Config().build(IMAGES)
    with pytest.raises(ValueError, match="not for inputs of shape .*; give one of your own"):
        encoders.build(None, dataclasses.replace(VECTORS, shape=(3, 4)))
    with pytest.raises(ValueError, match="wants vectors"):
        PrototypicalConfig(encoder=MlpConfig()).build(IMAGES)
