"""The tasks, by Gymnasium's ids."""

from robotrl.envs.native.task import Task
from robotrl.envs.native.tasks.runners import HalfCheetah, Hopper, Walker2d

TASKS: dict[str, type[Task]] = {
    "HalfCheetah-v5": HalfCheetah,
    "Hopper-v5": Hopper,
    "Walker2d-v5": Walker2d,
}
