"""Records made-up episodes for ever; notes in a file how many `save` has returned for. Started by `test_kill.py`."""

import runpy
from pathlib import Path

from robotrl.data.schema import Schema
from robotrl.data.writer import DatasetWriter

made = runpy.run_path(str(Path(__file__).parents[1] / "made.py"))
root, said, together = Path(ROOT), Path(SAID), TOGETHER  # noqa: F821 - given by the caller
env = made["spec"]("front")
ready = [made["episode"](i, env) for i in range(8)]
while True:  # now and then the writer is closed, which joins the files, and another one goes on
    with DatasetWriter(root, Schema.from_env(env), env=env) as writer:
        for _ in range(5):
            first = writer.num_episodes
            writer.save_all([ready[(first + i) % 8] for i in range(together)])
            with said.open("a") as file:
                file.write(f"{first + together}\n")
