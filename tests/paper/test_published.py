"""The paper's values, which the leaderboard's page and `reproduce` both read here."""

from __future__ import annotations

from medfocus_bench.paper.published import KEPT, MAIN_DIRECT, NAMES, OVERLAP, SECONDS, SOURCES


def test_every_method_has_a_name_scores_of_every_source_and_seconds():
    assert list(NAMES) == list(MAIN_DIRECT) == list(SECONDS)
    for scores in MAIN_DIRECT.values():
        assert list(scores) == list(SOURCES)
        assert {len(values) for values in scores.values()} == {len(OVERLAP)}
    totals = {mode: sum(n for key, n in KEPT.items() if key[0] == mode) for mode in ("direct", "reasoning")}
    assert totals == {"direct": 1880, "reasoning": 2060}


def test_the_values_are_those_of_the_papers_table(golden):
    text = (golden / "published_scores.md").read_text()
    for method, name in NAMES.items():
        cells = ["/".join(f"{value:.2f}" for value in MAIN_DIRECT[method][source]) for source in SOURCES]
        assert f"| {name} | {' | '.join(cells)} |" in text
        said = [name, name.removeprefix("Attention ")]
        assert any(f"{words} {SECONDS[method]:.2f}" in text for words in said)
