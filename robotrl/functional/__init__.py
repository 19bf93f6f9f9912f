"""Pure functions shared by learners: returns, distributions' maths, statistics. No state, no modules."""
