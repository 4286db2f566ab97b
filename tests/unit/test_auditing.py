"""The audit itself: how it is asked, what it answers with, and how that is shown."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from audited import cured, net, the
from torch import nn
from torch.optim import lr_scheduler as lrs

from layerlab import auditing
from layerlab.auditing import CODES, RULES, Audit, Finding, audit, codes
from layerlab.auditing.finding import LEVELS

SGD = torch.optim.SGD


def faulty():
    """A replaced layer (an error), frozen statistics (a warning) and a late freeze (a note)."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = SGD(model.parameters(), lr=0.1)
    model[1].requires_grad_(False)
    model[2].requires_grad_(False)
    model[3] = nn.Linear(4, 3)
    return model, optimizer


def test_findings_are_a_sequence_the_gravest_first():
    found = audit(*faulty())
    assert isinstance(found, Audit)
    assert [finding.level for finding in found] == ["error", "warning", "note"]
    assert found.codes == ("layer-replaced", "frozen-statistics", "late-freeze")
    assert len(found) == 3
    assert found
    assert isinstance(found[0], Finding)
    assert found[1:] == (found[1], found[2])
    assert found[0] in found


def test_nothing_found_is_false_and_says_what_was_looked_at():
    model = net()
    found = audit(model, SGD(model.parameters(), lr=0.1))
    assert not found
    assert repr(found) == "audit: nothing found in Sequential (4 of 4 parameters trainable), SGD"
    assert found.rows() == []


def test_without_an_optimizer_it_says_what_it_did_not_look_at():
    said = "audit: nothing found in Sequential (4 of 4 parameters trainable), no optimizer given: who trains"
    assert repr(audit(net())).replace("\n", " ").startswith(said)


def test_a_scheduler_without_its_optimizer_is_refused():
    scheduler = torch.optim.lr_scheduler.StepLR(SGD(net().parameters(), lr=0.1), 1)
    for arguments, options in (((scheduler,), {}), ((), {"scheduler": scheduler})):
        with pytest.raises(ValueError, match=r"a StepLR was given, and no optimizer: audit\(model, optim"):
            audit(net(), *arguments, **options)


def test_the_text_is_the_same_every_time_and_holds_no_address():
    texts = {repr(audit(*faulty())) for _ in range(3)}
    assert len(texts) == 1
    text = texts.pop()
    assert "0x" not in text
    assert all(len(line) <= 100 or "cure: " in line for line in text.splitlines())
    assert text.startswith(
        "⚠ 3.weight, 3.bias: layer-replaced (error)\n    why:  backward() gives it a gradient"
    )
    assert "! 1, 2: late-freeze (note)\n    why:  0.weight trains" in text
    assert text.splitlines()[-1].startswith(
        "audit: 1 error, 1 warning, 1 note in Sequential (4 of 8 parameters"
    )


def test_html_says_the_same_and_escapes_hostile_names():
    model = nn.Module()
    model.register_module("<b onclick='x'>\u202e", nn.Linear(2, 2).requires_grad_(False))
    model.register_module("head", nn.Linear(2, 2))
    model.get_submodule("<b onclick='x'>\u202e").requires_grad = True
    found = audit(model, SGD(model.parameters(), lr=0.1))
    html = found._repr_html_()
    assert "<b onclick" not in html
    assert "\u202e" not in html + repr(found) + json.dumps(found.rows(), ensure_ascii=False)
    assert "&lt;b onclick=&#x27;x&#x27;&gt;\\u202e" in html
    assert "flag-on-module (error)" in html
    for word in ("script", "style>"):
        assert word not in html


def test_a_cure_reaches_names_that_are_no_identifiers():
    model = nn.ModuleDict({"a-b": nn.Linear(2, 2), "0": nn.Linear(2, 2), "model": nn.Linear(2, 2)})
    for name, module in model.items():
        module.requires_grad = False
        finding = the(audit(model), "flag-on-module")
        assert finding.place == name
        cured(finding, model=model)
        assert not any(p.requires_grad for p in module.parameters())


