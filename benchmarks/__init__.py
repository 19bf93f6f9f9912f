"""Published numbers: for each claim one command, a machine-readable target and one committed result file."""
