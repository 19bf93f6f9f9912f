"""LeRobot's policies act as LeRobot makes them act, row by row; what does not fit, or would run code, is refused."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.io import load_policy, save_policy
from robotrl.policies.lerobot_config import LeRobotConfig
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, RobotRLError
from tests.policies.lerobot_made import ACTION, CAMERAS, SIZE, SMALL, STATE, make_checkpoint, statistics

pytest.importorskip("lerobot")

HIGH = (0.025,) * 3 + (0.15,) * 3 + (1.0,)
LOW = (*(-x for x in HIGH[:6]), 0.0)
SPEC = EnvSpec(
    "tabletop/pick",
    {
        "state": ArraySpec((STATE,)),
        "privileged": ArraySpec((5,)),
        "instruction": ArraySpec((20,), "int64"),
        **{f"image/{camera}": ArraySpec((3, SIZE, SIZE), "uint8") for camera in reversed(CAMERAS)},
    },
    ActionSpec("continuous", (ACTION,), LOW, HIGH),
    control_hz=20.0,
)
KINDS = ("act", "diffusion", "smolvla")
PICK_UP_THE_RED_BLOCK = "pick up the red block"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint of each type: its folder, LeRobot's policy and processors."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        found[kind] = (folder, *make_checkpoint(kind, folder))
    return found


def policy_of(folder, spec=SPEC, **settings):
    return build_policy(PolicyConfig(kind="lerobot", lerobot=LeRobotConfig(path=str(folder), **settings)), spec).eval()


def tokens(text):
    from robotrl.policies.language import tabletop_words

    words = tabletop_words()
    row = torch.zeros(20, dtype=torch.int64)
    for place, word in enumerate(text.split()):
        row[place] = words.index(word) + 2
    return row


def observation(rows, seed):
    gen = torch.Generator().manual_seed(seed)
    images = {
        f"image/{c}": torch.randint(0, 256, (rows, 3, SIZE, SIZE), dtype=torch.uint8, generator=gen) for c in CAMERAS
    }
    told = tokens(PICK_UP_THE_RED_BLOCK).expand(rows, -1)
    return {"state": torch.randn(rows, STATE, generator=gen), "instruction": told, **images}


def as_lerobots(obs, row):
    images = {f"observation.images.{c}": obs[f"image/{c}"][row].float() / 255 for c in CAMERAS}
    return {"observation.state": obs["state"][row], "task": PICK_UP_THE_RED_BLOCK, **images}


@pytest.fixture
def no_noise(monkeypatch):
    """Noise is zero, so that a sample does not depend on how many are drawn together."""
    real = torch.randn

    def zeros(*size, generator=None, dtype=None, device=None, layout=None, requires_grad=False, **rest):
        size = rest.get("size", size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
        return torch.zeros(tuple(size), dtype=dtype, device=device)

    monkeypatch.setattr(torch, "randn", zeros)
    monkeypatch.setattr(torch, "normal", lambda mean, std, size, **rest: torch.zeros(size))
    return real


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_acts_as_lerobots_policy_does_alone_and_starts_anew_by_itself(made, kind, no_noise):
    folder, theirs, pre, post = made[kind]
    policy = policy_of(folder)
    rows, steps, ends = 2, 11, {(0, 5), (1, 3), (1, 7)}
    seen = [observation(rows, seed) for seed in range(steps)]
    expected = torch.zeros(steps, rows, ACTION)
    for row in range(rows):
        theirs.reset()
        for step in range(steps):
            expected[step, row] = post(theirs.select_action(pre(as_lerobots(seen[step], row))))[0]
            if (row, step) in ends:
                theirs.reset()
    state = policy.initial_state(rows)
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    decisions = []
    for step in range(steps):
        action, extras, state = policy.act(seen[step], state, explore=False)
        torch.testing.assert_close(action, expected[step].clamp(low, high), rtol=1e-4, atol=1e-5)
        decisions.append(extras["decision"].tolist())
        state = policy.reset_state(state, torch.tensor([(row, step) in ends for row in range(rows)]))
    assert decisions[:6] == [[True, True], [False, False], [False, False], [False, False], [True, True], [False, False]]
    assert decisions[6] == [True, False]  # row 0 started anew, only it infers


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_policy_acts_alike_without_the_checkpoint(made, kind, tmp_path, no_noise):
    folder = tmp_path / "checkpoint"
    shutil.copytree(made[kind][0], folder)
    policy = policy_of(folder, vlm=str(folder / "vlm") if kind == "smolvla" else None)
    save_policy(policy, tmp_path / "saved")
    shutil.rmtree(folder)
    again = load_policy(tmp_path / "saved")
    obs = observation(3, 0)
    action = policy.act(obs, policy.initial_state(3), explore=False)[0]
    torch.testing.assert_close(again.act(obs, again.initial_state(3), explore=False)[0], action)
    described = json.loads((tmp_path / "saved" / "policy.json").read_text())["config"]["lerobot"]
    assert described["path"] is None and described["vlm"] is None
    assert str(folder) not in json.dumps(described)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_lerobots_before_their_mean(made, kind):
    folder, theirs, pre, _ = made[kind]
    policy = policy_of(folder)
    many = 3
    steps = max(len(policy.windows["action"]), 1)
    obs = observation(many, 0)
    gen = torch.Generator().manual_seed(5)
    action = torch.rand(steps, many, ACTION, generator=gen) * 0.02
    valid = torch.ones(steps, many, dtype=torch.bool)
    valid[-2:, 0] = False
    past = policy.n_obs_steps
    rows = {
        f"obs/{g}": v.unsqueeze(0).expand(past if g in policy.groups.values() else 1, *v.shape) for g, v in obs.items()
    }
    rows |= {"action": action, "valid/action": valid}
    torch.manual_seed(0)
    errors = policy.errors({g: v[-1] for g, v in ((k[4:], x) for k, x in rows.items() if k.startswith("obs/"))}, rows)
    assert set(errors) == set(policy.losses)
    assert all(error.value.shape == error.valid.shape and error.value.shape[1] == many for error in errors.values())
    batch = pre(
        {
            **{k: v for k, v in as_lerobots(obs, slice(None)).items() if k != "task"},
            "task": [PICK_UP_THE_RED_BLOCK] * many,
        }
    )
    if kind == "diffusion":
        batch |= {
            k: v.unsqueeze(1).expand(-1, 2, *v.shape[1:]) for k, v in batch.items() if k.startswith("observation.")
        }
    batch["action"] = policy.norms["action"](action.transpose(0, 1))
    batch["action_is_pad"] = ~valid.transpose(0, 1)
    theirs.train()
    torch.manual_seed(0)
    loss = theirs.forward(batch)[0]
    theirs.eval()
    parts = [error.value.flatten()[error.valid.flatten()].mean() for error in errors.values()]
    if kind == "smolvla":  # a mean of samples there, a mean of all their steps here
        per_sample = theirs.forward({**batch}, reduction="none")[0].shape
        assert per_sample == (many,)
    else:
        torch.testing.assert_close(sum(parts), loss)
    sum(parts).backward()


def test_statistics_come_from_the_data_or_have_to_be_like_those_of_the_checkpoint(made):
    spec = SPEC
    new = build_policy(PolicyConfig(kind="lerobot", lerobot=LeRobotConfig(type="act", settings=SMALL["act"])), spec)
    assert not bool(new.fitted)
    state = torch.randn(1, 500, STATE) * 3 + 1
    action = (torch.rand(1, 500, ACTION) - 0.5) * 0.02
    rows = {"obs/state": state, "action": action}
    new.fit(rows)
    assert bool(new.fitted)
    torch.testing.assert_close(new.norms["observation_state"](state[0]).std(0), torch.ones(STATE), rtol=0.01, atol=0.01)
    torch.testing.assert_close(new.norms["action"].inverse(new.norms["action"](action[0])), action[0])
    kept = policy_of(made["act"][0])
    with pytest.raises(RobotRLError, match=r"not normalised like the policy: 'observation.state' number \d+ goes from"):
        kept.fit({"obs/state": state * 100, "action": action})
    taken = policy_of(made["act"][0], statistics="data")
    taken.fit({"obs/state": state * 100, "action": action})
    assert float(taken.norms["observation_state"].std.mean()) > 100


def without(spec, group):
    return replace(spec, obs={k: v for k, v in spec.obs.items() if k != group})


def with_obs(**groups):
    return replace(SPEC, obs=SPEC.obs | {name.replace("_", "/"): array for name, array in groups.items()})


def with_action(*action):
    return replace(SPEC, action=ActionSpec(*action))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (without(SPEC, "image/wrist"), "the camera 'observation.images.wrist', the env has observation.images.front"),
        (
            with_obs(image_front=ArraySpec((3, 48, 48), "uint8")),
            r"'observation.images.front' as pictures of \[3, 32, 32\], the env's 'image/front' is \[3, 48, 48\]",
        ),
        (with_obs(state=ArraySpec((9,))), r"'observation.state' as numbers of \[32\], the env's 'state' is \[9\]"),
        (with_action("continuous", (6,), LOW[:6], HIGH[:6]), r"its action is \[7\], the env's \[6\]"),
        (with_action("discrete"), "the env's discrete"),
        (with_action("continuous", (7,), (-0.001,) * 7, (0.001,) * 7), "another scaling or order of actions"),
    ],
)
def test_an_env_of_other_cameras_sizes_or_actions_is_refused_with_what_differs(made, spec, said):
    with pytest.raises(RobotRLError, match=said):
        policy_of(made["act"][0], spec)


def test_a_policy_that_reads_words_needs_them(made):
    with pytest.raises(RobotRLError, match="reads a task in words, the env has no group 'instruction'"):
        policy_of(made["smolvla"][0], without(SPEC, "instruction"))


def test_a_camera_of_another_name_is_said_by_the_user(made, no_noise):
    other = replace(SPEC, obs={("image/top" if k == "image/front" else k): v for k, v in SPEC.obs.items()})
    policy = policy_of(made["act"][0], other, rename={"image/top": "observation.images.front"})
    assert policy.groups == {
        "observation.state": "state",
        "observation.images.front": "image/top",
        "observation.images.wrist": "image/wrist",
    }
    obs = observation(1, 0)
    same = policy_of(made["act"][0])
    expected = same.act(obs, same.initial_state(1), explore=False)[0]
    renamed = {("image/top" if k == "image/front" else k): v for k, v in obs.items()}
    torch.testing.assert_close(policy.act(renamed, policy.initial_state(1), explore=False)[0], expected)


def edit(folder, name, change):
    data = json.loads((folder / name).read_text())
    change(data)
    (folder / name).write_text(json.dumps(data))


PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"


def step(file, number, **changes):
    return lambda folder: edit(folder, file, lambda d: d["steps"][number].update(changes))


def setting(**changes):
    return lambda folder: edit(folder, "config.json", lambda d: d.update(changes))


def statistics_as_weights(folder):
    shutil.copy(next(folder.glob("*_step_3_*")), folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: edit(f, PRE, lambda d: d["steps"].append({"class": "os.system"})), "the Python class 'os.system'"),
        (step(POST, 0, **{"class": "a.B"}), "never runs code that a checkpoint names"),
        (step(PRE, 0, registry_name="reward_classifier_processor"), "which RobotRL does not know"),
        (setting(type="groot"), "of type 'groot', which RobotRL does not load"),
        (setting(dim_model=32), "does not fit its config.json: .* has the shape"),
        (setting(dim_modle=32), "no setting 'dim_modle'. Did you mean 'dim_model'"),
        (setting(use_peft=True), "an adapter"),
        (setting(temporal_ensemble_coeff=0.01, n_action_steps=1), "averages overlapping chunks"),
        (step(PRE, 3, state_file="../x.safetensors"), "must lie beside it"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "a pickle, which can run code"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "is damaged"),
        (lambda f: (f / PRE).unlink(), "migrate_policy_normalization"),
        (lambda f: (f / PRE).write_text("{"), "cannot be read"),
        (statistics_as_weights, "does not fit its config.json"),
    ],
)
def test_a_checkpoint_that_is_damaged_or_names_code_is_refused_in_one_message(made, tmp_path, damage, said):
    folder = tmp_path / "act"
    shutil.copytree(made["act"][0], folder)
    damage(folder)
    with pytest.raises(RobotRLError, match=said):
        policy_of(folder)


def test_statistics_that_do_not_belong_together_or_are_not_finite_are_refused(made, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "act"
    shutil.copytree(made["act"][0], folder)
    file = next(folder.glob("policy_postprocessor_step_0_*"))
    values = load_file(file)
    save_file({**values, "action.mean": values["action.mean"] + 1}, file)
    with pytest.raises(RobotRLError, match="normalises 'action' by one mean and takes it back by another"):
        policy_of(folder)
    save_file({**values, "action.std": values["action.std"] * float("nan")}, file)
    with pytest.raises(RobotRLError, match="std of 'action' is not finite"):
        policy_of(folder)


def test_a_language_model_is_a_local_folder_without_code(made, tmp_path):
    folder = tmp_path / "smolvla"
    shutil.copytree(made["smolvla"][0], folder)
    edit(folder, "config.json", lambda d: d.update(vlm_model_name="HuggingFaceTB/SmolVLM2-500M-Video-Instruct"))
    with pytest.raises(RobotRLError, match=r"which is no local folder\. Download its configuration"):
        policy_of(folder)
    (folder / "vlm" / "modeling_evil.py").write_text("raise SystemExit")
    with pytest.raises(RobotRLError, match="names or holds code"):
        policy_of(folder, vlm=str(folder / "vlm"))
    (folder / "vlm" / "modeling_evil.py").unlink()
    edit(folder / "vlm", "config.json", lambda d: d.update(auto_map={"AutoConfig": "evil.Config"}))
    with pytest.raises(RobotRLError, match="names or holds code"):
        policy_of(folder, vlm=str(folder / "vlm"))


def test_no_folder_and_no_such_type_are_said():
    with pytest.raises(RobotRLError, match="There is no folder lerobot/act"):
        policy_of("lerobot/act")
    with pytest.raises(RobotRLError, match=r"policy.lerobot.type is 'actt'\. Did you mean 'act'"):
        LeRobotConfig(type="actt")
    assert set(statistics()) >= {"action", "observation.state"}
