"""The README's `watch` in other libraries' loops: run as printed, against byte copies and a plain loop.

The copies are taken by a hook of the test's own. The plain loop trains a copy of the model on the same
batches, and must end with the same bits and the same record.
"""

import copy
import os
from unittest import mock

import pytest
import torch
from other_loops import CODE, Batches, Witness, hooks, library, readme, reasons, record, same_bits, small_net
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.optimizer import register_optimizer_step_pre_hook

import layerlab as ll
from layerlab.record import Reason

pytestmark = [
    # What Lightning says of itself and of short runs.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Starting from v1.9.0, `tensorboardX` has been removed"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
]


@pytest.fixture(autouse=True)
def small_world(monkeypatch, tmp_path):
    """A known seed; what the libraries write into folders and the environment goes with the test."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def stepped():
    """All optimizers that have stepped, by PyTorch's own hook on all of them."""
    seen = []
    handle = register_optimizer_step_pre_hook(lambda optimizer, *_: seen.append(optimizer))
    yield seen
    handle.remove()


def test_every_how_to_is_run_here():
    assert len(CODE) == 3


# -- Lightning -------------------------------------------------------------------------------------------


@pytest.fixture
def lightning_module(monkeypatch):
    """A small network of a backbone with BatchNorm, and a head; on the CPU, where a plain loop ends alike."""
    lightning = library("lightning.pytorch")
    for kind in (lightning.accelerators.CUDAAccelerator, lightning.accelerators.MPSAccelerator):
        monkeypatch.setattr(kind, "is_available", staticmethod(lambda: False))

    class Module(lightning.LightningModule):
        def __init__(self, freeze_at=None):
            super().__init__()
            self.backbone, self.head = small_net()[:3], nn.Linear(8, 2)
            self.freeze_at = freeze_at

        def forward(self, x):
            return self.head(self.backbone(x))

        def training_step(self, batch, index):
            if index == self.freeze_at:
                self.backbone.requires_grad_(False)
            return cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            held = self.parameters() if self.freeze_at else self.head.parameters()
            return torch.optim.AdamW(held, lr=0.01)

        def optimizer_zero_grad(self, epoch, index, optimizer):
            optimizer.zero_grad(set_to_none=False)

    return Module


def plain_loop(module, optimizer, batches, clip=None, accumulate=1, bf16=False):
    """What Lightning's documentation says that it does."""
    for first in range(0, len(batches), accumulate):
        for index, batch in enumerate(batches[first : first + accumulate]):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = module.training_step(batch, first + index) / accumulate
            if index == 0:
                optimizer.zero_grad(set_to_none=False)
            loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()


def test_lightning_as_printed(lightning_module, stepped):
    module, loader = lightning_module(), Batches()
    plain, witness = copy.deepcopy(module), Witness(module, module.backbone)
    ran = readme("lightning", {"module": module, "loader": loader})
    ledgers = ran["watched"].ledgers

    # Three of the four steps of each epoch; bit by bit what moved.
    moved = witness.moved()
    assert [len(ledger) for ledger in ledgers] == [3, 3, 3]
    for epoch, ledger in enumerate(ledgers):
        assert [set(step.moved) for step in ledger] == moved[4 * epoch : 4 * epoch + 3]
    assert hooks(module, stepped) == 0

    # A plain loop with the backbone released as Lightning does: in a group of its own, a tenth of the lr.
    optimizer = plain.configure_optimizers()
    plain.backbone[0].requires_grad_(False)
    for epoch, ledger in enumerate(ledgers):
        if epoch == 2:
            plain.backbone.requires_grad_(True)
            rate = optimizer.param_groups[0]["lr"] * 0.1
            optimizer.add_param_group({"params": list(plain.backbone.parameters()), "lr": rate})
        with ll.watch(plain, optimizer) as own:
            plain_loop(plain, optimizer, loader.drawn[4 * epoch : 4 * epoch + 4])
        assert record(ledger) == record(own[:3])
    assert same_bits(module, plain)

    # What the text says of it.
    assert reasons(ledgers[1][0])["backbone.0.weight"] is Reason.NOT_IN_OPTIMIZER
    assert reasons(ledgers[2][0])["backbone.0.weight"] is Reason.GRADIENT
    assert {a.name for a in ledgers[1].alarms} == {"backbone.1.weight", "backbone.1.bias"}
    assert not ledgers[2].alarms


