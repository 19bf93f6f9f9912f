"""Claims of the spine: the native environments, PPO, the demo, memory and import time."""
