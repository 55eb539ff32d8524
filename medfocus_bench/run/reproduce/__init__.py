"""The paper's tables and figures: run or read what each of them needs, and lay both values side by side."""
