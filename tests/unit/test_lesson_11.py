"""Lesson 11's patients have the faults that are meant, and its check tells a cure from half a cure."""

import ast
import json
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from layerlab.auditing import CODES, audit
from layerlab.freezing import freeze
from layerlab.ledger import watch
from layerlab.lessons_support import patients
from layerlab.lessons_support.lesson_11 import AIMS, LESSON_OF, check_repair, code_of, codes_table
from layerlab.lessons_support.patients import PATIENTS, five, healthy, pretrained, x, y
from layerlab.lessons_support.two_witnesses import side_by_side

LESSONS = Path(__file__).resolve().parents[2] / "lessons"
P1, P2, P3, P4, P5, P6, P7 = PATIENTS


@pytest.fixture(autouse=True)
def _one_thread():
    """Two threads wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def look(make):
    """What the audit finds; then the tensors of the model in each of nine epochs, copied by hand."""
    model, optimizer, *scheduler, train = make()
    found = audit(model, optimizer, scheduler=scheduler, loss=cross_entropy)
    seen = [copies(model)]
    for _ in range(9):
        train()
        seen.append(copies(model))
    return found, [
        {name for name in before if not torch.equal(before[name], after[name])}
        for before, after in pairwise(seen)
    ]


def copies(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


STEM, FC = {"stem.weight"}, {"fc.weight", "fc.bias"}
MIDDLE = {"norm.weight", "norm.bias", "block.weight", "block.bias"}
STATISTICS = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
ALL = STEM | FC | MIDDLE | STATISTICS


@pytest.mark.parametrize(
    ("make", "codes", "moved"),
    [
        (healthy, (), [ALL] * 9),
        (P1, ("layer-replaced",), [ALL - FC] * 9),
        (
            P2,
            ("flag-on-module", "misspelt-flag", "frozen-statistics"),
            [ALL - {"norm.weight", "norm.bias"}] * 9,
        ),
        (P3, ("empty-group", "lr-zero-wakes"), [FC | STATISTICS] + [FC | STATISTICS | STEM] * 8),
        (P4, ("double-softmax",), [ALL] * 9),
        (P5, (), [ALL] * 9),
        (P6, (), [STATISTICS] + [ALL - STEM] * 8),
        (P7, (), [ALL] * 3 + [ALL - STEM] * 3 + [ALL] * 3),
    ],
)
def test_a_patient_has_the_faults_that_are_meant(make, codes, moved):
    found, happened = look(make)
    assert found.codes == codes
    assert happened == moved


def alarms(make):
    model, optimizer, *_, train = make()
    with watch(model, optimizer) as ledger:
        for _ in range(9):
            train()
    return {(alarm.code, alarm.name, alarm.step) for alarm in ledger.alarms if alarm.level == "alarm"}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (healthy, set()),
        (P4, set()),
        (P5, {("frozen-too-late", "stem.weight", 1)}),
        (P6, set()),
        (P7, {("stale-momentum", "stem.weight", 6)}),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_ledger_has_the_alarms_that_are_meant(make, told, seed):
    torch.manual_seed(seed)
    assert alarms(make) == told


def test_the_pretrained_network_has_learned_its_task():
    model = pretrained().eval()
    assert (model(x).argmax(1) == five).float().mean() > 0.9
    assert all(p.grad is None for p in model.parameters())


def test_probabilities_taken_for_logits_keep_the_loss_above_its_floor():
    floor = torch.log(1 + 2 / torch.tensor(1.0).exp())
    model, _, train = P4()
    for _ in range(200):
        train()
    assert cross_entropy(model(x), y) > floor
    assert cross_entropy(1000 * nn.functional.one_hot(y, 3).float(), y) < 1e-6


# -- cures, and half cures


def loop(model, optimizer, *schedulers, before=lambda: None):
    def train():
        before()
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()

    return train


def with_fc(model=None):
    model = model or pretrained()
    model.fc = nn.Linear(16, 3)
    return model


def fc_first():
    model = with_fc()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, loop(model, optimizer)


def group_added():
    model = pretrained()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    with_fc(model)
    optimizer.add_param_group({"params": list(model.fc.parameters())})
    return model, optimizer, loop(model, optimizer)


def no_new_fc():
    model = pretrained()
    optimizer = SGD(model.parameters(), lr=0.1)
    return model, optimizer, loop(model, optimizer)


def two_steps():
    model, optimizer, train = fc_first()
    return model, optimizer, lambda: (train(), train())


def raising():
    def broken():
        raise KeyError("y")

    return *fc_first()[:2], broken


def only_fc(stem=True, block=True, norm="before and in the loop"):
    model = with_fc()
    frozen = [model.norm] + [model.stem] * stem + [model.block] * block
    for module in frozen:
        module.requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    if "before" in norm:
        model.norm.eval()

    def modes():
        model.train()
        if "in the loop" in norm:
            model.norm.eval()

    return model, optimizer, loop(model, optimizer, before=modes)


def only_fc_by_freeze():
    model = with_fc()
    freeze(model, ["stem", "norm", "block"])
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, loop(model, optimizer, before=model.train)


def everything_frozen():
    model = with_fc().requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)
    return model, optimizer, loop(model, optimizer)


def groups(stem="flag", middle=True, lr=0.02, eta_min=0.001):
    model = with_fc()
    middle_part = [p for name, p in model.named_parameters() if name.startswith(("norm", "block"))]
    parts = [
        {"params": middle_part if middle else [], "lr": lr},
        {"params": model.fc.parameters(), "lr": 0.1},
    ]
    if stem == "flag":
        model.stem.requires_grad_(False)
    else:
        parts.append({"params": model.stem.parameters(), "lr": 0.0})
    optimizer = SGD(parts, momentum=0.9)
    scheduler = CosineAnnealingLR(optimizer, T_max=10, eta_min=eta_min)
    return model, optimizer, scheduler, loop(model, optimizer, scheduler)


def rebuilt_as_one_group():
    model = with_fc()
    model.stem.requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.001, momentum=0.9)
    return model, optimizer, loop(model, optimizer)


def softmax(end=None, kind=nn.Softmax):
    model = with_fc()
    if end is not None:
        model.softmax = end()
    optimizer = Adam(model.parameters(), lr=0.02)
    return model, optimizer, loop(model, optimizer)


def hidden_softmax():
    """A softmax that no module shows: the audit cannot see it, the loss can."""
    model = with_fc()
    model.fc.register_forward_hook(lambda module, inputs, output: output.softmax(1))
    optimizer = Adam(model.parameters(), lr=0.02)
    return model, optimizer, loop(model, optimizer)


def every_second_epoch(flag="before backward", set_to_none=True):
    model = with_fc()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    epochs = iter(range(1000))

    def train():
        rests = next(epochs) % 2 == 1
        optimizer.zero_grad(set_to_none=set_to_none)
        if flag == "before backward":
            model.stem.requires_grad_(not rests)
        cross_entropy(model(x), y).backward()
        if flag == "grad is None" and rests:
            model.stem.weight.grad = None
        optimizer.step()
        if flag == "released never":
            model.stem.requires_grad_(False)

    return model, optimizer, train


def released(pop=True, rests=(3, 4, 5)):
    model = pretrained()
    optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9)
    epochs = iter(range(1000))

    def train():
        epoch = next(epochs)
        model.stem.requires_grad_(epoch not in rests)
        if pop and epoch == 6:
            optimizer.state.pop(model.stem.weight)
        optimizer.zero_grad()
        cross_entropy(model(x), (five + 2) % 5 if epoch < 3 else five).backward()
        optimizer.step()

    return model, optimizer, train


@pytest.mark.parametrize(
    ("patient", "cure"),
    [
        (P1, fc_first),
        (P1, group_added),
        (P2, only_fc),
        (P2, only_fc_by_freeze),
        (P3, groups),
        (P3, partial(groups, stem="lr 0", eta_min=0.0)),
        (P4, softmax),
        (P4, partial(softmax, end=nn.Identity)),
        (P5, every_second_epoch),
        (P5, partial(every_second_epoch, flag="grad is None")),
        (P6, P6),
        (P7, released),
    ],
)
def test_a_cure_passes(patient, cure):
    verdict = check_repair(patient, cure)
    assert verdict.passed, verdict


@pytest.mark.parametrize(
    ("patient", "half", "said"),
    [
        (P1, P1, ["the audit finds layer-replaced (fc.weight, fc.bias)", "must move, but stayed"]),
        (P1, no_new_fc, ["fc must tell 3 classes, not 5"]),
        (P1, two_steps, ["one step an epoch, but took 18 in 9"]),
        (P1, lambda: None, ["but returned NoneType"]),
        (P1, lambda: (pretrained(), SGD), ["but returned 2 things"]),
        (P1, lambda: (pretrained(), SGD, print), ["the second thing is of type type"]),
        (P1, lambda: (1, 2, print), ["the first thing is of type int"]),
        (P1, lambda: (*fc_first()[:2], 3), ["the last thing is of type int"]),
        (P1, lambda: (nn.Linear(1, 1), *fc_first()[1:]), ["the model has no stem"]),
        (P1, lambda: 1 / 0, ["ZeroDivisionError"]),
        (P1, lambda: (*fc_first()[:2], None, print), ["the third thing is of type NoneType, and no sch"]),
        (P1, raising, ["broken raised KeyError: 'y'", 'raise KeyError("y")', "1 more not looked at"]),
        (P4, raising, ["broken raised KeyError: 'y'", "3 more not looked at"]),
        (P2, partial(only_fc, stem=False), ["stem.weight must stay still, but moved"]),
        (P2, partial(only_fc, block=False), ["block.weight, block.bias must stay still, but moved"]),
        (P2, partial(only_fc, norm=""), ["the audit finds frozen-statistics (norm)", "model.norm.eval()"]),
        (P2, partial(only_fc, norm="before"), ["the audit is silent", "norm.running_mean, norm.running_var"]),
        (P2, partial(only_fc, norm="in the loop"), ["the audit finds frozen-statistics (norm)"]),
        (P2, everything_frozen, ["the audit finds everything-frozen", "RuntimeError"]),
        (P3, partial(groups, stem="lr 0"), ["the audit finds lr-zero-wakes", "stem.weight must stay still"]),
        (
            P3,
            partial(groups, middle=False),
            ["the audit finds empty-group", "norm must have lr 0.02, but is in"],
        ),
        (P3, rebuilt_as_one_group, ["block must have lr 0.02, but is 0.001", "fc must have lr 0.1"]),
        (P4, partial(softmax, end=partial(nn.Softmax, dim=1)), ["double-softmax", "but is 0.5"]),
        (P4, hidden_softmax, ["the audit is silent", "the loss must be below 0.3, but is 0.5"]),
        (P5, P5, ["the audit is silent", "epochs 1, 3, 5 and 7: stem.weight must stay still"]),
        (
            P5,
            partial(every_second_epoch, set_to_none=False),
            ["must stay still, but moved (momentum, step 1"],
        ),
        (
            P5,
            partial(every_second_epoch, flag="released never"),
            ["epoch 2: stem.weight must move, but stayed"],
        ),
        (P7, P7, ["the audit is silent", "walks against its own gradient (step 6)"]),
        (P7, partial(released, rests=()), ["epochs 3, 4 and 5: stem.weight must stay still"]),
        (P7, partial(released, rests=(3, 4, 5, 6, 7, 8)), ["epoch 6: stem.weight must move, but stayed"]),
    ],
)
def test_half_a_cure_is_told_what_is_left(patient, half, said):
    verdict = check_repair(patient, half)
    assert not verdict.passed
    shown = " ".join(repr(verdict).split())
    for words in said:
        assert words in shown


def test_only_patients_are_checked():
    with pytest.raises(ValueError, match="'healthy' is no patient; there are patient_1, "):
        check_repair(healthy, healthy)
    assert tuple(AIMS) == PATIENTS


def test_the_check_leaves_random_numbers_as_they_were():
    before = torch.get_rng_state()
    check_repair(P1, fc_first)
    assert torch.equal(torch.get_rng_state(), before)


# -- what is shown


def beside(make):
    model, optimizer, *scheduler, train = make()
    found = audit(model, optimizer, scheduler=scheduler, loss=cross_entropy)
    with watch(model, optimizer) as ledger:
        for _ in range(3):
            train()
    return repr(side_by_side(found, ledger))


def test_the_two_witnesses_stand_side_by_side():
    lines = beside(P3).splitlines()
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "tensor the audit 0 1 2 the ledger",
        "stem.weight ⚠ lr-zero-wakes ○ ● ● ⚠ step 1: frozen by lr = 0, but its group's lr is now 2.4e-05",
        "norm.weight, norm.bias ⚠ empty-group ○ ○ ○ ⚠ trainable, has a gradient, and stays still",
        "norm.running…running_var – ■ ■ ■ moved: forward pass",
        "block.weight, block.bias ⚠ empty-group ○ ○ ○ ⚠ trainable, has a gradient, and stays still",
        "fc.weight, fc.bias – ● ● ● moved: gradient",
    ]


def test_only_the_loop_is_at_fault_or_only_the_things():
    at_the_loop, at_the_things = beside(P5), beside(P4)
    assert at_the_loop.count("⚠") == at_the_things.count("⚠") == 1
    assert "⚠ step 1: frozen (requires_grad) but moved\n" in at_the_loop + "\n"
    (line,) = [line for line in at_the_things.splitlines() if line.startswith("softmax")]
    assert " ".join(line.split()) == "softmax ⚠ double-softmax – – – no tensor to watch"


def test_names_of_a_stranger_are_escaped():
    model = nn.Sequential()
    model.add_module("<b>\n", nn.Linear(6, 3))
    optimizer = SGD(model.parameters(), lr=0.1)
    model.add_module("<i>", nn.Linear(3, 3))
    found = audit(model, optimizer)
    with watch(model, optimizer) as ledger:
        cross_entropy(model(x), y).backward()
        optimizer.step()
    shown = side_by_side(found, ledger)._repr_html_()
    assert "<b>" not in shown
    assert "<i>" not in shown
    assert "&lt;b&gt;\\n.weight" in shown


def test_a_ledger_without_a_step_is_refused():
    model, optimizer, _ = healthy()
    with watch(model, optimizer) as ledger:
        pass
    with pytest.raises(ValueError, match="no step"):
        side_by_side(audit(model, optimizer), ledger)


def test_every_code_has_an_entry_and_every_lesson_that_it_names_is_there():
    assert LESSON_OF.keys() == CODES.keys()
    named = {number for entry in LESSON_OF.values() if entry for number in entry.split(", ")}
    assert named <= {path.name[:2] for path in LESSONS.glob("*.ipynb")}
    shown = repr(codes_table())
    assert all(code in shown for code in CODES)


def test_the_codes_of_the_patients_name_this_lesson():
    for code in {code for patient in PATIENTS for code in look(patient)[0].codes}:
        assert "11" in (LESSON_OF[code] or "")


def test_a_patient_is_shown_as_a_learner_would_write_it():
    for patient in PATIENTS:
        shown = code_of(patient)
        assert '"""' not in shown
        assert "->" not in shown
        defined = vars(patients) | {}
        exec(shown, defined)
        ours, theirs = (look(make) for make in (patient, defined[patient.__name__]))
        assert ours[0].codes == theirs[0].codes
        assert ours[1] == theirs[1]


def cells():
    (path,) = LESSONS.glob("11_*.ipynb")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("patient", [P1, P2, P3, P4, P5, P7])
def test_the_cell_to_repair_holds_the_patient_as_it_is(patient):
    mine = patient.__name__.replace("patient", "repaired")
    (cell,) = [cell for cell in cells() if f"def {mine}():" in cell]
    wanted = ast.dump(ast.parse(code_of(patient).replace(patient.__name__, mine)).body[0])
    assert ast.dump(ast.parse(cell).body[0]) == wanted
