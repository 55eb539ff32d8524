"""A sample that fails is on record with its reason: never the end of the run, never a map of nothing."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm import fitting
from medfocus_bench.lvlm.protocol import NotFiniteError
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.phantom import PHANTOM_LVLMS
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.methods import choose_methods
from medfocus_bench.runs.picture import UserImage, explain_picture
from medfocus_bench.runs.records import read_failures
from medfocus_bench.runs.tune import tune

from .conftest import first_rows
from .methods import HERE

HUNGRY, COUNTING = f"{HERE}:Hungry", f"{HERE}:Counting"
TOO_MUCH = (
    "does not fit into the memory of cpu, one picture at a time (CUDA out of memory. Tried to allocate 66"
)


def run(bench, out, *names, sets=(), lvlm="phantom_qwen", **options):
    methods = choose_methods(names, sets)
    return attribute(methods, bench, out, splits="direct", lvlms=lvlm, **options)


def reasons(out, method, samples):
    """Those of a method, which has no record and a failure for each of the samples."""
    failures = read_failures(out / method)
    assert len(failures) == len({failure.sample_id for failure in failures}) == samples
    return {failure.reason for failure in failures}


@contextmanager
def changed(register, hook):
    """The LVLM that runs have loaded, with a hook."""
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.fixture(autouse=True)
def _nothing_is_known_of_memory(monkeypatch):
    monkeypatch.setattr(fitting, "_FITS", WeakKeyDictionary())


@pytest.fixture
def qwen():
    """The LVLM that a run of `phantom_qwen` with default settings loads."""
    return RunConfig().load("phantom_qwen")


# -- memory --------------------------------------------------------------------------------------------------


def test_a_method_that_wants_too_much_is_given_fewer_pictures_at_a_time(small, tmp_path):
    found = run(small, tmp_path, HUNGRY)
    assert [one.diagnostics["batch"] for one in found] == [2.0] * 4


def test_memory_that_one_picture_exceeds_is_a_failure_of_the_method_and_of_no_other(small, tmp_path):
    outcomes = run(
        small, tmp_path, COUNTING, HUNGRY, "occlusion", sets=["hungry.holds=0", "occlusion.cells=1"]
    )
    assert [(one.method, one.new, len(one.reasons)) for one in outcomes.outcomes] == [
        ("counting", 4, 0),
        ("hungry", 0, 4),
        ("occlusion", 4, 0),
    ]
    (why,) = reasons(tmp_path, "hungry", 4)
    assert why.startswith(f"hungry {TOO_MUCH}")


def test_an_answer_that_one_picture_has_no_memory_for_is_a_failure_of_every_method(tmp_path, qwen):
    first, second = first_rows("direct")[:2]
    rows = [{**first, "response": None}, second]
    bench = write_benchmark(tmp_path / "b", {"direct": rows}, name="b", version="1")

    def refuse(module, args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 66.00 GiB")

    with changed(qwen.model.get_output_embeddings().register_forward_pre_hook, refuse):
        found = run(bench, tmp_path / "run", COUNTING)
    assert found.outcomes[0].new == 1
    (why,) = reasons(tmp_path / "run", "counting", 1)
    assert why.startswith(f"the answer {TOO_MUCH}")


def test_of_a_single_picture_too_a_method_without_memory_costs_no_other(qwen):
    picture = UserImage("p.png", np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    methods = choose_methods([HUNGRY, COUNTING], ["hungry.holds=0"])
    found = explain_picture(picture, "Is there a mass?", qwen, methods, response="Yes.")
    first, second = found.explanations
    assert first.error.startswith(f"hungry {TOO_MUCH}")
    assert second.attribution is not None

    def refuse(module, args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 66.00 GiB")

    with (
        changed(qwen.model.get_output_embeddings().register_forward_pre_hook, refuse),
        pytest.raises(InputError) as caught,
    ):
        explain_picture(picture, "Is there a mass?", qwen, methods)
    assert str(caught.value).startswith(f"p.png: the answer {TOO_MUCH}")


def test_a_candidate_without_memory_loses_and_the_others_are_tuned(small):
    part = tune(HUNGRY, load_lvlm("phantom_qwen"), small, "direct", limit=2)
    assert [(one.settings["holds"], one.failed) for one in part.candidates] == [(2, 0), (0, 2)]


def test_candidates_that_share_their_passes_share_the_lack_of_memory(small, tmp_path):
    lvlm, calls = load_lvlm("phantom_qwen"), []

    def refuse_first(module, args, output):
        calls.append(lvlm.batch)
        if lvlm.batch > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with changed(lvlm.decoder.layers[0].register_forward_hook, refuse_first):
        part = tune("attention-head", lvlm, small, "direct", limit=2)
    assert calls == [16, 8, 4, 4]
    assert not any(one.failed for one in part.candidates)


# -- numbers -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A checkpoint one row of whose vocabulary, of a token that nobody writes, is not a number."""
    folder = tmp_path_factory.mktemp("damaged") / "phantom_qwen"
    shutil.copytree(PHANTOM_LVLMS["phantom_qwen"], folder)
    weights = load_file(folder / "model.safetensors")
    name = (
        "lm_head.weight" if "lm_head.weight" in weights else next(n for n in weights if "embed_tokens" in n)
    )
    weights[name][5] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


