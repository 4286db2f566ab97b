"""Random models and patterns, against the rules of `param_groups` written down from names alone."""

import copy
from fnmatch import fnmatchcase

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from layerlab.groups import param_groups

WIDTH = 3
NO_DECAY = "norm and bias"


class Net(nn.Module):
    """An embedding, blocks of a random kind, a head tied to the embedding or not."""

    def __init__(self, blocks, tied, frozen):
        super().__init__()
        torch.manual_seed(0)
        kinds = {
            "linear": lambda: nn.Linear(WIDTH, WIDTH),
            "no bias": lambda: nn.Linear(WIDTH, WIDTH, bias=False),
            "norm": lambda: nn.LayerNorm(WIDTH),
            "deep": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)),
        }
        self.embed = nn.Embedding(4, WIDTH)
        self.blocks = nn.ModuleList([kinds[kind]() for kind in blocks])
        self.head = nn.Linear(WIDTH, 4)
        if tied:
            self.head.weight = self.embed.weight
        for at, p in enumerate(self.parameters()):
            p.requires_grad = at not in frozen

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


NETS = st.builds(
    Net,
    st.lists(st.sampled_from(["linear", "no bias", "norm", "deep"]), max_size=3),
    st.booleans(),
    st.frozensets(st.integers(0, 6), max_size=3),
)
PATTERNS = [
    "embed",
    "blocks",
    "blocks.[02]",
    "blocks.1",
    "*.bias",
    "head",
    "head.weight",
    "*.weight",
    "*.0.*",
]
OPTIONS = st.fixed_dictionaries(
    {"lr": st.sampled_from([0.1, 0.01, 1.0])}, optional={"weight_decay": st.sampled_from([0.0, 0.1])}
)
GIVEN = st.lists(st.tuples(st.sampled_from(PATTERNS), OPTIONS), max_size=4, unique_by=lambda one: one[0])


def all_names(net):
    """Every name of every parameter."""
    found = {}
    for name, p in net.named_parameters(remove_duplicate=False):
        found.setdefault(p, []).append(name)
    return found


