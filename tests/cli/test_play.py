"""`robotrl play` and `robotrl list tasks`: what a user sees of the tabletop suite first."""

import av
import pytest

from robotrl.envs.tabletop.tasks import TASKS


def test_every_task_is_listed_with_a_sentence(program):
    lines = program("list tasks")[1].splitlines()
    assert [line.split()[0] for line in lines] == [f"tabletop/{name}" for name in TASKS]
    assert all(len(line.split()) > 3 and line.endswith(".") for line in lines)


def test_an_expert_episode_becomes_a_film_in_real_time(program, tmp_path):
    status, out, _ = program("play task=tabletop/press out=films/press.mp4 width=96 height=64 seed=2 camera=front")
    assert status == 0
    assert 'button": done after' in out
    with av.open(str(tmp_path / "films" / "press.mp4")) as film:
        stream = film.streams.video[0]
        count = sum(1 for _ in film.decode(stream))
        assert (stream.width, stream.height, float(stream.average_rate)) == (96, 64, 20.0)
    assert 20 < count < 120


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("task=stak", "Unknown task 'stak'. Did you mean 'stack'"),
        ("", "Which task?"),
        ("task=pick height=15", "even sizes"),
        ("task=pick camera=fron out=x.mp4", "Did you mean 'front'"),
    ],
)
def test_a_mistake_is_explained(program, words, says):
    status, _, err = program(f"play {words}")
    assert status == 2
    assert says in err


def test_a_window_needs_a_display(program, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "no display" in program("play task=press viewer=true")[2]
