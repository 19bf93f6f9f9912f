import os
import struct
from io import StringIO

import numpy as np
import pytest

from robotrl.data.dataset import Dataset
from robotrl.envs.config import EnvConfig
from robotrl.envs.wrappers.ending import EndOnRequest
from robotrl.runners import devices
from robotrl.runners.devices import Command, Gamepad, Script, Terminal, Window, open_device
from robotrl.runners.teleop import Person, TeleopConfig, teleoperate
from robotrl.types import ActionSpec, EnvSpec, RobotRLError
from tests.envs_for_tests import Target

SPEC = EnvSpec("x", {}, ActionSpec("continuous", (3,), (-2.0, 0.0, -1.0), (2.0, 1.0, 5.0)))


def person(script, spec=SPEC, **words):
    return Person(spec, Script(script), TeleopConfig(**words))


def play(who, steps):
    state, actions = who.initial_state(1), []
    for _ in range(steps):
        action, _, state = who.act({}, state, explore=False)
        actions.append(action[0].tolist())
    return actions


def test_velocities_spring_back_and_openings_stay_where_they_were_put():
    actions = play(person("2 w\n1\n3 d\n1 a\n2 s q", speed=0.5), 9)
    assert [a[0] for a in actions] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, -1.0]
    np.testing.assert_allclose([a[1] for a in actions], [1, 1, 1, 0.95, 0.9, 0.85, 0.9, 0.9, 0.9], atol=1e-6)
    np.testing.assert_allclose([a[2] for a in actions], [0] * 7 + [-0.3, -0.6], atol=1e-6)


def test_an_action_never_leaves_its_bounds():
    who = person("60 w d e", speed=1.0)
    who.device = type(
        "Sticks", (Script,), {"poll": lambda self: Command(frozenset("wde"), {0: 9.0, 1: -9.0, 4: -9.0})}
    )("")
    actions = np.array(play(who, 60))
    assert (actions >= SPEC.action.low).all() and (actions <= SPEC.action.high).all()


def test_a_script_is_recorded_like_any_policy_kept_and_dropped_as_it_says(tmp_path, monkeypatch):
    script = tmp_path / "moves.txt"
    script.write_text(
        "3 w  # first\n1 enter\n\n2 s\n1 backspace\n4 a\n1 enter\n2 w\n"
    )  # the last one is cut off by Esc
    config = TeleopConfig(
        str(tmp_path / "d"),
        EnvConfig("tests.envs_for_tests:Target"),
        script=str(script),
        episodes=5,
        task="reach by hand",
    )
    assert teleoperate(config) == f"2 episodes recorded; {tmp_path / 'd'} holds 2 of 5."
    dataset = Dataset(tmp_path / "d")
    assert [(e.length, e.tasks, e.success) for e in dataset.episodes] == [
        (4, ("reach by hand",), True),
        (5, ("reach by hand",), True),
    ]
    actions = dataset.read(["action", "truncated"])
    np.testing.assert_allclose(actions["action"][:, 0], [1, 1, 1, 0, 0, 0, 0, 0, 0])
    assert actions["truncated"].tolist() == [False] * 3 + [True] + [False] * 4 + [True]
    assert dataset.own["sessions"][0]["policy"] == f"person, {script}"


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "tabletop/reach"])
def test_any_env_with_box_actions_can_be_moved(tmp_path, env_id):
    script = tmp_path / "moves.txt"
    script.write_text("4 w e\n1 enter\n3 s\n1 enter")
    keys = ["ws", "ad", "eq", "ik", "jl", "uo", "xz"]
    teleoperate(TeleopConfig(str(tmp_path / "d"), EnvConfig(env_id), script=str(script), episodes=2, keys=keys))
    dataset = Dataset(tmp_path / "d")
    assert [e.length for e in dataset.episodes] == [5, 4]
    action = dataset.read(["action"])["action"]
    high = dataset.env_spec.action.high
    np.testing.assert_allclose(action[0, [0, 2]], [0.5 * high[0], 0.5 * high[2]], rtol=1e-5)
    if env_id == "tabletop/reach":
        assert action[0, 6] == 1.0, "the gripper stays open"
        assert dataset.episodes[0].success is False


