"""The imports of a command that explains, made once for all processes that are forked."""
