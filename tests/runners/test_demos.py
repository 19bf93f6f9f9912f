"""Demonstrations that a run cannot learn from are refused before it starts, in one sentence, and nothing is left."""

import numpy as np
import pytest

from robotrl.configs.compose import compose
from robotrl.data.schema import Schema
from robotrl.data.writer import DatasetWriter
from robotrl.envs.config import EnvConfig, build_env
from robotrl.runners.run import Run
from robotrl.types import RobotRLError
from tests import envs_for_tests as envs
from tests.demos import write_demos

WORDS = ("env=InvertedPendulum-v5", "num_envs=1", "env.time_limit=20", "num_threads=1")


def env(**more):
    return build_env(EnvConfig(id="InvertedPendulum-v5", time_limit=20, **more), num_envs=1, seed=0, num_threads=1)


def refused(tmp_path, *words):
    run_dir = tmp_path / "run"
    with pytest.raises(RobotRLError) as error:
        Run.create(compose(["learner=ailboost", "preset=none", *WORDS, f"run_dir={run_dir}", *words]))
    assert not run_dir.exists()
    return str(error.value)


def test_none_are_named(tmp_path):
    said = refused(tmp_path)
    assert "there are none: name a data set with replay.demos=<folder>" in said
    assert "robotrl collect" in said


def test_the_folder_is_not_there_or_holds_no_data_set(tmp_path):
    assert str(tmp_path / "nowhere") in refused(tmp_path, f"replay.demos={tmp_path / 'nowhere'}")


def test_nothing_was_recorded(tmp_path):
    spec = env().env_spec
    with DatasetWriter(tmp_path / "demos", Schema.from_env(spec), env=spec):
        pass
    assert "demos is not a LeRobotDataset" in refused(tmp_path, f"replay.demos={tmp_path / 'demos'}")


def test_fewer_episodes_than_asked_for(tmp_path):
    write_demos(tmp_path / "demos", env(), episodes=2)
    said = refused(tmp_path, f"replay.demos={tmp_path / 'demos'}", "replay.demo_episodes=3")
    assert "3 episodes are asked for" in said
    assert "replay.demo_episodes is 0" in refused(tmp_path, "replay.demo_episodes=0")


def test_a_value_is_not_a_number(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = write_demos(tmp_path / "demos", env())  # RobotRL refuses to write one; other programs may not
    (file,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(file)
    column = table.column_names.index("observation.state")
    values = np.array(table["observation.state"].to_pylist(), np.float32)
    values[-1, 2] = np.nan
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 4)
    pq.write_table(table.set_column(column, table.schema.field(column), lists), file)
    said = refused(tmp_path, f"replay.demos={root}")
    assert "holds nan in 'obs/state', episode" in said
    assert "Nothing can be learned from that" in said


def test_they_are_of_another_env_frame_rate_or_scale(tmp_path):
    other = build_env(EnvConfig(id="Pusher-v5", time_limit=20), num_envs=1, seed=0, num_threads=1)
    write_demos(tmp_path / "other", other)
    said = refused(tmp_path, f"replay.demos={tmp_path / 'other'}")
    assert "does not fit InvertedPendulum-v5: its group 'state' is float" in said
    assert "its action is" in said

    write_demos(tmp_path / "slow", env(action_repeat=2))
    said = refused(tmp_path, f"replay.demos={tmp_path / 'slow'}")
    assert "it was recorded at 12.5 steps a second, the env makes 25" in said
    assert "env.action_repeat" in said

    import dataclasses

    wide = env()
    action = dataclasses.replace(wide.env_spec.action, low=(-1.0,), high=(1.0,))
    wide.env_spec = dataclasses.replace(wide.env_spec, action=action)
    write_demos(tmp_path / "scaled", wide)
    said = refused(tmp_path, f"replay.demos={tmp_path / 'scaled'}")
    assert "its actions lie within [-1, 1], the env's within [-3, 3]: another scaling" in said


class Privileged(envs.Target):
    """With a second group, for critics."""

    groups = envs.Target.groups | {"privileged": envs.Box(-1.0, 1.0, (3,), np.float64)}

    def observe(self, now, step):
        return {"state": now, "privileged": np.zeros((len(now), 3))}


def test_critics_inside_another_learner_are_given_their_groups_of_demonstrations_too(tmp_path, tiny):
    demos = write_demos(tmp_path / "demos", Privileged())
    words = ["learner=dac", "preset=none", f"env={__name__}:Privileged", f"replay.demos={demos}", "num_threads=1"]
    words += ["learner.sac.batch_size=16", "learner.sac.demo_ratio=0.5", "learner.sac.random_env_steps=32"]
    words += ["total_env_steps=128", "num_envs=2", "policy.hidden=[8]", "eval_every=0", "video=false"]
    run = Run.create(compose([*words, "learner.sac.critic_groups=[state,privileged]", f"run_dir={tmp_path / 'run'}"]))
    assert tiny.complete(run) == 0
    message = r"learner.sac.critic_groups asks for the observation groups \['torque'\]"
    with pytest.raises(RobotRLError, match=message):
        Run.create(compose([*words, "learner.sac.critic_groups=[torque]", f"run_dir={tmp_path / 'other'}"]))
