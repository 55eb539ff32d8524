"""A program that knows `datasets` and nothing of this repository: `pip install datasets pillow` is enough.

python -m tests.data.hub.mini_hub FOLDER       # serves an exported folder, prints its address
HF_ENDPOINT=ADDRESS HF_HOME=NEW_FOLDER python tests/data/hub/alone.py
"""

import sys

from datasets import load_dataset

rows = load_dataset("medfocus/cxr-causal")
assert list(rows) == ["direct", "reasoning", "dev"], rows
direct = rows["direct"]
assert direct[0]["image"].size == (224, 224), direct[0]
assert direct[0]["image"].convert("L").getextrema()[1] > 100
assert len(direct) == 1056
assert len(direct[0]["boxes"][0]) == 4
assert direct.features["group"].int2str(max(direct["group"])) == "grounded"

streamed = next(iter(load_dataset("medfocus/cxr-causal", split="dev", streaming=True)))
assert streamed["image"].size == (224, 224)

pinned = load_dataset("medfocus/cxr-causal", split="dev", revision="v3.0.0")
assert len(pinned) == 528

if "imagenome" in sys.argv[1:]:  # where the repository has pointers
    pointers = load_dataset("medfocus/cxr-causal", "imagenome", split="direct")
    assert pointers[0]["image"] is None
    assert pointers[0]["boxes"] is None

assert not [name for name in sys.modules if name.startswith("medfocus")]
print("loaded", len(direct))
