"""The tabletop suite's models: arm, table, objects and fixtures in MJCF, and the words its instructions use."""
