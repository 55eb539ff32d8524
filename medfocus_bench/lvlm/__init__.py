"""Large vision-language models behind one protocol."""
