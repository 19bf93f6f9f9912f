"""The program `robotrl` with the words in WORDS, for tests that kill it."""

from robotrl.cli import main

raise SystemExit(main(globals()["WORDS"]))
