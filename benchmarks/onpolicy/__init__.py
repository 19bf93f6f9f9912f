"""Claims of on-policy learning."""

CLAIMS = {
    "comblock": "HNPG, TRPO and RLPD on the combination lock",
    "comblock_images": "HNPG, TRPO and RLPD on a lock seen through pictures",
}
"""Claim to title, in the order of the tables; `python -m benchmarks.onpolicy.<claim>` measures each."""
