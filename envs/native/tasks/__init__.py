"""The tasks, by Gymnasium's ids."""

from robotrl.envs.native.task import Task
from robotrl.envs.native.tasks.ant import Ant
from robotrl.envs.native.tasks.arms import Pusher, Reacher
from robotrl.envs.native.tasks.humanoid import Humanoid, HumanoidStandup
from robotrl.envs.native.tasks.pendulums import InvertedDoublePendulum, InvertedPendulum
from robotrl.envs.native.tasks.runners import HalfCheetah, Hopper, Swimmer, Walker2d

TASKS: dict[str, type[Task]] = {
    "Ant-v5": Ant,
    "HalfCheetah-v5": HalfCheetah,
    "Hopper-v5": Hopper,
    "Humanoid-v5": Humanoid,
    "HumanoidStandup-v5": HumanoidStandup,
    "InvertedDoublePendulum-v5": InvertedDoublePendulum,
    "InvertedPendulum-v5": InvertedPendulum,
    "Pusher-v5": Pusher,
    "Reacher-v5": Reacher,
    "Swimmer-v5": Swimmer,
    "Walker2d-v5": Walker2d,
}
