"""`python -m medfocus_bench`."""

from medfocus_bench.cli.main import main

main()
