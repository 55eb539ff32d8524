"""Every method at the real size of an LVLM: memory, seconds, passes, and whether its numbers are sound.

The weights are random, since none can be had here, and everything that decides cost is real: widths, heads,
vocabularies and tokenizers, the grid of image tokens and the length of the sequence. Depth may be cut, for
cost is linear in it: two depths give what a block takes (`extrapolation`). Not part of `make test`: a run
fetches two tokenizers (45 MB), writes some gigabytes and takes hours. In a checkout, with the extras `dev`:

    python -m tests.realsize measure --model qwen2.5-vl-3b --blocks 2 --vision-blocks 2 --work build/realsize
    python -m tests.realsize measure --model qwen2.5-vl-3b --blocks 4 --vision-blocks 2 --work build/realsize
    python -m tests.realsize table --work build/realsize

Each method explains "Yes." to one 3056 x 2544 picture in native framing, in bfloat16, one picture at a time,
on one thread, in a process that may take 20 GB of address space. Its line is written to `measured.jsonl` as
soon as it ends, and a second run goes on after the last one. `--methods` chooses some;
methods of many passes are cut to a few (`SETTINGS`), and the table gives the cost of one pass.
"""