def test_lightning_trains_the_backbones_batchnorm_along_if_the_optimizer_takes_what_trains(lightning_module):
    class All(lightning_module):
        def configure_optimizers(self):
            return torch.optim.AdamW(filter(lambda p: p.requires_grad, self.parameters()), lr=0.01)

    with pytest.warns(UserWarning, match="already exist within another group"):  # Lightning's, at the release
        ledgers = readme("lightning", {"module": All(), "loader": Batches()})["watched"].ledgers
    assert not ledgers[1].alarms
    assert reasons(ledgers[1][0])["backbone.1.weight"] is Reason.GRADIENT
    assert reasons(ledgers[1][0])["backbone.0.weight"] is Reason.NOT_IN_OPTIMIZER


QUIET = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)


@pytest.fixture
def lightning_watch(lightning_module):
    return readme("lightning", {"module": lightning_module(), "loader": Batches()})


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_with_accumulation_clipping_and_a_freeze_midway(
    lightning_module, lightning_watch, accumulate, bf16
):
    module, loader, watched = lightning_module(freeze_at=4), Batches(8), lightning_watch["Watch"](100)
    plain, witness = copy.deepcopy(module), Witness(module, module.backbone)
    trainer = lightning_watch["Trainer"](
        max_epochs=1, callbacks=[watched], accumulate_grad_batches=accumulate, gradient_clip_val=0.01,
        precision="bf16-mixed" if bf16 else "32-true", **QUIET,
    )  # fmt: skip
    trainer.fit(module, loader)
    [ledger] = watched.ledgers
    assert [set(step.moved) for step in ledger] == witness.moved(accumulate)

    optimizer = plain.configure_optimizers()
    with ll.watch(plain, optimizer) as own:
        plain_loop(plain, optimizer, loader.drawn, clip=0.01, accumulate=accumulate, bf16=bf16)
    assert record(ledger) == record(own)
    assert same_bits(module, plain)

    # Frozen by its flag, it goes on by what AdamW stored: the gradient is a tensor of zeros.
    assert len(ledger) == 8 // accumulate
    assert reasons(ledger[0])["backbone.0.weight"] is Reason.GRADIENT
    assert reasons(ledger[-1])["backbone.0.weight"] is Reason.MOMENTUM
    assert "frozen-but-moved" in {alarm.code for alarm in ledger.alarms}
    assert max(tensor.grad_max for tensor in ledger[0].values()) <= 0.01  # it saw the clipped gradient


@pytest.mark.parametrize("wrapped", [False, True])
def test_lightning_with_two_optimizers_by_hand(lightning_module, lightning_watch, wrapped):
    class TwoOptimizers(lightning_module):
        automatic_optimization = False

        def training_step(self, batch, index):
            for optimizer in self.optimizers():
                loss = super().training_step(batch, index)
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.backbone, self.head)]

    class FromTheModule(lightning_watch["Watch"]):
        def on_train_epoch_start(self, trainer, module):
            assert not {id(o) for o in module.optimizers()} & {id(o) for o in trainer.optimizers}
            self.ledgers.append(self.stack.enter_context(ll.watch(module, *module.optimizers())))

    module, watched = TwoOptimizers(), (FromTheModule if wrapped else lightning_watch["Watch"])()
    trainer = lightning_watch["Trainer"](max_epochs=1, callbacks=[watched], **QUIET)
    trainer.fit(module, Batches())
    [ledger] = watched.ledgers
    assert [step.optimizer for step in ledger] == [0, 1, 0, 1]  # the first end of a batch at 3 or more
    for step in ledger:
        part = ("backbone", "head")[step.optimizer]
        others = {name for name, t in step.items() if t.reason is Reason.NOT_IN_OPTIMIZER}
        assert others == {name for name, _ in module.named_parameters() if not name.startswith(part)}
        assert step[f"{part}.{'0.weight' if part == 'backbone' else 'bias'}"].reason is Reason.GRADIENT


