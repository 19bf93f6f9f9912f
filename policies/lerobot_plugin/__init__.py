"""RobotRL policies as an out-of-tree policy type of LeRobot, `robotrl`; importing this registers it.

In a program: `import robotrl.policies.lerobot_plugin`; on LeRobot's command lines:
`--policy.discover_packages_path=robotrl.policies.lerobot_plugin`. The names of the modules and classes are those by
which LeRobot finds what belongs to a configuration.
"""

from robotrl.policies.lerobot_plugin.configuration_robotrl import RobotRLConfig
from robotrl.policies.lerobot_plugin.modeling_robotrl import RobotRLPolicy
from robotrl.policies.lerobot_plugin.processor_robotrl import make_robotrl_pre_post_processors

__all__ = ["RobotRLConfig", "RobotRLPolicy", "make_robotrl_pre_post_processors"]
