"""The check of a submission, as a pull request is held to it."""