def test_lightning_that_raises(lightning_module, lightning_watch, stepped):
    module, watched = lightning_module(), lightning_watch["Watch"]()
    witness = Witness(module, module.backbone, fails_at=2)
    trainer = lightning_watch["Trainer"](max_epochs=1, callbacks=[watched], **QUIET)
    stepped.clear()
    with pytest.raises(ArithmeticError):
        trainer.fit(module, Batches())
    [ledger] = watched.ledgers
    moved = witness.moved()
    assert [step.completed for step in ledger] == [True, True, False]  # the forward pass is in the step
    assert [set(step.moved) for step in ledger] == [*moved[:2], set()]
    assert not ledger.recording
    assert hooks(module, stepped) == 0


# -- Hugging Face Trainer, and accelerate, on which it stands --------------------------------------------


@pytest.fixture
def accelerate(monkeypatch):
    """Real accelerate on the CPU, and forgotten afterwards: it keeps its settings for the whole process."""
    found = library("accelerate")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    found.state.AcceleratorState._reset_state(reset_partial_state=True)
    yield found
    found.state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def hugging_face(accelerate):
    """Make a small BERT without Dropout, data, and arguments, as the README's code takes them."""
    transformers = library("transformers")

    def make(**arguments):
        config = transformers.BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        data = [{"input_ids": torch.randint(0, 50, (8,)), "labels": torch.tensor(i % 2)} for i in range(32)]
        ordinary = dict(
            output_dir="out", max_steps=24, per_device_train_batch_size=4, use_cpu=True, report_to="none",
            save_strategy="no", disable_tqdm=True, optim="adamw_torch_fused", learning_rate=0.01,
            weight_decay=0.0, lr_scheduler_type="linear", max_grad_norm=1.0,
        )  # fmt: skip
        return {
            "model": transformers.BertForSequenceClassification(config),
            "data": data,
            "args": transformers.TrainingArguments(**(ordinary | arguments)),
        }

    return make


class Drawn:
    """Batches as a BERT drew them, by a hook on it."""

    def __init__(self, model):
        self.batches = []
        self.handle = model.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, model, args, kwargs):
        self.batches.append({key: kwargs[key].clone() for key in ("input_ids", "labels")})


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_hugging_face_as_printed(hugging_face, bf16):
    given = hugging_face(bf16=bf16)
    model = given["model"]
    plain, witness, drawn = copy.deepcopy(model), Witness(model, model), Drawn(model)
    ledger = readme("transformers", given)["watched"].ledger
    drawn.handle.remove()
    assert len(ledger) == 20
    assert [set(step.moved) for step in ledger] == witness.moved()[:20]

    # What the arguments say: AdamW in one kernel, a linear schedule, clipping to 1.
    plain.base_model.requires_grad_(False)
    optimizer = torch.optim.AdamW(plain.classifier.parameters(), lr=0.01, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (24 - step) / 24)
    with ll.watch(plain, optimizer) as own:
        for batch in drawn.batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = plain(**batch).loss
            loss.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            plain.zero_grad()
    assert record(ledger) == record(own[:20])
    assert same_bits(model, plain)
    assert reasons(ledger[0])["classifier.weight"] is Reason.GRADIENT
    frozen = {name for name, _ in model.named_parameters() if name.startswith("bert.")}
    assert {name for name, t in ledger[-1].items() if t.reason is Reason.NOT_IN_OPTIMIZER} == frozen


