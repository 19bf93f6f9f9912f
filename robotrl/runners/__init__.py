"""When to collect, update, evaluate and save."""
