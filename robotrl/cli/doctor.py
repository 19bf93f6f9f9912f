"""`robotrl doctor`: what this machine can do, and how to mend what it cannot."""

from __future__ import annotations

from pathlib import Path

from robotrl.registry import nearest
from robotrl.types import RobotRLError

HELP = """usage: robotrl doctor [run_dir=PATH]

Checks Python, packages, the simulator, threads, memory, disk, off-screen OpenGL and GPU, and says how to mend what is
missing. Ends with status 1 if training cannot work here, else with 0.

  run_dir=PATH   where runs will be written; its disk is measured (default: runs)
"""

EXAMPLE = "robotrl doctor run_dir=runs"

_STYLES = {"ok": "green", "info": "dim", "warn": "yellow", "fail": "bold red"}


def run(argv: list[str]) -> int:
    """Print a table of findings as they are made."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from robotrl.analysis.machine import examine

    folder = _run_dir(argv)
    console = Console()
    table = Table("", "what", "found", "fix", box=None, pad_edge=False)
    findings = []
    with console.status("looking at this machine ...") as status:
        for finding in examine(folder):
            findings.append(finding)
            status.update(f"looked at {finding.subject} ...")
            texts = (finding.subject, finding.found, finding.fix)
            table.add_row(Text(finding.status, _STYLES[finding.status]), *map(Text, texts))  # Text: brackets stay
    console.print(table)
    failed = [finding.subject for finding in findings if finding.status == "fail"]
    console.print(f"Training cannot work here: {', '.join(failed)}." if failed else "This machine can train.")
    return 1 if failed else 0


def _run_dir(argv: list[str]) -> Path:
    folder = "runs"
    for word in argv:
        key, equals, value = word.partition("=")
        if key != "run_dir" or not equals or not value:
            raise RobotRLError(
                f"doctor does not know '{word}'.{nearest(key, ['run_dir'])} Its only key is run_dir=PATH."
            )
        folder = value
    return Path(folder)
