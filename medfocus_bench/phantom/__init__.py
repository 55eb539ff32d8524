"""The phantom track: synthetic chest radiographs whose findings, and the models trained on them, are ours."""