def test_a_requested_end_shows_the_last_observation_and_starts_the_next_episode():
    asks = iter([None, True, None, None])
    env = EndOnRequest(Target(num_envs=2), lambda: next(asks))
    alone = Target(num_envs=2)
    env.reset(seed=3)
    alone.reset(seed=3)
    action = np.zeros((2, 2), np.float32)
    env.step(action), alone.step(action)
    obs, _, terminated, truncated, infos = env.step(action)
    last, *_ = alone.step(action)
    np.testing.assert_array_equal(infos["final_obs"]["state"], last["state"])
    assert truncated.all() and not terminated.any() and infos["success"].tolist() == [True, True]
    assert not np.array_equal(obs["state"], last["state"])


def test_a_terminals_keys_count_as_held_for_a_moment_and_the_terminal_is_put_back():
    import termios

    ours, theirs = os.openpty()
    now = [0.0]
    with os.fdopen(theirs, "r") as file:
        before = termios.tcgetattr(theirs)
        terminal = Terminal(file, clock=lambda: now[0])
        os.write(ours, b"w\n")
        assert terminal.poll().held == {"w", "enter"}
        now[0] = Terminal.HELD_S / 2
        assert terminal.poll().held == {"w", "enter"}
        now[0] = Terminal.HELD_S * 2
        assert terminal.poll().held == set()
        terminal.close()
        assert termios.tcgetattr(theirs) == before
    os.close(ours)


def test_a_gamepads_sticks_and_buttons_are_read_and_its_small_noise_is_not(tmp_path):
    pipe = tmp_path / "js0"
    os.mkfifo(pipe)
    pad = Gamepad(pipe)
    with pipe.open("wb") as file:
        for event in ((1, 32767, 2, 1), (1, 900, 2, 0), (1, 1, 1, 5), (1, 1, 0x81, 0), (1, -32768, 2, 3)):
            file.write(struct.pack("IhBB", *event))
        file.flush()
        command = pad.poll()
        assert command.axes == {1: 1.0, 0: 0.0, 3: -1.0}
        assert command.held == {"button5", "enter"}
    pad.close()
    with pytest.raises(RobotRLError, match="There is no gamepad at"):
        Gamepad(tmp_path / "js1")


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_window_shows_the_robot_and_takes_keys_until_it_is_closed(monkeypatch):
    import matplotlib
    from matplotlib.backend_bases import CloseEvent, KeyEvent

    matplotlib.use("Agg")
    monkeypatch.setenv("DISPLAY", ":0")
    window = open_device("keyboard")
    assert isinstance(window, Window)
    canvas = window._figure.canvas
    canvas.callbacks.process("key_press_event", KeyEvent("key_press_event", canvas, "w"))
    assert window.poll().held == {"w"}
    canvas.callbacks.process("key_release_event", KeyEvent("key_release_event", canvas, "w"))
    assert window.poll().held == set()
    picture = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
    window.show(lambda: picture, "reach")
    np.testing.assert_array_equal(window._image.get_array(), picture)
    canvas.callbacks.process("close_event", CloseEvent("close_event", canvas))
    assert window.poll().held == {"escape"}
    window.close()


def test_an_episode_begins_with_a_movement_not_with_the_key_that_ended_the_last(monkeypatch):
    polls = iter([Command(frozenset({"enter"})), Command(frozenset({"enter"})), Command(), Command(frozenset({"w"}))])

    class Slow(Script):
        paced = True

        def poll(self):
            return next(polls)

    who = person("")
    who.device = Slow("")
    monkeypatch.setattr("time.sleep", lambda _: None)
    action, _, _ = who.act({}, who.initial_state(1), explore=False)
    assert action[0, 0] == 1.0
    assert who.asked() is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Script("w 20"), "Line 1 of the script is 'w 20'"),
        (lambda: TeleopConfig(speed=0.0), "speed is 0.0; it must be above 0"),
        (lambda: TeleopConfig(keys=["wsd"]), "each is two letters"),
        (lambda: TeleopConfig(axes=["x"]), "each is the number of an axis"),
        (lambda: person("", keys=["ws"]), "has 3 numbers to move, and keys= names 1 pairs"),
        (lambda: person("", EnvSpec("x", {}, ActionSpec("discrete", num_actions=2))), "cannot be moved by hand"),
        (lambda: person("").initial_state(2), "one robot at a time"),
        (lambda: open_device("joystick"), "Unknown device 'joystick'"),
        (lambda: open_device("keyboard", "nowhere.txt"), "The script nowhere.txt cannot be read"),
        (Terminal, "There is no terminal to read keys from"),
        (Window, "There is no display for a window"),
    ],
)
def test_what_cannot_be_is_one_sentence(monkeypatch, make, said):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(devices.sys, "stdin", StringIO())
    with pytest.raises(RobotRLError, match=said):
        make()
