"""What one update sees: stores that answer a learner's batch specification."""
