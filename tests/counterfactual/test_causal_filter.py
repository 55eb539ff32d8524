"""A run of the filter edits and asks in batches, and outlives a question that fails."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from medfocus_bench.counterfactual.causal_filter import verify
from medfocus_bench.counterfactual.dataset import pointer_row
from medfocus_bench.counterfactual.editors import EditorError, editor_label
from medfocus_bench.counterfactual.records import Failure, failures_path, read_failures, read_verifications
from medfocus_bench.counterfactual.registry import load_editor
from medfocus_bench.data.questions import Question
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.protocol import NotFiniteError, Response
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.phantom.track import phantom_questions

UNREADABLE = Failure("toy", 2, "lesion", "files/p2.jpg: the image cannot be decoded")


def questions(count=6, *, bad=()):
    for index in range(count):
        image = np.full((30, 20), 100 + index, np.uint8)
        box = (0, 0, 20, 30) if index in bad else (4, 6, 12, 15)
        yield Question("toy", index, f"p{index}", "mass", image, np.array([box], dtype=np.float64))


class Inverting:
    """Inverts the region, many at a time; fails for the questions of `fails`."""

    name, version = "inverting", "1"

    def __init__(self, fails=(), error=ValueError, digest="d" * 64):
        self.fails, self.error, self.digest, self.calls = fails, error, digest, []

    def redraw(self, question, edit, region, seed):
        raise AssertionError("it has a redraw_many")

    def redraw_many(self, redrawings):
        self.calls.append([r.question.index for r in redrawings])
        if any(r.question.index in self.fails for r in redrawings):
            raise self.error("no ink")
        return [255 - r.question.image - np.uint8(r.seed) for r in redrawings]


class Reader:
    key, decoding, dtype = "reader", "greedy", "float32"

    def __init__(self):
        self.calls = []

    def respond(self, images, asked, *, max_new_tokens=64):
        self.calls.append(len(images))
        return [Response("Yes.", (1,), float(image.mean())) for image in images]


class Thinker(Reader):
    """Thinks in `words` words before it answers; a reply is cut off where it may write no more."""

    def __init__(self, words):
        super().__init__()
        self.words = words

    def respond(self, images, asked, *, max_new_tokens=64):
        reply = ["hm"] * self.words + ["Final", "answer:", "Yes."]
        text = " ".join(reply[:max_new_tokens])
        return [Response(text, (1,), None) for _ in images]


def indices(records):
    return [record.index for record in records]


def test_the_edits_of_several_questions_are_made_and_asked_about_together(tmp_path):
    editor, reader = Inverting(), Reader()
    records = list(verify(questions(5), reader, "direct", editor, tmp_path / "out.jsonl", batch=10))
    assert editor.calls == [[0] * 4 + [1] * 4, [2] * 4 + [3] * 4, [4] * 4]
    assert reader.calls == [10, 10, 5]
    assert indices(records) == [0, 1, 2, 3, 4]


def test_several_shams_are_asked_about_and_recorded(tmp_path):
    out = tmp_path / "out.jsonl"
    (record,) = verify(questions(1), Reader(), "direct", Inverting(), out, sham_seeds=(0, 1, 2))
    assert list(record.responses)[-3:] == ["sham", "sham_1", "sham_2"]
    assert len({record.log_odds[name] for name in ("sham", "sham_1", "sham_2")}) == 3
    with pytest.raises(InputError, match=r"another number of sham edits \(3\)"):
        list(verify(questions(1), Reader(), "direct", Inverting(), out))


@pytest.mark.parametrize(
    ("mode", "words", "decoding"),
    [("direct", 20, "greedy"), ("reasoning", 300, "greedy"), ("direct", 200, "checkpoint")],
)
def test_a_response_has_room_for_its_verdict(tmp_path, mode, words, decoding):
    """Cut off before its verdict, an answer counts as wrong: no sample of a verbose model would be kept."""
    thinker = Thinker(words)
    thinker.decoding = decoding
    (record,) = verify(questions(1), thinker, mode, Inverting(), tmp_path / "out.jsonl")
    assert record.says("original") == "yes"


def test_reading_lets_a_file_be_that_a_run_is_writing(tmp_path):
    out = tmp_path / "out.jsonl"
    list(verify([*questions(2), UNREADABLE], Reader(), "direct", Inverting(), out))
    for path in (out, failures_path(out)):
        path.write_bytes(path.read_bytes() + b'{"source": "to')
    written = out.read_bytes(), failures_path(out).read_bytes()
    assert indices(read_verifications(out)) == [0, 1]
    assert read_failures(out) == [UNREADABLE]
    assert written == (out.read_bytes(), failures_path(out).read_bytes())


def test_a_half_written_failure_does_not_spoil_the_next(tmp_path):
    """Trap 33."""
    out = tmp_path / "out.jsonl"
    failures_path(out).write_bytes(b'{"source": "to')
    list(verify([UNREADABLE, *questions(1)], Reader(), "direct", Inverting(), out))
    assert read_failures(out) == [UNREADABLE]


def test_a_question_that_fails_is_recorded_and_the_others_go_on(tmp_path):
    """Traps 18 and 33."""
    out, told = tmp_path / "out.jsonl", []
    editor = Inverting(fails={1})
    put = [*questions(6, bad={4})]
    put[2] = UNREADABLE
    records = list(verify(put, Reader(), "direct", editor, out, batch=15, on_failure=told.append))
    assert indices(records) == indices(read_verifications(out)) == [0, 3, 5]
    whole = "toy-00004-lesion: the boxes cover the whole picture and leave no background"
    failed = [Failure("toy", 1, "lesion", "no ink"), UNREADABLE, Failure("toy", 4, "lesion", whole)]
    assert sorted(told, key=lambda failure: failure.index) == failed
    assert set(read_failures(out)) == set(told)


class Overflowing(Reader):
    """Its numbers overflow for pictures of the third question."""

    def respond(self, images, asked, *, max_new_tokens=64):
        if any((image == 100 + 2).any() for image in images):
            raise NotFiniteError("reader: the logits are not finite numbers")
        return super().respond(images, asked)


def test_a_question_about_which_the_models_numbers_overflow_is_recorded_and_the_others_go_on(tmp_path):
    out, told = tmp_path / "out.jsonl", []
    options = {"batch": 15, "on_failure": told.append}
    records = list(verify(questions(5), Overflowing(), "direct", Inverting(), out, **options))
    assert indices(records) == indices(read_verifications(out)) == [0, 1, 3, 4]
    assert told == [Failure("toy", 2, "lesion", "reader: the logits are not finite numbers")]
    assert read_failures(out) == told
    again = verify(questions(5), Reader(), "direct", Inverting(), out)
    assert sorted(indices(again)) == [0, 1, 2, 3, 4]


class Small(Reader):
    """Holds so many pictures at a time, and none of the questions of `never`."""

    def __init__(self, holds, never=()):
        super().__init__()
        self.holds, self.never = holds, never

    def respond(self, images, asked, *, max_new_tokens=64):
        answers = super().respond(images, asked)
        if len(images) > self.holds or any(
            (image == 100 + index).any() for image in images for index in self.never
        ):
            raise RuntimeError("MPS backend out of memory (MPS allocated: 17.77 GB)")
        return answers


def test_pictures_that_do_not_fit_together_are_asked_about_in_halves_from_then_on(tmp_path):
    out, reader = tmp_path / "out.jsonl", Small(3)
    records = list(verify(questions(5), reader, "direct", Inverting(), out, batch=10))
    assert reader.calls == [10, 5, *[2] * 5, *[2] * 5, 2, 2, 1]
    plain = list(verify(questions(5), Reader(), "direct", Inverting(), tmp_path / "plain.jsonl"))
    assert records == plain


@pytest.mark.parametrize("batch", [1, 3, 7, 32])
def test_no_more_pictures_go_through_the_model_together_than_the_batch_says(tmp_path, batch):
    reader = Reader()
    list(verify(questions(4), reader, "direct", Inverting(), tmp_path / "out.jsonl", batch=batch))
    assert max(reader.calls) == {1: 1, 3: 3, 7: 5, 32: 20}[batch], "whole questions of five pictures"
    assert sum(reader.calls) == 20


def test_a_question_of_which_one_picture_does_not_fit_is_recorded_and_the_others_go_on(tmp_path):
    out = tmp_path / "out.jsonl"
    records = list(verify(questions(4), Small(9, {2}), "direct", Inverting(), out))
    assert indices(records) == [0, 1, 3]
    (failure,) = read_failures(out)
    assert failure.index == 2
    assert failure.reason.startswith(
        "the answer does not fit into the memory of the device, one picture at a time (MPS backend out of"
    )


def test_what_failed_is_tried_again_and_nothing_else(tmp_path):
    out = tmp_path / "out.jsonl"
    list(verify(questions(), Reader(), "direct", Inverting(fails={1, 3}), out))
    editor = Inverting(fails={3}, error=InputError)
    records = list(verify(questions(), Reader(), "direct", editor, out))
    assert sorted(indices(records)) == [0, 1, 2, 4, 5]
    assert {index for call in editor.calls for index in call} == {1, 3}
    assert indices(read_failures(out)) == [3]
    assert failures_path(out).name == "out.failures"


def test_an_editor_that_cannot_work_stops_the_run_and_blames_no_question(tmp_path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(EditorError, match="no ink"):
        list(verify(questions(), Reader(), "direct", Inverting(fails={0}, error=EditorError), out))
    assert read_failures(out) == []


def test_a_fault_of_the_program_is_no_failure_of_a_question(tmp_path):
    editor = Inverting(fails={5}, error=ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        list(verify(questions(), Reader(), "direct", editor, tmp_path / "out.jsonl", batch=5))
    assert indices(read_verifications(tmp_path / "out.jsonl")) == [0, 1, 2, 3, 4]


def test_a_run_is_known_by_the_editors_settings(tmp_path):
    """Records of other settings are not continued."""
    out = tmp_path / "out.jsonl"
    (record,) = verify(questions(1), Reader(), "direct", Inverting(), out)
    assert record.editor == editor_label(Inverting()) == "inverting 1 dddddddddddd"
    with pytest.raises(InputError, match="write the records elsewhere"):
        list(verify(questions(2), Reader(), "direct", Inverting(digest="e" * 64), out))


def test_records_say_how_they_were_decoded_and_are_not_continued_in_another_way(tmp_path):
    out = tmp_path / "out.jsonl"
    (record,) = verify(questions(1), Reader(), "direct", Inverting(), out)
    kept = json.loads(out.read_text())
    assert kept.pop("decoding") == record.decoding == "greedy"
    assert kept.pop("dtype") == record.dtype == "float32"
    assert pointer_row(record)["decoding"] is None
    assert pointer_row(replace(record, decoding="checkpoint"))["decoding"] == "checkpoint"
    out.write_text(json.dumps(kept) + "\n")  # as earlier versions wrote it
    other = Reader()
    other.decoding = "checkpoint"
    with pytest.raises(InputError, match=r"greedy decoding, .* not of .*, checkpoint decoding, "):
        list(verify(questions(2), other, "direct", Inverting(), out))
    assert indices(verify(questions(2), Reader(), "direct", Inverting(), out)) == [0, 1]
    half = Reader()
    half.dtype = "bfloat16"
    with pytest.raises(InputError, match=r"greedy decoding, float32, not of .*, bfloat16; go on"):
        list(verify(questions(3), half, "direct", Inverting(), out))


def test_a_line_that_is_no_failure_is_named(tmp_path):
    out = tmp_path / "out.jsonl"
    failures_path(out).write_text('{"source": "toy"}\n')
    with pytest.raises(InputError, match=r"out\.failures: line 1"):
        read_failures(out)


def test_the_free_editor_and_a_shipped_model_go_through_the_filter(tmp_path):
    lvlm, editor = load_lvlm("phantom_qwen"), load_editor("inpainting")
    (found,) = verify(phantom_questions([0], "lesion"), lvlm, "direct", editor, tmp_path / "out.jsonl")
    assert found.editor == editor_label(editor)
    assert None not in found.log_odds.values()
