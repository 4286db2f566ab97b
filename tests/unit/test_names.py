"""Which tensors a pattern means, against lists written out by hand."""

import re

import pytest
import torch
from torch import nn

from layerlab import names


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(2)


class Net(nn.Module):
    """Parameters and buffers at the top, nested blocks, a tied weight and a non-persistent buffer."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("mask", torch.ones(1), persistent=False)
        self.register_buffer("nothing", None)
        self.embed = nn.Embedding(3, 2)
        self.layer1 = nn.Sequential(Block(), nn.ReLU())
        self.layer10 = nn.Linear(2, 2)
        self.head = nn.Linear(2, 3)
        self.head.weight = self.embed.weight


EVERY = [
    "scale",
    "mask",
    "embed.weight",
    "layer1.0.conv.weight",
    "layer1.0.bn1.weight",
    "layer1.0.bn1.bias",
    "layer1.0.bn1.running_mean",
    "layer1.0.bn1.running_var",
    "layer1.0.bn1.num_batches_tracked",
    "layer10.weight",
    "layer10.bias",
    "head.bias",
]
BN1 = EVERY[4:9]
BLOCK = EVERY[3:9]


@pytest.fixture
def net():
    return Net()


def found(model, pattern, **options):
    return [named.name for named in names.find(model, pattern, **options)]


def test_every_tensor_once_in_the_models_own_order(net):
    assert [named.name for named in names.tensors(net)] == EVERY


def test_what_is_known_of_each_tensor(net):
    by_name = {named.name: named for named in names.tensors(net)}
    mean = by_name["layer1.0.bn1.running_mean"]
    assert mean.tensor is net.layer1[0].bn1.running_mean
    assert (mean.kind, mean.module_name, mean.module) == ("buffer", "layer1.0.bn1", net.layer1[0].bn1)
    scale = by_name["scale"]
    assert (scale.kind, scale.module_name, scale.module) == ("parameter", "", net)
    assert by_name["mask"].kind == "buffer"
    tied = by_name["embed.weight"]
    assert (tied.names, tied.module) == (("embed.weight", "head.weight"), net.embed)


def test_equal_tensors_are_two_and_are_never_compared():
    twins = nn.ModuleList([nn.LayerNorm(2), nn.LayerNorm(2)])
    found_twins = names.tensors(twins)
    assert [named.name for named in found_twins] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert found_twins[0] != found_twins[2]  # comparing by tensor value would raise or be true
    assert len(set(found_twins)) == 4


def test_a_shared_module_gives_its_tensors_all_its_names():
    shared = nn.Linear(2, 2)
    model = nn.ModuleDict({"first": shared, "second": nn.Sequential(shared)})
    assert [(named.name, named.names) for named in names.tensors(model)] == [
        ("first.weight", ("first.weight", "second.0.weight")),
        ("first.bias", ("first.bias", "second.0.bias")),
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("scale", ["scale"]),
        ("head.bias", ["head.bias"]),
        ("head.weight", ["embed.weight"]),
        ("head", ["embed.weight", "head.bias"]),
        ("layer1", BLOCK),
        ("layer1.0.bn1", BN1),
        ("*", EVERY),
        ("layer1*", [*BLOCK, "layer10.weight", "layer10.bias"]),
        ("layer1.*", BLOCK),
        ("layer[1-3]", BLOCK),
        ("layer[1-3].*", BLOCK),
        ("layer?", BLOCK),
        ("layer1.?.bn*", BN1),
        ("*.bias", ["layer1.0.bn1.bias", "layer10.bias", "head.bias"]),
        (re.compile(r".*\.bias"), ["layer1.0.bn1.bias", "layer10.bias", "head.bias"]),
        (re.compile("head.weight|mask"), ["mask", "embed.weight"]),
        (["head.bias", "scale", "scale", "s*"], ["scale", "head.bias"]),
        (("layer1.0.bn1", re.compile("mask")), ["mask", *BN1]),
    ],
)
def test_what_a_pattern_means(net, pattern, expected):
    assert found(net, pattern) == expected


def test_a_generator_of_patterns(net):
    assert found(net, (name for name in ("scale", "mask"))) == ["scale", "mask"]


def test_a_regex_matches_the_whole_name(net):
    with pytest.raises(ValueError, match=r"^pattern 'bia' matches nothing"):
        names.find(net, re.compile("bia"))


def test_only_parameters_or_only_buffers(net):
    assert found(net, "layer1.0.bn1", buffers=False) == BN1[:2]
    assert found(net, "layer1.0.bn1", parameters=False) == BN1[2:]


@pytest.mark.parametrize(
    ("pattern", "options", "said"),
    [
        ("mask", {"buffers": False}, r"^pattern 'mask' matches only buffers \(mask\)"),
        ("head", {"parameters": False}, r"matches only parameters \(embed\.weight, head\.bias\)"),
        (
            "layer1.0.bn1",
            {"parameters": False, "buffers": False},
            r"parameters and buffers \(.*and 1 more\)",
        ),
    ],
)
def test_matching_only_what_is_left_out_is_said(net, pattern, options, said):
    with pytest.raises(ValueError, match=said):
        names.find(net, pattern, **options)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("haed.bias", r"^pattern 'haed\.bias' matches nothing; near names: head\.bias"),
        ("Layer10", r"near names: layer10"),
        ("layer9.*", r"near names: .*layer1"),
        ("heads", r"near names: head"),
        ("zzz", r"^pattern 'zzz' matches nothing; the model has: scale, mask, embed\.weight"),
        ("layer1.1", r"the ReLU of that name has no parameters or buffers"),
        ("nothing", r"^pattern 'nothing' matches nothing"),
        ("lay", r"^pattern 'lay' matches nothing"),
        (["scale", "zzz"], r"^pattern 'zzz' matches nothing"),
        ("", r"empty pattern ''"),
        (["scale", ""], r"empty pattern ''"),
        ([], "list of patterns is empty"),
    ],
)
def test_a_pattern_that_means_nothing_is_an_error(net, pattern, said):
    with pytest.raises(ValueError, match=said):
        names.find(net, pattern)


def test_a_model_without_tensors():
    assert names.tensors(nn.ReLU()) == []
    with pytest.raises(ValueError, match="no parameters or buffers"):
        names.find(nn.ReLU(), "*")


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        (3, "int"),
        (None, "NoneType"),
        (b"scale", "bytes"),
        (torch.ones(2), "Tensor"),
        (nn.Sequential(nn.Linear(1, 1)), "Sequential"),
        (["scale", 3], "int"),
        ([["scale"]], "list"),
        (re.compile(b"scale"), "regular expression for bytes"),
    ],
)
def test_a_pattern_of_the_wrong_type(net, pattern, kind):
    with pytest.raises(TypeError, match=f"not {kind}$"):
        names.find(net, pattern)


@pytest.mark.parametrize("call", [names.tensors, names.modules, lambda model: names.find(model, "*")])
def test_a_model_of_the_wrong_type(call):
    with pytest.raises(TypeError, match=r"not dict$"):
        call({})


def compiled(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, compiled, lambda net: nn.DataParallel(compiled(net))],
    ids=["DataParallel", "compile", "both"],
)
def test_wrapper_prefixes_are_left_out(net, wrap):
    wrapped = wrap(net)
    assert names.bare(wrapped) is net
    assert [named.name for named in names.tensors(wrapped)] == EVERY
    assert names.tensors(wrapped)[0].module_name == ""


def test_a_compiled_part_of_a_model(net):
    net.layer1[0] = compiled(net.layer1[0])
    assert [named.name for named in names.tensors(net)] == EVERY
    assert found(net, "layer1.0.bn1") == BN1
    assert [name for name, _ in names.modules(net)].count("layer1.0") == 2  # the wrapper, and what is in it


def test_distributed_prefix_is_left_out(net):
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(net)
        assert [named.name for named in names.tensors(wrapped)] == EVERY
    finally:
        torch.distributed.destroy_process_group()


def test_a_users_own_part_named_module_keeps_its_name():
    model = nn.ModuleDict({"module": nn.Linear(1, 1)})
    assert [named.name for named in names.tensors(model)] == ["module.weight", "module.bias"]


def test_modules_once_each_with_their_names(net):
    assert [name for name, _ in names.modules(net)] == [
        "",
        "embed",
        "layer1",
        "layer1.0",
        "layer1.0.conv",
        "layer1.0.bn1",
        "layer1.1",
        "layer10",
        "head",
    ]


def test_repr_shows_no_numbers_of_the_tensor(net):
    assert repr(names.tensors(net)[0]) == (
        "Named(name='scale', names=('scale',), kind='parameter', module_name='')"
    )


def test_a_regex_given_as_a_string_is_told_how_to_be_one():
    net = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"if it is a regex, give re\.compile\(r.\\d\\.bias.\)"):
        names.find(net, r"\d\.bias")
