"""The tasks, by the name that follows `tabletop/`."""

from robotrl.envs.tabletop.tasks.base import TabletopTask
from robotrl.envs.tabletop.tasks.blocks import Gather, Pick, Place, Push, Reach, Sort, Stack, Tower
from robotrl.envs.tabletop.tasks.fixtures import CloseDoor, CloseDrawer, Insert, OpenDoor, OpenDrawer, Press, Store

TASKS: dict[str, type[TabletopTask]] = {
    "reach": Reach,
    "push": Push,
    "pick": Pick,
    "place": Place,
    "stack": Stack,
    "gather": Gather,
    "open_drawer": OpenDrawer,
    "close_drawer": CloseDrawer,
    "open_door": OpenDoor,
    "close_door": CloseDoor,
    "press": Press,
    "insert": Insert,
    "sort": Sort,
    "tower": Tower,
    "store": Store,
}
