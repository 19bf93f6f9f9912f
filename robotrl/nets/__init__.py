"""Network parts: MLP, CNN, GRU, observation normaliser, flat parameter storage."""
