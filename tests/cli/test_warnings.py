"""A warning is one line for the user, and nobody else's are changed."""

import sys
import warnings
from types import SimpleNamespace

from robotrl import cli


def test_a_warning_is_one_line_without_source(monkeypatch, capsys):
    def run(_argv):
        warnings.warn("The checkpoint at 5 env steps could not be saved.", stacklevel=1)
        return 0

    monkeypatch.setattr(cli.importlib, "import_module", lambda _: SimpleNamespace(run=run))
    before = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda m, c, f, n, *_: sys.stdout.write(warnings.formatwarning(m, c, f, n))
        assert cli.main(["train"]) == 0
        assert capsys.readouterr().out == "robotrl: The checkpoint at 5 env steps could not be saved.\n"
        assert cli.main(["train", "--debug"]) == 0
        assert "UserWarning" in capsys.readouterr().out
    assert warnings.formatwarning is before
