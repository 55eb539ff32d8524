"""The comparison with the published ranking as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from medfocus_bench.leaderboard.convergence import EVIDENCE, PAPER_IOU, Agreement, Convergence
from medfocus_bench.paper.published import SOURCES
from medfocus_bench.tables import Row, Table, counted

_SCORE_TITLES: Final = {PAPER_IOU: "IoU, paper protocol", "evidence_ap": "evidence AP"}
_NONE: Final = "\N{EN DASH}"


def convergence_tables(table: Convergence) -> list[Table]:
    """Taus of all methods and of those that apply, orders by family, ranks, and the paper's own sources."""
    ranked = [f"{score} all" for score in table.scores]
    return [
        _tau_table(f"Kendall's tau with the published IoU, {table.mode} mode (p)", table.agreements),
        _tau_table("The same without methods that cannot apply here", table.applying),
        _family_table(table),
        _method_table(table, ranked),
        _own_table(table),
    ]


def _tau_text(one: Agreement) -> str:
    return _NONE if one.tau is None or one.p_value is None else f"{one.tau:+.2f} (p {one.p_value:.2f})"


def _tau_table(title: str, agreements: Sequence[Agreement]) -> Table:
    columns = list(dict.fromkeys(one.published for one in agreements))
    rows: dict[tuple[str, str], list[str]] = {}
    for one in agreements:
        rows.setdefault((one.ours, one.evidence), []).append(_tau_text(one))
    methods = counted(agreements[0].methods, "method") if agreements else "no method"
    return Table(
        f"{title}, {methods}",
        ("ours", *(SOURCES.get(name, name) for name in columns)),
        tuple(
            Row((f"{_SCORE_TITLES.get(score, score)}, {EVIDENCE[evidence]}", *cells))
            for (score, evidence), cells in rows.items()
        ),
    )


def _family_table(table: Convergence) -> Table:
    rows = tuple(
        Row(
            (
                one.family,
                str(len(one.methods)),
                f"{one.published_rank:.1f}",
                f"{one.our_rank:.1f}",
                f"{one.within_same} of {one.within}",
                f"{one.across_same} of {one.across}",
            )
        )
        for one in table.families
    )
    header = ("family", "methods", "mean rank, paper", "ours", "pairs within", "pairs with others")
    return Table("By family: pairs in the same order, by evidence AP", header, rows)


def _method_table(table: Convergence, keys: Sequence[str]) -> Table:
    used = [key for key in keys if all(key in one.ours for one in table.methods)]
    rows = tuple(
        Row(
            (
                one.title,
                f"{one.published_rank} ({one.published:.1f} %)",
                *(f"{one.ranks[key]} ({one.ours[key]:.3f})" for key in used),
            ),
            quiet=not one.applies,
        )
        for one in sorted(table.methods, key=lambda one: one.published_rank)
    )
    titles = [_SCORE_TITLES.get(key.split(" ")[0], key) for key in used]
    return Table("Ranks", ("method", "published IoU", *titles), rows)


def _own_table(table: Convergence) -> Table:
    rows = tuple(
        Row((f"{SOURCES[one.evidence]} with {SOURCES[one.published]}", _tau_text(one)))
        for one in table.published_agreements
    )
    return Table(
        "The paper's own sources with each other", ("sources", "tau (p)"), rows, tuple(table.reasons)
    )
