"""Lesson 11's patients have the faults that are meant, and what is shown of them."""

import ast
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from layerlab.auditing import CODES, audit
from layerlab.ledger import watch
from layerlab.lessons_support import patients
from layerlab.lessons_support.lesson_11 import LESSON_OF, codes_table
from layerlab.lessons_support.patients import PATIENTS, five, healthy, pretrained, x, y
from layerlab.lessons_support.shown_code import code_of
from layerlab.lessons_support.two_witnesses import side_by_side

LESSONS = Path(__file__).resolve().parents[2] / "lessons"
P1, P2, P3, P4, P5, P6, P7 = PATIENTS


@pytest.fixture(autouse=True)
def _same_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


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
