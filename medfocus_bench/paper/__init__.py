"""The numbers of the paper beside those of this package: its tables and ablations, on any benchmark."""
