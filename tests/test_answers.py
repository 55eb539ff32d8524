"""The verdict in a text, and log-odds."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfocus_bench.answers import log_odds, parse_verdict
from medfocus_bench.text import same
from medfocus_bench.verdicts import MAX_CHARACTERS, Stated, stated_verdict

# The right values were written down from judgement, before the parser was.
CORPUS = [json.loads(line) for line in (Path(__file__).parent / "answers.jsonl").read_text().splitlines()]
NOTES = sorted({answer["note"] for answer in CORPUS})


def test_the_corpus_holds_hundreds_of_answers_of_every_kind():
    assert len(CORPUS) == 661  # as docs/editors.md says
    assert len({answer["text"] for answer in CORPUS}) == len(CORPUS)
    counts = Counter(answer["verdict"] for answer in CORPUS)
    assert min(counts["yes"], counts["no"], counts[None]) > 150


@pytest.mark.parametrize("note", NOTES)
def test_every_answer_of_the_corpus_is_read_as_a_careful_reader_would(note):
    """Trap 14: a regex for "no" would call every finding that is absent a no."""
    answers = [answer for answer in CORPUS if answer["note"] == note]
    assert [(a["text"], parse_verdict(a["text"])) for a in answers] == [
        (a["text"], a["verdict"]) for a in answers
    ]


STATED = {
    "Yes\r\n": "yes",
    "yes\u00a0": "yes",
    "No\u200b": "no",
    "\ufeffYes": "yes",
    "\uff39\uff45\uff53": "yes",
    "Yes\u3002": "yes",
    "Yes the heart is enlarged": "yes",
    "No there is no evidence of pneumothorax.": "no",
    "I would answer yes.": "yes",
    "So the answer should be Yes.": "yes",
    "In conclusion, yes, there is cardiomegaly.": "yes",
    "Based on the image, yes.": "yes",
    "Answer: (A) Yes": "yes",
    "(B) No": "no",
    "Verdict \u2192 Yes": "yes",
    "Answer: Yes or no? Yes": "yes",
    "Final answer is: no evidence of cardiomegaly": None,
    "Answer: no cardiomegaly is seen": None,
}


@pytest.mark.parametrize(("text", "verdict"), STATED.items())
def test_answers_that_were_once_misread(text, verdict):
    assert parse_verdict(text) == verdict


@pytest.mark.parametrize("answer", [a for a in CORPUS if a["verdict"]], ids=lambda a: a["text"][:40])
def test_a_verdict_is_stated_where_the_text_spells_it(answer):
    stated = stated_verdict(answer["text"])
    spelled = same(answer["text"][stated.start : stated.stop])
    assert spelled in {"yes": ("yes", "yep", "yeah", "true"), "no": ("no", "nope", "false")}[stated.verdict]


def test_the_place_is_that_of_the_conclusion_in_the_text_as_it_was_written():
    text = "\ufeffNo effusion\r\n is seen \uff08no\uff09. Final\u00a0answer\uff1a No, there is no doubt."
    stated = stated_verdict(text)
    assert text[stated.start - 2 : stated.stop] == "\uff1a No"
    late = "." * (MAX_CHARACTERS + 7) + "Yes"
    assert stated_verdict(late) == Stated("yes", len(late) - 3, len(late))


def test_every_published_answer_has_the_verdict_of_its_place(real_data):
    records = json.loads((real_data / "medground" / "direct.json").read_text())
    for record in records:
        assert parse_verdict(record["prediction_direct"]) == "yes"
        assert parse_verdict(record["prediction_edited_direct"]) == "no"
        assert parse_verdict(record["prediction_edited_kept_direct"]) == "yes"
        assert parse_verdict(record["prediction_edited_kept_normal_direct"]) == "yes"


@given(st.text(max_size=400))
def test_no_text_breaks_the_parser(text):
    assert parse_verdict(text) in ("yes", "no", None)


def lines_run(text):
    """How many lines of Python the parser runs: its work, whatever else the machine does."""
    count = 0

    def local(frame, event, arg):
        nonlocal count
        count += event == "line"
        return local

    before = sys.gettrace()
    sys.settrace(lambda frame, event, arg: local if "medfocus_bench" in frame.f_code.co_filename else None)
    try:
        parse_verdict(text)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "unit",
    [
        *("answer is ", "no ", "yes, ", "final answer: (", "(((", "\n", "answer : : :", "boxed", "<a>", "<"),
        *(
            "answer to the question ",
            "answer to is : ",
            "<think>",
            "</think>",
            "\nq: ",
            "x\nq: ",
            "yes or no ",
        ),
        *(
            "wait, ",
            "so ",
            "not i say ",
            "if ",
            "a'",
            "a-",
            "1,",
            "\\text ",
            "\uff39\uff45\uff53 ",
            "\u0323\u0301",
        ),
    ],
)
def test_the_work_grows_with_the_length_of_the_text_and_no_faster(unit):
    short, long = (unit * (length // len(unit)) for length in (2_000, 8_000))
    assert lines_run(long) < 4.5 * lines_run(short) + 500


def test_of_a_megabyte_the_last_hundred_thousand_characters_are_read():
    text = "Yes. " + "answer to is : (" * 65_536
    assert parse_verdict(text) is None
    assert parse_verdict(text + " Yes.") == "yes"
    assert lines_run("x " * 500_000) < 1.1 * lines_run("x " * (MAX_CHARACTERS // 2)) + 500


@given(st.text(max_size=60), st.sampled_from(["Yes", "No"]))
def test_a_final_answer_outweighs_whatever_came_before(before, verdict):
    assert parse_verdict(f"{before}\nFinal answer: {verdict}.") == verdict.lower()


def test_log_odds_add_the_probabilities_of_all_spellings():
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4]))
    assert log_odds(logits, yes=[0, 2], no=[1]) == pytest.approx(np.log(0.4 / 0.2), abs=1e-6)
    assert log_odds(logits + 50, yes=[0, 2], no=[1]) == pytest.approx(np.log(2), abs=1e-5)


@pytest.mark.parametrize(("yes", "no"), [([], [1]), ([0], []), ([3], [1])])
def test_log_odds_need_finite_logits_of_both(yes, no):
    with pytest.raises(ValueError, match="finite logits"):
        log_odds([0.0, 1.0, 2.0, np.nan], yes, no)