def matches(pattern, names):
    """Whether a glob or module name means a parameter: it, or a module above it."""
    rungs = [".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 2)]
    return any(fnmatchcase(rung, pattern) for rung in rungs)


def expected(net, patterns):
    """Who belongs to which pattern, and who to none."""
    shares, left = [[] for _ in patterns], []
    for p, names in all_names(net).items():
        at = next((at for at, pattern in enumerate(patterns) if matches(pattern, names)), None)
        (left if at is None else shares[at]).append(p)
    return shares, left


def same(ours, theirs):
    """The same tensors in the same order, by identity."""
    return list(map(id, ours)) == list(map(id, theirs))


@given(NETS, GIVEN, st.one_of(st.just("error"), st.just("leave out"), OPTIONS), st.booleans())
def test_each_parameter_is_in_the_group_of_its_first_pattern_and_none_is_lost(net, given, unmatched, keep):
    shares, left = expected(net, [pattern for pattern, _ in given])
    patterns = dict(given)
    frozen = "keep" if keep else "leave out"
    alive = [p for p in net.parameters() if keep or p.requires_grad]
    if not all(shares) or not given or (left and unmatched == "error"):
        with pytest.raises(ValueError, match=r"gets nothing|matches nothing|no pattern"):
            param_groups(net, patterns, unmatched=unmatched, frozen=frozen)
        return
    wanted = [(share, options) for share, (_, options) in zip(shares, given, strict=True)]
    if isinstance(unmatched, dict):
        wanted.append((left, unmatched))
    wanted = [([p for p in share if keep or p.requires_grad], options) for share, options in wanted]
    wanted = [(share, options) for share, options in wanted if share]
    if not wanted:
        with pytest.raises(ValueError, match="no parameter is left"):
            param_groups(net, patterns, unmatched=unmatched, frozen=frozen)
        return
    groups = param_groups(net, patterns, unmatched=unmatched, frozen=frozen)
    assert len(groups) == len(wanted)
    first = {p: names[0] for p, names in all_names(net).items()}
    for group, (share, options) in zip(groups, wanted, strict=True):
        assert same(group["params"], share)
        assert group == {"params": share, "param_names": [first[p] for p in share], **options}
    everyone = [id(p) for group in groups for p in group["params"]]
    assert len(everyone) == len(set(everyone))
    outside = {first[p] for p in net.parameters()} - {
        name for group in groups for name in group["param_names"]
    }
    assert outside == set(groups.left_out)
    if unmatched != "leave out":
        assert set(everyone) == {id(p) for p in alive}
    repr(groups)
    groups._repr_html_()


@given(NETS, GIVEN, st.sampled_from([None, NO_DECAY]), st.sampled_from([None, 0.5, 1.0]))
def test_splitting_by_decay_and_layer_changes_only_these_options(net, given, no_decay, layer_decay):
    given = [*given, ("*", {"lr": 1.0})]
    shares, _ = expected(net, [pattern for pattern, _ in given])
    if not all(shares):
        return
    whole = param_groups(net, dict(given))
    split = param_groups(net, dict(given), no_decay=no_decay, layer_decay=layer_decay)
    of = {id(p): group for group in whole for p in group["params"]}
    assert {id(p) for group in split for p in group["params"]} == of.keys()
    assert sum(len(group["params"]) for group in split) == len(of)
    place = {id(p): at for at, group in enumerate(whole) for p in group["params"]}
    places = [[place[id(p)] for p in group["params"]] for group in split]
    assert all(len(set(members)) == 1 for members in places)
    assert places == sorted(places, key=lambda members: members[0])  # in the order of the patterns
    norms = {id(p) for m in net.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    factors = {0.5**depth for depth in range(20)}
    for group in split:
        for p in group["params"]:
            spared = no_decay and (id(p) in norms or p.dim() == 1)
            assert group.get("weight_decay") == (0.0 if spared else of[id(p)].get("weight_decay"))
            factor = group["lr"] / of[id(p)]["lr"]
            assert factor == 1.0 if layer_decay != 0.5 else factor in factors
        assert len({id(p) in norms or p.dim() == 1 for p in group["params"]}) == 1 or not no_decay
    scope = {"model": net}
    exec(split.as_code(), scope)
    for theirs, ours in zip(scope["groups"], split, strict=True):
        assert set(map(id, theirs["params"])) == set(map(id, ours["params"]))
        assert theirs.keys() | {"param_names"} == ours.keys()
        assert all(theirs[name] == ours[name] for name in theirs if name != "params")


OPTIMIZERS = [
    kind
    for kind in vars(torch.optim).values()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind.__name__ not in ("Optimizer", "LBFGS", "SparseAdam")
]


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.__name__)
@settings(max_examples=15)
@given(st.booleans(), st.frozensets(st.integers(0, 6), max_size=2), GIVEN)
def test_every_optimizer_steps_as_with_groups_made_by_hand(kind, tied, frozen, given):
    """Bit by bit, over three steps; Muon takes matrices only, so the net has no biases for it."""
    net = Net(["linear", "no bias"], tied, frozen)
    if kind.__name__ == "Muon":
        net.blocks[0].bias = net.head.bias = None
    given = [(pattern, {"lr": options["lr"]}) for pattern, options in given] + [("*", {"lr": 0.001})]
    shares, _ = expected(net, [pattern for pattern, _ in given])
    given = [one for one, share in zip(given, shares, strict=True) if share]
    if not any(p.requires_grad for p in net.parameters()):
        return
    other = copy.deepcopy(net)
    ours = kind(param_groups(net, dict(given)))
    shares, _ = expected(other, [pattern for pattern, _ in given])
    theirs = kind([{"params": share, **options} for share, (_, options) in zip(shares, given, strict=True)])
    assert [group["lr"] for group in ours.param_groups] == [options["lr"] for _, options in given]
    tokens = torch.tensor([0, 1, 2, 3, 3])
    for _ in range(3):
        for one, optimizer in ((net, ours), (other, theirs)):
            optimizer.zero_grad()
            one(tokens).square().mean().backward()
            optimizer.step()
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
