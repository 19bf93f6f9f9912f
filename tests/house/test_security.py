"""Nothing that arrives from disk, a hub or a socket can run code: the syntax of the whole package is searched."""

import ast

import pytest

from tests.house.scanner import findings
from tests.house.tree import ROOT, modules, parse


@pytest.mark.parametrize("module", modules(), ids=str)
def test_no_module_can_run_code_from_data(module):
    assert findings(parse(module)) == []


def test_no_preset_names_code_to_run():
    presets = list((ROOT / "configs").rglob("*.yaml"))
    assert [str(p) for p in presets if "_target_" in p.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle",
        "import dill as d",
        "from marshal import loads",
        "def f():\n    import cloudpickle.compat",
        "eval('1')",
        "exec(text)",
        "__import__(name)",
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path, weights_only=True)",
        "from torch import load as read\nread(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=flag)",
        "import numpy\nnumpy.load(path, None, True)",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "from yaml import load, FullLoader\nload(text, FullLoader)",
        "import yaml\nyaml.unsafe_load(text)",
        "import hydra.utils\nhydra.utils.instantiate(config)",
        "from hydra.utils import instantiate\ninstantiate(config)",
        "config = {'_target_': 'os.system'}",
        "import subprocess\nsubprocess.run(line, shell=True)",
        "import importlib.util\nimportlib.util.spec_from_file_location('m', path)",
    ],
)
def test_a_planted_violation_is_found(planted):
    assert len(findings(ast.parse(planted))) == 1


@pytest.mark.parametrize(
    "harmless",
    [
        "model.eval()",
        "import yaml\nyaml.safe_load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "from yaml import CSafeLoader, load\nload(text, CSafeLoader)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import numpy as np\nnp.load(path)",
        "import re\nre.compile('x')",
        "import torch\ntorch.compile(f)",
        "'''Never uses _target_.'''",
        "state.load(path)",
    ],
)
def test_harmless_code_is_left_alone(harmless):
    assert findings(ast.parse(harmless)) == []
