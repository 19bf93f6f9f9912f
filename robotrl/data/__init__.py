"""Robot data on disk: LeRobotDataset v3.0, written so that a kill loses nothing finished, and read with every check."""
