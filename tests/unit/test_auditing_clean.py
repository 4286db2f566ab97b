"""Set-ups with nothing wrong: the audit must not cry wolf. Neither an error nor a warning, few true notes."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn

from layerlab.auditing import audit
from layerlab.experiments.two_tasks import Network
from layerlab.freezing import freeze

OPTIM = torch.optim

VISION = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=2),
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=2),
    "vit_b_16": lambda: torchvision.models.vit_b_16(num_classes=2, image_size=32),
    "efficientnet_b0": lambda: torchvision.models.efficientnet_b0(num_classes=2),
    "densenet121": lambda: torchvision.models.densenet121(num_classes=2),
    "vgg11_bn": lambda: torchvision.models.vgg11_bn(num_classes=2),
    "squeezenet1_1": lambda: torchvision.models.squeezenet1_1(num_classes=2),
    "convnext_tiny": lambda: torchvision.models.convnext_tiny(num_classes=2),
}


@pytest.fixture(scope="module")
def vision():
    """Each model built once, without a device's time spent on random weights."""
    known = {}

    def make(name):
        if name not in known:
            with torch.device("meta"):
                known[name] = VISION[name]()
        return known[name]

    return make


@pytest.mark.parametrize("name", VISION)
def test_torchvision_with_sgd_and_steps(vision, name):
    model = vision(name)
    optimizer = OPTIM.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)
    assert not audit(model, optimizer, lrs.StepLR(optimizer, 7, 0.1), loss=nn.CrossEntropyLoss())


@pytest.mark.parametrize("name", VISION)
def test_torchvision_with_adamw_groups_and_a_warm_up(vision, name):
    model = vision(name)
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = OPTIM.AdamW([{"params": decay}, {"params": rest, "weight_decay": 0.0}], lr=0.001)
    scheduler = lrs.SequentialLR(
        optimizer, [lrs.LinearLR(optimizer, 0.01, total_iters=5), lrs.CosineAnnealingLR(optimizer, 95)], [5]
    )
    assert not audit(model, optimizer, scheduler, loss=nn.functional.cross_entropy)


def test_a_stock_model_with_a_batch_and_in_the_middle_of_training():
    model = torchvision.models.resnet18(num_classes=2)
    optimizer = OPTIM.SGD(model.parameters(), lr=0.001, momentum=0.9)
    scheduler = lrs.CosineAnnealingLR(optimizer, 10)
    x = torch.randn(2, 3, 32, 32)
    for _ in range(2):
        assert not audit(model, optimizer, scheduler, loss=nn.CrossEntropyLoss(), batch=x)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        scheduler.step()
    scheduler = lrs.CosineAnnealingLR(optimizer, 10)  # resumed from a checkpoint
    scheduler.load_state_dict(copy.deepcopy(scheduler.state_dict()) | {"last_epoch": 3})
    assert not audit(model, optimizer, scheduler)


def test_feature_extraction_with_freeze():
    model = torchvision.models.resnet18(num_classes=2)
    with freeze(model, ["conv1", "bn1", "layer*"]):
        optimizer = OPTIM.SGD([p for p in model.parameters() if p.requires_grad], lr=0.001, momentum=0.9)
        assert not audit(model.train(), optimizer, lrs.StepLR(optimizer, 7))
        assert not audit(model, OPTIM.SGD(model.parameters(), lr=0.001), loss=nn.CrossEntropyLoss())


def test_batchnorm_frozen_in_eval_mode():
    model = torchvision.models.resnet18(num_classes=2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    assert not audit(model, OPTIM.SGD(model.parameters(), lr=0.001))


class Language(nn.Module):
    """A transformer whose output layer is its embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(16, 50, bias=False)
        self.out.weight = self.embedding.weight
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(7))

    def forward(self, tokens):
        return self.out(self.encoder(self.embedding(tokens), mask=self.mask))


def test_a_transformer_with_tied_embeddings():
    model = Language()
    optimizer = OPTIM.AdamW(model.parameters(), lr=0.001)
    scheduler = lrs.LambdaLR(optimizer, lambda step: min(1.0, step / 100))  # a warm-up from zero
    batch = torch.randint(0, 50, (2, 7))
    assert not audit(model, optimizer, scheduler, loss=nn.CrossEntropyLoss(), batch=batch)


class Adapted(nn.Module):
    """A frozen linear layer and a low-rank one that trains beside it."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


@pytest.mark.parametrize("everything", [False, True])
def test_adapters_in_a_frozen_base(everything):
    model = Language().requires_grad_(False)
    for layer in model.encoder.layers:
        layer.linear1, layer.linear2 = Adapted(layer.linear1), Adapted(layer.linear2)
    chosen = model.parameters() if everything else [p for p in model.parameters() if p.requires_grad]
    optimizer = OPTIM.AdamW(chosen, lr=0.001)
    found = audit(model, optimizer, lrs.CosineAnnealingLR(optimizer, 10), loss=nn.CrossEntropyLoss())
    assert found.codes == ("frozen-dropout",)  # in the attention of the base: normal there, and true
    assert {finding.level for finding in found} == {"note"}


def test_biases_alone():
    model = torchvision.models.resnet18(num_classes=2)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    optimizer = OPTIM.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.001)
    assert not audit(model, optimizer)


