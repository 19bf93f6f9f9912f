"""Claims of learning through models of the world."""

CLAIMS = {
    "update_speed": "Seconds of a Dreamer update against sheeprl's at the same sizes",
    "dreamer_state": "Dreamer within an hour of one core: reacher-easy and ball_in_cup-catch, 150,000 frames",
    "dreamer_pixels": "Dreamer from pictures: cartpole-swingup",
    "open_loop": "How far the world model sees: its error over 15 steps beside that of copying the last frame",
    "pets_mbpo": "PETS on cartpole-swingup and MBPO on InvertedPendulum, beside SAC at as many steps",
}
"""Claim to title, in the order of the tables; `python -m benchmarks.world_models.<claim>` measures each."""
