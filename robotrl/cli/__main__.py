"""`python -m robotrl.cli` is the program `robotrl`, for this Python and no other that may stand first in the PATH."""

from robotrl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
