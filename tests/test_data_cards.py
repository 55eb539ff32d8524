"""The data cards are true: a card for each source, its headings, its counts."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from medfocus_bench.data.benchmark import read_rows
from medfocus_bench.data.resolve import installed_benchmarks, load_benchmark
from medfocus_bench.data.sources import installed_sources
from medfocus_bench.data.sources.registry import published_sources
from medfocus_bench.paper.published import KEPT

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "data_cards"
CARDS = [*installed_sources(), "phantom"]
PAGES = sorted(FOLDER.glob("*.md"))

HEADINGS = [
    "Origin",
    "Licence",
    "Access",
    "Layout",
    "Counts",
    "Known faults",
    "Redistribution",
    "Not verified",
]


def sections(name: str) -> dict[str, str]:
    text = (FOLDER / f"{name}.md").read_text()
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(text: str) -> list[list[str]]:
    """The cells of the body of a table, without the marks of code."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def test_every_source_and_the_phantoms_have_a_card_and_the_whole_a_datasheet():
    assert {path.stem for path in PAGES} == {*CARDS, "DATASHEET"}


def test_a_card_has_all_headings_with_something_below_each():
    for name in CARDS:
        found = sections(name)
        assert list(found) == HEADINGS
        assert all(len(text.split()) >= 1 for text in found.values())
        assert (FOLDER / f"{name}.md").read_text().startswith(f"# {name}: ")


def test_the_counts_are_those_that_the_source_expects():
    for name in installed_sources():
        counts = {split: number(count) for split, count in table(sections(name)["Counts"])}
        assert counts == dict(installed_sources()[name].expected)


def test_the_layout_names_the_tables_that_are_looked_for():
    for name in installed_sources():
        layout = sections(name)["Layout"]
        for place in installed_sources()[name].tables:
            assert Path(place).name in layout or Path(place).suffix == ".gz", place


def test_the_counts_of_the_phantoms_are_those_of_the_track():
    benchmark = load_benchmark("phantom")
    samples = Counter(sample.split for sample in benchmark.samples)
    rows = Counter(split for _, split, _ in read_rows(installed_benchmarks()["phantom"]))
    text = sections("phantom")["Counts"]
    stated = {split: (number(kept), number(count)) for split, kept, count in table(text)}
    assert stated == {split: (samples[split], rows[split]) for split in rows}
    patients = {split: set() for split in rows}
    for sample in benchmark.samples:
        patients[sample.split].add(sample.patient_id)
    dev, test = patients["dev"], patients["direct"] | patients["reasoning"]
    assert f"{len(dev | test)} patients: {len(test)} of the test splits, {len(dev)} of `dev`" in text


def test_the_datasheet_states_the_published_counts():
    text = (FOLDER / "DATASHEET.md").read_text()
    for mode, total in (("direct", "1,880"), ("reasoning", "2,060")):
        assert f"{total} in {mode}" in " ".join(text.split())
        assert sum(count for key, count in KEPT.items() if key[0] == mode) == number(total)


def test_a_licensed_source_may_not_be_passed_on():
    for name in published_sources():
        assert sections(name)["Redistribution"].strip().startswith("Nothing of it: no picture, no box")


def test_the_list_of_boxes_of_the_nih_is_as_its_card_says(real_data):
    root_table = real_data / "cxr" / "BBox_List_2017.csv.gz"
    import csv
    import gzip

    with gzip.open(root_table, "rt", newline="") as file:
        rows = list(csv.reader(file))[1:]
    text = " ".join(sections("nih")["Counts"].split())
    assert f"of {len({row[0] for row in rows})} pictures" in text
    for finding, count in Counter(row[1] for row in rows).items():
        assert f"{finding} {count}" in text
