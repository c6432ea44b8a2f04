"""`examine` changes nothing and raises nothing; and findings that need more than a table of setups."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from losslab import losses
from losslab.data.batch import Batch
from losslab.doctor import Severity, examine, report

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.randint(5, (32,), generator=torch.Generator().manual_seed(2))


def names(found) -> list[str]:
    return [finding.name for finding in found]


def test_doctor_imports_no_library_but_torch():
    code = (
        "import sys, losslab.doctor\n"
        "print(sorted({'hydra', 'omegaconf', 'lightning', 'torchmetrics', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Restless(nn.Module):
    """A network whose forward pass changes random generators, attributes, buffers, lists and dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 5))
        self.register_buffer("calls", torch.zeros(1))
        self.count, self.seen, self.cache = 0, [], {}

    def forward(self, inputs):
        self.count += 1
        self.calls = self.calls + 1
        self.seen.append(float(inputs.mean()))
        self.cache[self.count] = random.random() + np.random.rand()  # noqa: S311, NPY002
        self.newest = inputs
        return self.layers(inputs)


@pytest.mark.parametrize("training", [True, False])
def test_examine_changes_nothing(training):
    torch.manual_seed(0)
    network, loss = Restless(), nn.CrossEntropyLoss()
    network.train(training)
    network.layers[1].eval()  # frozen statistics
    network.layers[0].weight.grad = torch.ones(16, 8)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()]
    modes = [module.training for module in network.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    found = examine(network, loss, (X, LABELS), optimizer=optimizer)
    assert names(found) == ([] if training else ["evaluation-mode"])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]  # noqa: NPY002
    assert [module.training for module in network.modules()] == modes
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()] == hooks
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert (network.count, network.seen, network.cache, hasattr(network, "newest")) == (0, [], {}, False)
    assert torch.equal(network.layers[0].weight.grad, torch.ones(16, 8))
    assert network.layers[3].weight.grad is None
    assert not optimizer.state


def test_batch_may_contain_more_than_inputs_and_target():
    batch = Batch(X, LABELS, LABELS, torch.arange(32))
    assert not examine(nn.Linear(8, 5), losses.CrossEntropy(), batch)
    assert not examine(nn.Linear(8, 5), losses.CrossEntropy(), [X, LABELS, "anything"])


@pytest.mark.parametrize(
    ("network", "loss", "batch", "name"),
    [
        (nn.Linear(8, 5), nn.CrossEntropyLoss(), {"x": X, "y": LABELS}, "batch-no-pair"),
        (nn.Linear(8, 5), nn.CrossEntropyLoss(), (X,), "batch-no-pair"),
        (nn.Linear(9, 5), nn.CrossEntropyLoss(), (X, LABELS), "network-raises"),
        (nn.Linear(8, 5), nn.CrossEntropyLoss(), (X.double(), LABELS), "network-raises"),
        (nn.Linear(8, 5), nn.CrossEntropyLoss(), ("words", "labels"), "network-raises"),
        (nn.Conv2d(3, 5, 1), nn.MSELoss(), (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), LABELS), "network-raises"),
        (nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)), nn.MSELoss(), (X[:1], X[:1, :4]), "network-raises"),
        (nn.Linear(8, 5), lambda: 0, (X, LABELS), "loss-raises"),
        (nn.Linear(8, 5), "mse", (X, LABELS), "loss-raises"),
        (nn.Linear(8, 5), nn.CTCLoss(), (X, LABELS), "loss-raises"),
        (nn.Linear(8, 5), nn.TripletMarginLoss(), (X, LABELS), "loss-raises"),
        (nn.Linear(8, 5), nn.CrossEntropyLoss(), (X, LABELS[:5]), "loss-raises"),
        (nn.Linear(8, 5), nn.CrossEntropyLoss(), (X, None), "loss-raises"),
        (lambda x: x[:, :5], nn.CrossEntropyLoss(), (X, LABELS), None),
        (nn.Identity(), nn.CrossEntropyLoss(), (X[:, :5], LABELS), None),
        (nn.LazyLinear(5), nn.CrossEntropyLoss(), (X, LABELS), None),
        (nn.Linear(8, 5), lambda o, t: F.cross_entropy(o[t >= 0], t[t >= 0]), (X, LABELS), None),
        (nn.LSTM(8, 5), lambda o, t: F.cross_entropy(o[0], t), (X, LABELS), None),
        (nn.Linear(8, 5), lambda o, t: F.cross_entropy(o, t["labels"]), (X, {"labels": LABELS}), None),
        (nn.Linear(8, 5).bfloat16(), nn.CrossEntropyLoss(), (X.bfloat16(), LABELS), None),
        (nn.Linear(8, 5).double(), nn.CrossEntropyLoss(), (X.double(), LABELS), None),
        (torch.compile(nn.Linear(8, 5), backend="eager"), nn.CrossEntropyLoss(), (X, LABELS), None),
    ],
)  # fmt: skip
def test_examine_raises_nothing(network, loss, batch, name):
    found = examine(network, loss, batch)
    assert names(found) == ([] if name is None else [name]), report(found)