def test_a_gan_pair():
    generator = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3), nn.Tanh())
    critic = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(), nn.Dropout(), nn.Linear(8, 1), nn.Sigmoid())
    first, second = (OPTIM.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (generator, critic))
    assert not audit(generator, first)
    assert not audit(critic, second, loss=nn.BCELoss())
    assert not audit(nn.ModuleList([generator, critic]), first, second)
    beside = audit(generator, first, second)  # the other's optimizer given too
    assert {finding.level for finding in beside} <= {"note"}


def test_two_tasks_of_lesson_01():
    network = Network()
    found = audit(network, OPTIM.AdamW(network.parameters(), lr=0.9))
    assert {finding.level for finding in found} <= {"note"}


@pytest.mark.parametrize("how", ["requires_grad", "grad_none"])
def test_one_task_of_two_frozen(how):
    network = Network()
    optimizer = OPTIM.SGD(network.parameters(), lr=0.9)
    with freeze(network, "hidden_task1", how):
        assert {finding.level for finding in audit(network, optimizer)} <= {"note"}


@pytest.mark.parametrize(
    "average", [AveragedModel, lambda m: AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn())]
)
def test_averaged_weights(average):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = OPTIM.SGD(model.parameters(), lr=0.1, momentum=0.9)
    averaged = average(model)
    averaged.update_parameters(model)
    schedulers = [lrs.CosineAnnealingLR(optimizer, 10), SWALR(optimizer, swa_lr=0.05)]
    assert not audit(model, optimizer, scheduler=schedulers)
    assert not audit(nn.ModuleDict({"model": model, "average": averaged}), optimizer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).to(dtype)
    optimizer = OPTIM.AdamW(model.parameters(), lr=0.001)
    assert not audit(model, optimizer, batch=torch.ones(2, 3, dtype=dtype))


def test_a_model_of_buffers_alone():
    model = nn.BatchNorm1d(3, affine=False)
    assert not audit(model)
    head = nn.Linear(3, 2)
    assert audit(model, OPTIM.SGD(head.parameters(), lr=0.1)).codes == ("foreign-parameters",)


class Margin(nn.Module):
    """A loss with parameters of its own."""

    def __init__(self):
        super().__init__()
        self.centres, self.temperature = nn.Parameter(torch.eye(2)), nn.Parameter(torch.ones(()))

    def forward(self, features, labels):
        return nn.functional.cross_entropy(features @ self.centres * self.temperature.exp(), labels)


def test_a_loss_with_parameters_of_its_own():
    model, loss = nn.Linear(3, 2), Margin()
    optimizer = OPTIM.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
    assert not audit(model, optimizer, loss=loss)
    unsaid = audit(model, optimizer)
    assert [(finding.code, finding.level) for finding in unsaid] == [("foreign-parameters", "note")]
    assert "right for the parameters of a loss" in unsaid[0].effect


def test_gradual_unfreezing_with_a_group_for_each_layer():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    optimizer = OPTIM.AdamW([{"params": part.parameters()} for part in (model[0], model[2])], lr=0.001)
    scheduler = lrs.OneCycleLR(optimizer, max_lr=[0.001, 0.01], total_steps=10)
    assert not audit(model, optimizer, scheduler)
    model[0].requires_grad_(True)
    assert not audit(model, optimizer, scheduler)


@pytest.mark.parametrize("compiled", [False, True])
def test_wrapped_models(compiled):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    wrapped = torch.compile(model) if compiled else nn.DataParallel(model)
    for given in (model, wrapped):
        matrices = OPTIM.AdamW([p for p in given.parameters() if p.dim() == 2], lr=0.1)
        vectors = OPTIM.SGD([p for p in given.parameters() if p.dim() == 1], lr=0.1)
        assert not audit(wrapped, matrices, vectors)


def test_optimizers_that_step_in_the_backward_pass_hold_one_tensor_each():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    assert not audit(model, *(OPTIM.SGD([p], lr=0.1) for p in model.parameters()))


def test_lbfgs():
    model = nn.Linear(3, 2)
    assert not audit(model, OPTIM.LBFGS(model.parameters()))
