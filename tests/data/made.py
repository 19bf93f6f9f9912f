"""Made-up episodes whose every value is known, and data sets of them."""

import numpy as np

from robotrl.data.schema import Schema
from robotrl.data.writer import DatasetWriter, Episode
from robotrl.types import ActionSpec, ArraySpec, EnvSpec

SIDE = 32


def spec(*cameras, control_hz=20.0, side=SIDE):
    groups = {"state": ArraySpec((3,)), "privileged": ArraySpec((2,))}
    groups |= {f"image/{camera}": ArraySpec((3, side, side), "uint8") for camera in cameras}
    action = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 2.0))
    return EnvSpec("made/up", groups, action, control_hz=control_hz, time_limit=50, success="by lot")


def pictures(rng, length, side=SIDE):
    """Smooth moving colours, which a video keeps well: `[length, 3, side, side]`."""
    y, x = np.mgrid[:side, :side] / side
    phase = rng.uniform(0, 6, 3)[:, None, None]
    steps = [127 + 100 * np.sin(1.5 * x + y + phase + 0.2 * t) for t in range(length)]
    return np.stack(steps).astype(np.uint8)


def episode(number, env, length=None, *, final=True, ends="terminated", task=None):
    rng = np.random.default_rng(number)
    length = length or 5 + number % 4
    obs = {}
    for group, array in env.obs.items():
        if group.startswith("image/"):
            obs[f"obs/{group}"] = pictures(rng, length + 1, array.shape[1])
        else:
            obs[f"obs/{group}"] = rng.normal(size=(length + 1, *array.shape)).astype(np.float32)
    last = np.arange(length) == length - 1
    steps = {key: value[:-1] for key, value in obs.items()}
    steps["action"] = rng.uniform([-1, 0], [1, 2], (length, 2)).astype(np.float32)
    steps["reward"] = rng.normal(size=length).astype(np.float32)
    steps["terminated"] = last if ends == "terminated" else np.zeros(length, bool)
    steps["truncated"] = last & ~steps["terminated"]
    return Episode(
        steps,
        task or ("reach", "push the red block")[number % 2],
        final={key: value[-1] for key, value in obs.items()} if final else {},
        success=number % 2 == 0,
        seed=7,
        number=number,
    )


def dataset(root, count=4, *cameras, **words):
    """A finished data set, of which every episode was saved by itself if `apart`; the episodes it holds."""
    apart = words.pop("apart", False)
    env = words.pop("env", None) or spec(*cameras)
    episodes = [episode(i, env, **words) for i in range(count)]
    with DatasetWriter(root, Schema.from_env(env), env=env) as writer:
        for part in [[one] for one in episodes] if apart else [episodes]:
            writer.save_all(part)
    return episodes