def test_lazy_network_stays_lazy():
    network = nn.LazyLinear(5)
    examine(network, nn.CrossEntropyLoss(), (X, LABELS))
    assert network.has_uninitialized_params()


def test_finding_of_an_exception_has_a_fix():
    found = examine(nn.Linear(8, 5), nn.CrossEntropyLoss(), (X.double(), LABELS))[0]
    assert "float64 (32, 8)" in found.problem
    assert "inputs.float()" in found.fix
    found = examine(nn.Linear(8, 5), nn.GaussianNLLLoss(), (X, X[:, :5]))[0]
    assert "lambda outputs, target" in found.fix


def test_optimizer_of_another_network_is_found():
    optimizer = torch.optim.Adam(nn.Linear(8, 5).parameters())
    assert names(examine(nn.Linear(8, 5), nn.CrossEntropyLoss(), (X, LABELS), optimizer=optimizer)) == [
        "optimizer-elsewhere"
    ]


def test_outputs_that_share_a_sign_by_chance_are_not_taken_for_rectified():
    for seed in range(100):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
        found = examine(network, nn.BCEWithLogitsLoss(), (torch.rand(32, 8), (torch.rand(32, 1) > 0.5).float()))
        assert not found, report(found)


def test_lowest_loss_with_a_second_softmax_is_that_of_the_textbook():
    network = nn.Sequential(nn.Linear(8, 10), nn.Softmax(1))
    finding = examine(network, nn.CrossEntropyLoss(), (X, LABELS))[0]
    assert "cannot fall below 1.4612" in finding.why
    assert "Softmax (layer 1)" in finding.problem


def test_no_lowest_loss_is_claimed_for_soft_targets():
    network = nn.Sequential(nn.Linear(8, 2), nn.Softmax(1))
    soft = torch.tensor([[0.9, 0.1]]).repeat(32, 1)  # the loss is lower at the outputs (1, 0) than at the target
    (finding,) = examine(network, nn.CrossEntropyLoss(), (X, soft))
    assert finding.name == "softmax-in-network"
    assert "cannot fall below" not in finding.why


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Sigmoid()])
@pytest.mark.parametrize(("loss", "target"), [(nn.MultiMarginLoss(), LABELS), (nn.SoftMarginLoss(), X[:, :5].sign())])
def test_finding_on_a_margin_loss_states_that_the_loss_takes_unbounded_scores(loss, target, end):
    found = examine(nn.Sequential(nn.Linear(8, 5), end), loss, (X, target))
    assert "the loss takes unbounded scores" in found[0].why


def test_optimal_probabilities_are_where_the_loss_is_lowest():
    weight, smoothing = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64), 0.3
    from losslab.doctor.checks_optimizer import optimal_probabilities

    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        descent.zero_grad()
        # The mean would divide by the weight of the example, which does not change the optimum.
        loss = F.cross_entropy(logits, torch.tensor([0]), weight=weight, label_smoothing=smoothing, reduction="sum")
        loss.backward()
        return loss

    descent.step(closure)
    torch.testing.assert_close(
        logits.detach().softmax(1)[0], optimal_probabilities(weight, smoothing, 0), atol=1e-5, rtol=0
    )


def test_errors_come_first_and_each_finding_takes_three_lines():
    inputs = 1000 * X
    found = examine(nn.Sequential(nn.Linear(8, 5), nn.Softmax(1)), nn.CrossEntropyLoss(), (inputs, LABELS))
    assert [finding.severity for finding in found] == [Severity.ERROR, Severity.WARNING]
    assert len(report(found).splitlines()) == 6
    assert "\n" not in found[0].line
    assert report([]) == "nothing found"
