"""One algorithm, one file, in the order of its paper."""