def test_hugging_face_released_later(hugging_face):
    given = hugging_face(max_steps=4)
    model = given["model"]
    witness = Witness(model, model)

    def release(module, args):
        if len(witness.copies) == 3:  # the third pass
            model.base_model.requires_grad_(True)

    handle = model.register_forward_pre_hook(release)
    ledger = readme("transformers", given)["watched"].ledger
    handle.remove()
    moved = witness.moved()
    assert [set(step.moved) for step in ledger] == moved
    assert moved[2] == {"classifier.weight", "classifier.bias"}
    [alarm] = [a for a in ledger.alarms if a.name == "bert.pooler.dense.weight"]
    assert (alarm.step, alarm.count) == (2, 2)
    assert "trainable, has a gradient, and stays still" in alarm.what


def test_hugging_face_that_raises(hugging_face, stepped):
    given = hugging_face()
    model = given["model"]
    witness = Witness(model, model, fails_at=3)
    with pytest.raises(ArithmeticError):
        readme("transformers", given)
    ledger = given["watched"].ledger
    assert [set(step.moved) for step in ledger] == witness.moved()[:3]
    assert [step.completed for step in ledger] == [True, True, True]
    assert not ledger.recording
    assert hooks(model, stepped) == 0


def test_accelerate_as_printed(accelerate, stepped):
    model, loader = small_net(), Batches(44)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    plain, witness = copy.deepcopy(model), Witness(model, model)
    ran = readme("accelerate", {"model": model, "optimizer": optimizer, "loader": loader})
    ledger = ran["ledger"]
    assert ran["optimizer"] is not optimizer  # a wrapper
    assert len(ledger) == 20
    assert [set(step.moved) for step in ledger] == witness.moved(2)[:20]
    assert stepped == [optimizer] * 22
    assert hooks(model, stepped) == 0

    own_optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01)
    with ll.watch(plain, own_optimizer) as own:
        for index, (x, y) in enumerate(loader.drawn):
            (cross_entropy(plain(x), y) / 2).backward()
            if index % 2:
                nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
                own_optimizer.step()
                own_optimizer.zero_grad()
    assert record(ledger) == record(own[:20])
    assert same_bits(model, plain)


def test_accelerate_that_raises(accelerate, stepped):
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    witness = Witness(model, model, fails_at=5)
    given = {"model": model, "optimizer": optimizer, "loader": Batches(8)}
    with pytest.raises(ArithmeticError):
        readme("accelerate", given)
    assert [set(step.moved) for step in given["ledger"]] == witness.moved(2)[:2]
    assert not given["ledger"].recording
    assert hooks(model, stepped) == 0


@pytest.mark.parametrize("fused", [False, True])
def test_accelerate_with_a_gradient_scaler(accelerate, fused):
    accelerator = accelerate.Accelerator()
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    model = small_net()
    plain = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
    model, optimizer = accelerator.prepare(model, optimizer)
    x, y = torch.randn(8, 4), torch.randint(0, 2, (8,))
    skipped = []
    with ll.watch(model, optimizer) as ledger:
        for scale in (1.0, float("inf"), 1.0):
            accelerator.backward(cross_entropy(model(x), y) * scale)
            accelerator.unscale_gradients()
            optimizer.step()
            optimizer.zero_grad()
            skipped.append(optimizer.step_was_skipped)

    own_optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, fused=fused)
    with ll.watch(plain, own_optimizer) as own:
        for used in (True, False, True):
            loss = cross_entropy(plain(x), y)  # BatchNorm counts the batch of the skipped step too
            if used:
                loss.backward()
                own_optimizer.step()
                own_optimizer.zero_grad()
    assert same_bits(model, plain)
    if fused:
        assert [len(step.moved) for step in ledger] == [9, 3, 9]  # in the second, BatchNorm's buffers
        assert {reasons(ledger[1])[name] for name, _ in model.named_parameters()} == {Reason.SKIPPED}
        assert [reasons(ledger[i]) for i in (0, 2)] == [reasons(step) for step in own]
    else:
        assert skipped == [False, True, False]
        assert record(ledger) == record(own)