def test_rows_are_plain_data():
    rows = audit(*faulty()).rows()
    assert json.loads(json.dumps(rows)) == rows
    assert list(rows[0]) == ["code", "level", "place", "effect", "cure", "names"]


def test_many_names_are_folded_and_all_are_kept():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    finding = the(audit(model, SGD(model[0].parameters(), lr=0.1)), "in-no-optimizer")
    assert finding.place == "1.weight, 1.bias, 2.weight … and 5 more"
    assert len(finding.names) == 8


@pytest.fixture
def variables(monkeypatch):
    """The notebook's variables, as an empty script has them."""
    main = type(sys)("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    return vars(main)


def test_cures_use_the_notebooks_own_variables(variables):
    backbone, opt = faulty()
    variables |= {"backbone": backbone, "opt": opt, "plan": lrs.ReduceLROnPlateau(opt), "torch": torch}
    found = audit(backbone, opt, variables["plan"])
    assert the(found, "layer-replaced").cure == (
        "opt = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)"
        "  # and then its scheduler"
    )
    assert the(found, "frozen-statistics").cure.startswith("backbone[1].eval()")
    assert the(found, "plateau-needs-metric").cure.startswith("plan.step(")
    exec(the(found, "layer-replaced").cure, variables)
    assert not audit(backbone, variables["opt"]).codes.count("layer-replaced")


def test_a_wrapped_model_is_reached_through_its_wrapper(variables):
    inner, optimizer = faulty()
    variables["parallel"] = nn.DataParallel(inner)
    assert the(audit(variables["parallel"], optimizer), "frozen-statistics").cure.startswith(
        "parallel.module[1]"
    )


def test_several_nameless_optimizers_are_told_apart():
    model = net()
    optimizers = [SGD(model.parameters(), lr=0.1), SGD([{"params": []}], lr=0.1)]
    assert the(audit(model, *optimizers), "empty-group").place == "group 0 of optimizers[1]"


def test_schedulers_by_position_or_by_name_once_or_twice():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    plateau = lrs.ReduceLROnPlateau(optimizer)
    for found in (
        audit(model, optimizer, plateau),
        audit(model, optimizer, scheduler=plateau),
        audit(model, optimizer, plateau, scheduler=[plateau]),
        audit(model, optimizer, optimizer, scheduler=(plateau,)),
    ):
        assert found.codes == ("plateau-needs-metric",)


def test_a_function_may_return_none_for_what_it_has_not():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert repr(audit(model, optimizer, None)) == repr(audit(model, optimizer))


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((3,), {}, "model must be a torch.nn.Module, not int"),
        ((net(), 3), {}, "a int is neither an optimizer nor a scheduler"),
        (
            (net(), [SGD(net().parameters(), lr=1)]),
            {},
            r"a list is neither.* one by one, audit\(model, \*optimizers\)",
        ),
        ((net(),), {"scheduler": "StepLR"}, "a str is neither an optimizer nor a scheduler"),
        ((net(),), {"scheduler": SGD(net().parameters(), lr=1)}, "scheduler is an optimizer"),
        ((net(),), {"loss": 0.5}, "loss must be a function or a module, not float"),
    ],
)
def test_what_is_no_set_up_is_refused(arguments, options, said):
    with pytest.raises(TypeError, match=said):
        audit(*arguments, **options)


def test_the_table_of_codes():
    text = repr(codes())
    for code, (level, means) in CODES.items():
        assert re.search(rf"^{code} +{level} +{re.escape(means)}$", text, re.MULTILINE)
        assert level in LEVELS
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)


def test_every_code_is_provoked_by_a_test():
    tests = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_auditing_*.py")]
    assert [code for code in CODES if not any(f'"{code}"' in test for test in tests)] == []


def test_every_rule_is_applied():
    written = []
    for name in (path.stem for path in Path(auditing.__file__).parent.glob("*.py")):
        for function in vars(importlib.import_module(f"layerlab.auditing.{name}")).values():
            takes = list(getattr(function, "__annotations__", {}).items())
            if takes == [("scene", "Scene"), ("return", "Iterator[Finding]")]:
                written.append(function)
    assert len(RULES) > 20
    assert set(RULES) == set(written)
