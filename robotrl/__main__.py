"""`python -m robotrl` is the program `robotrl`."""

from robotrl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
