"""What the README shows runs: its files, commands and Python, in the order of the text, with a tenth of the steps."""

import re
import shlex
import sys

import pytest

from robotrl.cli import main
from robotrl.cli.sweep import plan
from robotrl.configs.compose import compose
from tests.house.tree import ROOT

ENVS = ("InvertedPendulum-v5", "Reacher-v5")
STEPS = re.compile(r"(?<=total_env_steps=)([\d_]+)")
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


def blocks() -> list[tuple[str, str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return BLOCK.findall(STEPS.sub(lambda steps: str(int(steps.group()) // 10), text))


def test_every_command_of_the_readme_succeeds_and_every_python_block_runs(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    namespace: dict[str, object] = {}
    commands = 0
    for language, text in blocks():
        if language == "python":
            named = re.match(r"# (\w+\.py)\n", text)
            if named:
                (tmp_path / named.group(1)).write_text(text, encoding="utf-8")
            else:
                exec(compile(text, "README.md", "exec"), namespace)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "--multirun" in words:  # processes of their own, which the tests of sweeps start; here they are composed
                _, jobs = plan([word for word in words[2:] if word != "--multirun"])
                assert [compose(list(job.words)).env.id for job in jobs] == [e for e in ENVS for _ in range(3)]
            elif words[:1] == ["robotrl"]:
                assert main([*words[1:], "--debug"]) == 0, f"{line}\n{capfd.readouterr()}"
                commands += 1
    assert commands >= 9
    for name in ("my_robot", "my_learner"):
        sys.modules.pop(name, None)


def test_the_readme_names_the_two_commands_that_set_up_everything():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.parametrize("number", range(len(blocks())))
def test_a_block_of_the_readme_fits_on_a_screen(number):
    assert max(map(len, blocks()[number][1].splitlines())) <= 120
