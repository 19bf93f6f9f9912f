"""What every test shares: single-threaded arithmetic, so that two workers do not fight and results repeat."""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before torch and numpy load; inherited by the programs that tests start
