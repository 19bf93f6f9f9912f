import json

import pytest

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
"""
}
"""What takes the place of the cell tagged `parameters`; a new notebook adds its own."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert [cell for cell in cells if cell["outputs"] or cell["execution_count"] is not None] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source = TINY[path.stem]
    # the path is where the kernel starts: what it writes lands in the folder of the test
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown), "the learning curve is shown"
    texts = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in shown]
    assert any("B - A, paired" in text for text in texts)
    assert sum("return, IQM" in text for text in texts) == 3
    assert [output.text for output in shown if output.get("name") == "stderr" and "Warning" in output.text] == []
