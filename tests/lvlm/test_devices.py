"""Where weights lie and numbers are computed, held against fakes of devices that this machine has not."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForImageTextToText

from medfocus_bench import errors
from medfocus_bench.attribution.attention import AttentionHead, AttentionRollout, RelativeAttention
from medfocus_bench.attribution.gradient import GradCAM, GradCAMPlusPlus, GradientWeightedAttention
from medfocus_bench.attribution.integrated_gradients import IntegratedGradients
from medfocus_bench.attribution.lrp import LRP
from medfocus_bench.attribution.perturbation import RISE, Occlusion
from medfocus_bench.attribution.token_activation import TokenActivationMap
from medfocus_bench.data.questions import prompt
from medfocus_bench.engine import devices
from medfocus_bench.engine.devices import best_device, best_dtype, check_device
from medfocus_bench.errors import InputError, MissingExtraError
from medfocus_bench.lvlm import checkpoint as checkpoint_module
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.lvlm.placement import check_placed
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.medfocus.interventions import ConceptRegion, measure
from medfocus_bench.phantom.render import Patient, render
from medfocus_bench.runs.config import RunConfig

QUESTION = prompt("nodule", "direct")
IMAGE = render(Patient.sample((21, 0))).image
REGION = ConceptRegion("lung", np.array([[10.0, 20.0, 90.0, 110.0]]), ())

METHODS = [
    AttentionHead(),
    AttentionRollout(),
    RelativeAttention(),
    GradientWeightedAttention(),
    GradientWeightedAttention(propagate=True),
    GradCAM(layer=1),
    GradCAMPlusPlus(layer=1),
    LRP(),
    TokenActivationMap(words="question", lens="input", centred=True),
    TokenActivationMap(),
    IntegratedGradients(steps=2, baseline="blurred", pool=2),
    Occlusion(cells=2),
    RISE(masks=3, cells=2),
]


# -- which there are -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", ["cuda", "xpu", "mps", "cpu"])
def test_the_best_device_is_a_gpu_where_there_is_one(monkeypatch, best):
    kinds = {"cuda": torch.cuda, "xpu": torch.xpu, "mps": torch.backends.mps}
    order = ["cuda", "xpu", "mps", "cpu"]
    for name, kind in kinds.items():
        there = order.index(name) >= order.index(best)
        monkeypatch.setattr(kind, "is_available", lambda there=there: there)
    assert best_device() == best


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("gpu", "--device gpu: no such kind of device; give cpu, or auto, or cuda"),
        ("meta", "--device meta: no such kind of device"),
        ("cpu:3", "--device cpu:3: no such kind of device"),
        ("cuda", "--device cuda: .*; give cpu, or auto, or cuda"),
        ("mps", "--device mps: this machine has no MPS; give cpu"),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence(device, said):
    with pytest.raises(InputError, match=said) as caught:
        check_device(device)
    assert "\n" not in str(caught.value)


def test_the_best_device_is_loaded_onto_by_default_in_its_type(checkpoint):
    lvlm = load_lvlm(checkpoint("tiny_idefics3"))
    assert lvlm.device == torch.device(best_device())
    assert str(lvlm.model.dtype) == f"torch.{best_dtype(best_device())}"


@pytest.fixture
def gpus(monkeypatch):
    """As if torch saw GPUs of a kind, those that compute in bfloat16 by number; none of any other kind."""

    def there(kind, has_bfloat16):
        used = []
        asked = torch.cuda if kind == "cuda" else torch.xpu
        for one in (torch.cuda, torch.xpu, torch.backends.mps):
            monkeypatch.setattr(one, "is_available", lambda one=one: one is asked)

        @contextmanager
        def device(number):
            used.append(number)
            yield

        monkeypatch.setattr(asked, "device", device)
        monkeypatch.setattr(
            asked, "is_bf16_supported", lambda including_emulation=True: has_bfloat16[used[-1]]
        )

    return there


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_the_type_of_weights_is_bfloat16_on_a_gpu_that_has_it_and_float32_elsewhere(gpus, kind):
    gpus(kind, {0: True, 1: False})
    names = ["auto", "auto-map", kind, f"{kind}:0", f"{kind}:1", "cpu", "mps"]
    assert [best_dtype(name) for name in names] == ["bfloat16"] * 4 + ["float32"] * 3


def test_a_gpu_of_another_machine_is_taken_for_one_with_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert best_dtype("cuda") == "bfloat16"


def test_a_run_knows_the_type_that_auto_stands_for(gpus):
    gpus("cuda", {0: True})
    config = RunConfig()
    assert (config.dtype, RunConfig(device="cpu").dtype) == ("bfloat16", "float32")
    assert config.placed("qwen2_5_vl_3b") == "LVLM qwen2_5_vl_3b on cuda in bfloat16"
    spread = RunConfig(device="auto-map", dtype="float16", quantise="4bit")
    assert spread.placed("a") == "LVLM a on all GPUs in float16, with weights of 4bit"
    assert dict(config.source("a").options)["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("device", "quantise", "library"),
    [("auto-map", None, "accelerate"), ("cuda", "8bit", "accelerate"), ("cuda", "4bit", "bitsandbytes")],
)
def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch, device, quantise, library):
    def without(name):
        if name == library:
            raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(errors, "import_module", without)
    for call in (check_device, lambda *where: load_lvlm("phantom_qwen", device=device, quantise=quantise)):
        with pytest.raises(MissingExtraError, match=rf"{library}: .* pip install 'medfocus-bench\[gpu\]'"):
            call(device, quantise)


def test_an_unknown_quantisation_is_an_error():
    with pytest.raises(InputError, match="--quantise 2bit: unknown; give one of 8bit, 4bit"):
        load_lvlm("phantom_qwen", quantise="2bit")


# -- what the library is told --------------------------------------------------------------------------------


@pytest.fixture
def _libraries(monkeypatch):
    """As if accelerate, bitsandbytes and a GPU were here."""
    monkeypatch.setattr(devices, "require", lambda name: None)
    monkeypatch.setattr(devices, "best_device", lambda: "cuda")
    monkeypatch.setattr(devices, "unusable", lambda device, quantise: None)
    monkeypatch.setattr(checkpoint_module, "unusable", lambda device, quantise: None)


@pytest.fixture
def told(monkeypatch):
    """The keywords that `from_pretrained` was given; it loads the weights onto the CPU, as if quantised."""
    real, seen = AutoModelForImageTextToText.from_pretrained, {}

    def load(source, *, device_map=None, quantization_config=None, **options):
        seen.update(device_map=device_map, config=quantization_config, **options)
        model, info = real(source, **options)
        model.is_quantized = quantization_config is not None
        model.to = lambda device: pytest.fail("moved") if device_map else model
        return model, info

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", load)
    return seen


@pytest.mark.usefixtures("_libraries")
def test_on_a_gpu_that_has_bfloat16_weights_are_loaded_in_it(checkpoint, told, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "best_dtype", lambda device: {"cuda": "bfloat16"}[device])
    load_lvlm(checkpoint("tiny_idefics3"))
    assert told["dtype"] is torch.bfloat16


@pytest.mark.usefixtures("_libraries")
@pytest.mark.parametrize(
    ("device", "quantise", "device_map"),
    [
        ("cuda:1", None, None),
        ("auto-map", None, "auto"),
        ("cuda:1", "8bit", {"": "cuda:1"}),
        ("auto-map", "4bit", "auto"),
    ],
)
def test_weights_are_placed_and_quantised_by_the_library(checkpoint, told, device, quantise, device_map):
    lvlm = load_lvlm(checkpoint("tiny_idefics3"), device=device, quantise=quantise, dtype="bfloat16")
    assert told["device_map"] == device_map
    assert told["dtype"] is torch.bfloat16
    assert told["trust_remote_code"] is False
    assert lvlm.quantised is (quantise is not None)
    config = told["config"]
    if quantise == "8bit":
        assert (config.load_in_8bit, config.load_in_4bit) == (True, False)
    elif quantise == "4bit":
        assert (config.load_in_8bit, config.load_in_4bit) == (False, True)
        assert (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)
    else:
        assert config is None


def test_weights_that_found_no_room_on_the_gpus_are_an_error():
    check_placed("a", SimpleNamespace())
    check_placed("a", SimpleNamespace(hf_device_map={"": "cpu"}))
    check_placed("a", SimpleNamespace(hf_device_map={"model.visual": 0, "lm_head": 1}))
    model = SimpleNamespace(hf_device_map={"model.visual": 0, "layers.0": 1, "layers.1": "cpu", "z": "disk"})
    with pytest.raises(
        InputError, match=r"^a: 2 of its 4 parts, such as layers\.1, do not fit into the memory of"
    ):
        check_placed("a", model)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_methods_that_need_gradients_refuse_quantised_weights_and_no_others_do(checkpoint, method):
    lvlm = HuggingFaceLVLM("qwen", checkpoint("phantom_qwen"))
    lvlm.quantised = True
    if "gradients" not in method.needs:
        assert method.attribute(lvlm, IMAGE, QUESTION, "Yes.").saliency is not None
        return
    with pytest.raises(
        InputError, match=f"and {method.name} would need them: load the LVLM without --quantise"
    ):
        method.attribute(lvlm, IMAGE, QUESTION, "Yes.")


# -- where numbers are computed ------------------------------------------------------------------------------


class NoDoublesButOnTheCPU(TorchFunctionMode):
    """Double precision for tensors that `.cpu()` gave, as on a Mac, and for no others."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if not isinstance(made, torch.Tensor):
            return made
        given = [value for value in args if isinstance(value, torch.Tensor)]
        if function is torch.Tensor.cpu:
            made = made.view_as(made)
            made.on_cpu = True
        elif made.dtype is torch.float64 and not any(value.dtype is torch.float64 for value in given):
            said = [getattr(value, "on_cpu", False) for value in given]
            assert any(said), f"{function} makes a float64, which MPS has not"
        return made


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_no_double_precision_away_from_the_cpu(open_lvlm, method):
    lvlm = open_lvlm("phantom_qwen")
    with NoDoublesButOnTheCPU():
        method.explain(lvlm, lvlm.encode(IMAGE, QUESTION, "Yes."), target="response", seed=0)


@pytest.mark.parametrize("fill", ["zero", "mean", "blur", "inpaint"])
def test_no_fill_makes_a_double_away_from_the_cpu(open_lvlm, fill):
    lvlm = open_lvlm("phantom_qwen")
    with NoDoublesButOnTheCPU():
        measure(lvlm, lvlm.encode(IMAGE, QUESTION, "Yes."), [REGION], fill=fill, n_permutations=1)


def test_every_method_computes_where_the_weights_lie():
    """In a process of its own: a device of another kind is registered once and for all."""
    script = [sys.executable, "-m", "tests.lvlm.on_two_devices"]
    root = Path(__file__).parents[2]
    run = subprocess.run(script, capture_output=True, check=False, text=True, timeout=600, cwd=root)
    assert run.returncode == 0, run.stderr[-3000:]
    assert len(run.stdout.splitlines()) == len(METHODS) + 1
