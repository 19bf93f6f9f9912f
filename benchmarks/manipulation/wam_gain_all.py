"""What predicting the future is worth to a policy, with all demonstrations (extended claim).

python -m benchmarks.manipulation.wam_gain_all --jobs 2
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.manipulation import wam_gain

TARGET, NOTE, appendix = wam_gain.target(100), wam_gain.NOTE, wam_gain.appendix


def main(argv: Sequence[str] | None = None) -> int:
    return wam_gain.measure("manipulation/wam_gain_all", __doc__ or "", 100, argv)


if __name__ == "__main__":
    raise SystemExit(main())
