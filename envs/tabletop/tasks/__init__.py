"""The tasks, by the name that follows `tabletop/`."""

from robotrl.envs.tabletop.tasks.base import TabletopTask
from robotrl.envs.tabletop.tasks.blocks import Gather, Pick, Place, Push, Reach, Sort, Stack, Tower

TASKS: dict[str, type[TabletopTask]] = {
    "reach": Reach,
    "push": Push,
    "pick": Pick,
    "place": Place,
    "stack": Stack,
    "gather": Gather,
    "sort": Sort,
    "tower": Tower,
}
