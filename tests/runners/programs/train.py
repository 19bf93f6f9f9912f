"""What `robotrl train` does, for tests that kill it: new with the words in WORDS, or resumed from RESUME."""

from robotrl.configs.compose import compose
from robotrl.runners.loop import train
from robotrl.runners.run import Run

job = Run.resume(globals()["RESUME"]) if "RESUME" in globals() else Run.create(compose(globals()["WORDS"]))
with job:
    train(**job.parts())
    code = job.finish()
raise SystemExit(code)
