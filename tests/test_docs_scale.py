"""The recipes of docs/scale.md, as far as they can be held to something here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import yaml

from medfocus_bench.cli.main import cli
from medfocus_bench.paper.costs import GRAPHS
from medfocus_bench.paper.run_plan import plan_run
from medfocus_bench.runs.records import read_records

from .cli.running import run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "scale.md").read_text()


def block(kind):
    (only,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return only


def commands(text):
    """The commands of this program in a script, each as its words."""
    lines = text.replace("\\\n", " ").splitlines()
    return [
        shlex.split(line[line.index("medfocus-bench ") :])[1:] for line in lines if "medfocus-bench " in line
    ]


def test_the_script_for_slurm_makes_shards_that_pack_joins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = block("bash")
    (array,) = re.findall(r"^#SBATCH --array=1-(\d+)$", script, re.MULTILINE)
    few = script.replace(
        "BENCHMARK --split direct", "phantom --split dev --lvlm phantom_qwen --limit 24"
    ).replace("grad-cam,rise", "grad-cam")
    (words,) = commands(few.replace("--device cuda --dtype bfloat16", ""))
    for task in (1, 2):
        for name, value in {"ID": task, "MIN": 1, "COUNT": 2}.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        assert run(*words)[0] == 0
    shards = sorted(path.name for path in Path("run").iterdir() if path.is_dir())
    assert shards == ["shard-1-of-2", "shard-2-of-2"]
    made = [len(read_records([Path("run") / shard / "grad-cam"])) for shard in shards]
    assert sum(made) == 24
    assert f"shard-3-of-{array}" in PAGE
    status, pack = commands("\n".join(re.findall(r"^medfocus-bench (?:status|pack) .*", PAGE, re.MULTILINE)))
    assert run(*status)[0] == 0
    code, shown, error = run(*pack, "--partial")
    assert code == 0, error
    assert "24 of" in shown


def test_the_manifest_for_kubernetes_is_of_one_cluster():
    manifest = yaml.safe_load(block("yaml"))
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert manifest["spec"]["rayVersion"] == pinned[1]
    (group,) = manifest["spec"]["workerGroupSpecs"]
    for one in (manifest["spec"]["headGroupSpec"], group):
        pod = one["template"]["spec"]
        (container,) = pod["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert f"--workers {group['maxReplicas']}" in PAGE
    assert f"ray.io/cluster={manifest['metadata']['name']}," in PAGE


def test_every_command_within_another_programs_parses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (inside,) = [line for line in PAGE.replace("\\\n", " ").splitlines() if line.startswith("kubectl exec")]
    (words,) = commands(inside.replace("/shared/", ""))
    group: click.Command = cli
    while isinstance(group, click.Group):
        group = group.commands[words.pop(0)]
    group.make_context("attribute", words)


def test_the_costs_on_the_page_are_those_of_the_plan():
    once, often = plan_run(), plan_run(times=100, devices=64)
    said = (
        f"{once.hours:.0f} hours and {once.bytes / 2**30:.1f} GiB, and to {often.hours:,.0f} hours "
        f"({often.hours / 64:.0f} on each of 64 devices) and {often.bytes / 2**30:.0f} GiB"
    )
    assert said in " ".join(PAGE.split())
    maps = sum(line.bytes for line in once.lines if line.name == "integrated-gradients")
    assert 0.85 < maps / once.bytes < 0.9, "nearly nine tenths"
    for figure in set(GRAPHS.values()):
        assert re.search(rf"\b{figure:g}\b", PAGE)
