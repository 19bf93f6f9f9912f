import json
import os
from dataclasses import asdict

import pytest
import torch

from robotrl.envs.config import EnvConfig
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.io import save_policy
from robotrl.policies.vla_config import VLAConfig, WAMConfig
from robotrl.seeding import seed_everything
from tests import envs_for_tests as envs
from tests.house.tree import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TINY = {
    "quickstart": """
settings = {
    "env": "HalfCheetah-v5", "total_env_steps": 512, "eval_every": 256, "num_envs": 4, "env.time_limit": 40,
    "eval_episodes": 2, "schedule.rollout_steps": 16, "policy.hidden": [8], "video": False,
}
episodes = 2
folder = Path("runs")
""",
    "vla": """
run, task, steps, seed = "policy", "envs_for_tests:Told", 7, 0
""",
}
"""What takes the place of the cell tagged `parameters`; a new notebook adds its own."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert [cell for cell in cells if cell["outputs"] or cell["execution_count"] is not None] == []


def small_wam(folder):
    """What `vla.ipynb` looks into: a tiny world-action policy, made on the spot."""
    seed_everything(0)
    vla = VLAConfig(size="micro", chunk_size=4, execute_steps=3, flow_steps=2)
    wam = WAMConfig(future_steps=[4], latent_channels=4, autoencoder_steps=2)
    env = envs.Told(num_envs=8)
    policy = build_policy(PolicyConfig(kind="wam", vla=vla, wam=wam), env.env_spec)
    rows = {f"obs/{name}": torch.tensor(value).unsqueeze(0) for name, value in env.reset(seed=0)[0].items()}
    policy.fit({**rows, "action": torch.rand(1, 8, 1)})
    save_policy(policy, folder / "policy", {"env_config": asdict(EnvConfig())})


PREPARE = {"vla": small_wam}
"""What a notebook finds where it starts."""
SAYS = {
    "quickstart": {"B - A, paired": 1, "return, IQM": 3},
    "vla": {"'press red': 7 steps, 3 inferences": 1},
}
"""What its outputs say, and in how many of them."""
PICTURES = {"quickstart": 1, "vla": 3}
"""How many of them are shown at least."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    PREPARE.get(path.stem, lambda folder: None)(tmp_path)
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source = TINY[path.stem]
    # the path is where the kernel starts: what it writes lands in the folder of the test
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = sum("image/png" in output.get("data", {}) for output in shown)
    assert pictures >= PICTURES[path.stem]
    texts = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in shown]
    assert {said: sum(said in text for text in texts) for said in SAYS[path.stem]} == SAYS[path.stem]
    assert [output.text for output in shown if output.get("name") == "stderr" and "Warning" in output.text] == []
