import json

import numpy as np
import pytest

from robotrl.runners.eval_result import EvalResult


@pytest.fixture
def write_run(tmp_path):
    """Writes the files of a run as training would, with a saturating curve."""

    def write(name, seed=0, steps=200_000, level=3000.0, evals=8, env="HalfCheetah-v5", broken_tail=False):
        root = tmp_path / name
        (root / "policy" / "final").mkdir(parents=True)
        (root / "policy" / "final" / "policy.json").write_text("{}")
        (root / "config.yaml").write_text(
            f"env: {{id: {env}}}\nlearner_name: ppo\nseed: {seed}\ntotal_env_steps: {steps}\n"
        )
        (root / "meta.json").write_text(json.dumps({"finished_env_steps": steps}))
        rng = np.random.default_rng(seed)
        curve = lambda s: level * (1 - np.exp(-3 * s / steps)) - 200  # noqa: E731
        lines = []
        for i, s in enumerate(np.linspace(0, steps, 101)[1:]):
            row = {"iteration": i + 1, "env_steps": int(s), "train/return": curve(s) * 0.9 + rng.normal(0, 150)}
            row["loss/value"] = None if i == 3 else 0.1
            lines.append(json.dumps(row))
        (root / "metrics.jsonl").write_text("\n".join(lines) + "\n" + ('{"iterat' if broken_tail else ""))
        for s in np.linspace(0, steps, evals + 1)[1:]:
            returns = (curve(s) + rng.normal(0, 120) + rng.normal(0, 250, size=10)).tolist()
            EvalResult(env, 0, returns, [1000] * 10).save(root / "eval" / f"{int(s)}.json")
        return root

    return write
