"""The benchmark as a dataset on the Hugging Face Hub: written, checked, sent, fetched, compared."""