OF_LOGITS = [
    "occlusion",
    "rise",
    "integrated-gradients",
    "grad-cam",
    "gradient-weighted-attention",
    "medfocus",
]


def test_logits_that_are_not_numbers_are_failures_of_every_method_that_reads_them(small, tmp_path, damaged):
    sets = ["occlusion.cells=1", "rise.masks=1", "integrated-gradients.steps=1"]
    run(small, tmp_path, *OF_LOGITS, sets=sets, lvlm=str(damaged), limit=1)
    for method in OF_LOGITS:
        (why,) = reasons(tmp_path, method, 1)
        assert "of the response are not finite numbers, even in float32: its weights are damaged" in why, (
            method
        )


def test_an_answer_of_logits_that_are_not_numbers_is_an_error(small, damaged):
    """Greedy decoding takes the token whose logit is NaN, and goes on."""
    lvlm, image = load_lvlm(damaged), small.samples[0].image
    with pytest.raises(NotFiniteError, match="phantom_qwen: the logits are not finite numbers"):
        lvlm.generate(image, "Is there a mass?", max_new_tokens=2)
    with pytest.raises(NotFiniteError, match="the log-probabilities of the response are not finite"):
        lvlm.log_probs([image], "Is there a mass?", "Yes.")


def test_gradients_that_are_not_numbers_are_failures(small, tmp_path, qwen):
    def spoil(module, args, output):
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient * torch.nan)

    methods = ["grad-cam", "lrp", "gradient-weighted-attention", "integrated-gradients"]
    with changed(qwen.decoder.layers[-1].mlp.down_proj.register_forward_hook, spoil):
        run(small, tmp_path, *methods, sets=["integrated-gradients.steps=1"], limit=1)
    for method in methods:
        (why,) = reasons(tmp_path, method, 1)
        assert "phantom_qwen: the gradients" in why, method
        assert "are not finite numbers" in why


# -- words ---------------------------------------------------------------------------------------------------


def test_a_model_that_answers_nothing_is_a_failure(tmp_path, qwen):
    rows = [{**row, "response": None} for row in first_rows("direct")[:2]]
    bench = write_benchmark(tmp_path / "b", {"direct": rows}, name="b", version="1")
    end = qwen.processor.tokenizer.eos_token_id

    def stop(module, args, output):
        output[..., end] = 1e4

    with changed(qwen.model.get_output_embeddings().register_forward_hook, stop):
        run(bench, tmp_path / "run", COUNTING)
    (why,) = reasons(tmp_path / "run", "counting", 2)
    assert why == "the response '' has no tokens: there is nothing to explain"


def test_a_response_that_does_not_come_back_from_the_tokens_is_a_failure_of_its_sample_alone(tmp_path):
    first, second = first_rows("direct")[:2]
    rows = [{**first, "response": "Yes, a cliche\u0301."}, second]
    bench = write_benchmark(tmp_path / "b", {"direct": rows}, name="b", version="1")
    found = run(bench, tmp_path / "run", COUNTING)
    assert found.outcomes[0].new == 1
    (why,) = reasons(tmp_path / "run", "counting", 1)
    assert "cannot be written with the tokens of phantom_qwen" in why
