"""Vision-language-action policies: the flow, the bins, chunks as state, words, units, backbones."""

import json
import warnings
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from robotrl.collect import Collector
from robotrl.functional.flow import integrate
from robotrl.functional.twohot import mean_bin
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.io import load_policy, save_policy
from robotrl.policies.scaling import Scaling
from robotrl.policies.vla_config import VLAConfig
from robotrl.seeding import seed_everything
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, RobotRLError
from tests import envs_for_tests as envs

TINY = {"ahead": [], "size": "micro", "chunk_size": 5, "execute_steps": 3, "flow_steps": 10}
SPEC = EnvSpec(
    "made/up",
    {
        "image/front": ArraySpec((3, 16, 16), "uint8"),
        "state": ArraySpec((4,)),
        "privileged": ArraySpec((2,)),
        "instruction": ArraySpec((6,), "int64", "tokens"),
    },
    ActionSpec("continuous", (2,), (-2.0, 0.0), (2.0, 1.0)),
    time_limit=20,
)


def vla(spec=SPEC, seed=0, **settings):
    seed_everything(seed)
    policy = build_policy(PolicyConfig(kind="vla", vla=VLAConfig(**{**TINY, **settings})), spec)
    policy.fit(data(64, policy))
    return policy


def observation(count, seed=0):
    torch.manual_seed(seed)
    return {
        "image/front": torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8),
        "state": torch.randn(count, 4),
        "instruction": torch.randint(2, 9, (count, 6)),
    }


def data(count, policy, seed=1):
    h = policy.chunk_size
    rows = {f"obs/{k}": v.unsqueeze(0) for k, v in observation(count, seed).items()}
    action = torch.stack([4 * torch.rand(h, count) - 2, torch.rand(h, count)], -1)
    return {**rows, "action": action, "valid/action": torch.ones(h, count, dtype=torch.bool)}


def fitted_to(policy, rows, steps=250, rate=3e-3):
    adam = torch.optim.Adam(policy.parameters(), rate)
    obs = {k.removeprefix("obs/"): v[0] for k, v in rows.items() if k.startswith("obs/")}
    for _ in range(steps):
        (error,) = policy.errors(obs, rows).values()
        adam.zero_grad()
        (error.value * error.valid).mean().backward()
        adam.step()
    return obs


def misses_of_what_was_learned_by_heart(head, seed):
    """Of three chunks: the largest miss of the surest chunk, and the mean miss of a drawn one."""
    policy = vla(seed=seed, head=head, flow_samples=8)
    rows = data(3, policy)
    obs = fitted_to(policy, rows, steps=500)
    chunk, _ = policy.infer(obs, None, explore=False)
    drawn, _ = policy.infer(obs, None, explore=True)  # any noise leads there: it is the only thing it knows
    wanted = rows["action"].transpose(0, 1)
    return (chunk - wanted).abs().max().item(), (drawn - wanted).abs().mean().item()


@pytest.mark.parametrize("head", ["flow", "discrete"])
def test_a_few_chunks_learned_by_heart_come_back(head):
    # at the rate of this test some seeds have not settled by then
    surest, drawn = zip(*(misses_of_what_was_learned_by_heart(head, seed) for seed in (0, 1, 2)), strict=True)
    assert sorted(surest)[1] < 0.25
    assert sorted(drawn)[1] < 0.2


def test_actions_behind_an_episodes_end_do_not_count():
    policy = vla()
    rows = data(4, policy)
    rows["valid/action"][3:] = False
    error = policy.errors({k.removeprefix("obs/"): v[0] for k, v in rows.items() if k.startswith("obs/")}, rows)["flow"]
    assert error.value.shape == error.valid.shape == (5, 4)
    assert not error.valid[3:].any()


class Norms(TorchDispatchMode):
    """Counts the tokens of each layer norm, also of those that scripts make."""

    def __init__(self):
        super().__init__()
        self.tokens = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten.native_layer_norm.default:
            self.tokens.append(args[0].shape[1])
        return operation(*args, **(kwargs or {}))


def test_the_prefix_is_computed_once_a_chunk():
    policy = vla()
    passes = [1 + 6 + 2 + 2, *[5] * 10]  # body, words, a camera's looks and named things; then the chunk, ten times
    with Norms() as norms:
        policy.infer(observation(2), None, explore=False)
    places, *tokens = norms.tokens  # those of the camera, then two norms for each of two layers, and the last
    assert places == 8 * 8
    assert tokens == [count for count in passes for _ in range(5)]


@pytest.mark.parametrize("words", [6, 4])
def test_all_steps_at_once_are_eulers_method_on_the_velocity(words):
    policy, obs = vla(), observation(3)
    obs["instruction"][0, words:] = 0
    with torch.no_grad():
        seen = policy.prefix(obs)
        assert (seen.valid is None) == (words == 6)  # a mask is made where an instruction is shorter than another
        found = integrate(lambda x, t: policy.velocity(seen, x, t), torch.zeros(3, 5, 2), 10)
        torch.testing.assert_close(policy.sample(seen, None, explore=False), found, atol=1e-5, rtol=1e-4)


def test_the_proprioception_to_come_is_predicted_while_it_learns():
    policy = vla(ahead=[3, 9])
    assert policy.losses == ("flow", "ahead", "named")
    assert policy.windows["obs/state"] == (0, 3, 9) and policy.windows["obs/image/front"] == (0,)
    rows = data(4, policy)
    rows["obs/state"] = torch.cat([rows["obs/state"], 2 * rows["obs/state"], -rows["obs/state"]])
    adam = torch.optim.Adam(policy.parameters(), 3e-3)
    obs = {k.removeprefix("obs/"): v[0] for k, v in rows.items() if k.startswith("obs/")}
    found = []
    for _ in range(120):
        errors = policy.errors(obs, rows)
        errors = [errors[name] for name in ("ahead", "named")]
        assert all(error.value.shape == error.valid.shape == (2, 4) and error.valid.all() for error in errors)
        found.append([error.value.mean().item() for error in errors])
        adam.zero_grad()
        sum(error.value.mean() for error in errors).backward()
        adam.step()
    assert all(last < 0.2 * first for first, last in zip(found[0], found[-1], strict=True))
    assert policy.infer(obs, None, explore=False)[0].shape == (4, 5, 2)
    assert vla().losses == ("flow",)
    with pytest.raises(RobotRLError, match=r"ahead is \[0\]; give at most 64 numbers"):
        VLAConfig(ahead=[0])


def test_training_withholds_proprioception_now_and_then_and_acting_never_does():
    policy, obs = vla(forget_body=0.5), observation(400)
    obs = {name: value[:1].expand(400, *value.shape[1:]) for name, value in obs.items()}
    obs["instruction"] = torch.zeros_like(obs["instruction"])
    body = policy.prefix(obs, forgetful=True).keys[0][:, 0, 0]
    share = (body == body[0]).all(-1).float().mean().item()
    assert 0.4 < share < 0.6
    assert len(body.unique(dim=0)) == 2
    whole = policy.prefix(obs).keys[0][:, 0, 0]
    assert (whole == whole[0]).all()


@pytest.mark.parametrize("head", ["flow", "discrete"])
def test_dropout_is_in_what_is_learned_from_data_alone(head):
    policy = vla(head=head, dropout=0.5, forget_body=0.0)
    plain = vla(head=head, forget_body=0.0)
    plain.load_state_dict(policy.state_dict())
    rows, obs = data(64, policy), observation(4)
    seen = {key.removeprefix("obs/"): value[0] for key, value in rows.items() if key.startswith("obs/")}
    torch.manual_seed(0)
    dropped = policy.errors(seen, rows)[head].value
    torch.manual_seed(0)
    assert not torch.equal(dropped, plain.errors(seen, rows)[head].value)
    assert torch.equal(policy.infer(obs, None, explore=False)[0], plain.infer(obs, None, explore=False)[0])
    if head == "discrete":  # with a gradient, as reinforcement learning asks for it
        assert torch.equal(policy.logits(obs), plain.logits(obs))


def test_cameras_search_for_colours_by_the_same_weights():
    spec = replace(SPEC, obs={**SPEC.obs, "image/wrist": ArraySpec((3, 8, 24), "uint8")})
    policy, obs, watch = vla(spec), observation(2), []
    obs["image/wrist"] = obs["image/front"][..., :8, :8].repeat(1, 1, 1, 3)
    policy.prefix(obs, watch=watch)
    front, wrist = watch
    assert front.shape == (2, 2, 6, 8 * 8) and wrist.shape == (2, 2, 6, 4 * 12)
    search = list(policy.searches.values())
    assert len(search) == 1

    def taught(*dark):
        """How much the search learns while some cameras show one colour only, where there is nothing to find."""
        policy.zero_grad()
        seen = policy.prefix({k: torch.zeros_like(v) if k in dark else v for k, v in obs.items()})
        policy.velocity(seen, torch.zeros(2, 5, 2), torch.ones(2)).sum().backward()
        return search[0].key.weight.grad.abs().max()

    nothing = taught("image/front", "image/wrist")
    assert taught("image/wrist") > 1e3 * nothing and taught("image/front") > 1e3 * nothing  # by either camera
    stacked = replace(spec, obs={**spec.obs, "image/wrist": ArraySpec((9, 8, 8), "uint8")})
    assert sorted(build_policy(policy.config, stacked).searches) == ["3", "9"]


def test_without_exploration_a_row_does_not_depend_on_its_neighbours():
    policy, obs = vla(), observation(4)
    together, _ = policy.infer(obs, None, explore=False)
    alone, _ = policy.infer({k: v[2:3] for k, v in obs.items()}, None, explore=False)
    torch.testing.assert_close(together[2:3], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("explore", [False, True])
def test_only_rows_whose_chunk_is_used_up_infer(explore):
    env = envs.Ragged(num_envs=3, length=7)
    policy = build_policy(PolicyConfig(kind="vla", vla=VLAConfig(**TINY)), env.env_spec)
    inferred, infer = [], policy.infer
    policy.infer = lambda obs, old, *, explore: (
        inferred.append(len(obs["state"])), infer(obs, old, explore=explore),
    )[1]  # fmt: skip
    acting = type("Acting", (), {"act": lambda self, o, s, *, explore: policy.act(o, s, explore=explore)})()
    acting.initial_state, acting.reset_state = policy.initial_state, policy.reset_state
    rollout = Collector(env, seed=2).collect(acting, 20)
    decision = rollout["decision"]
    assert torch.equal(decision, rollout["step"] % 3 == 0)
    assert sum(inferred) == int(decision.sum()) < 0.7 * decision.numel()
    at = (rollout["step"] % 3)[..., None, None].expand(20, 3, 1, 2)
    assert torch.equal(rollout["chunk"].gather(2, at).squeeze(2), rollout["action"])
    assert (rollout["action"] >= torch.tensor([-2.0, 0.0])).all() and (
        rollout["action"] <= torch.tensor([2.0, 1.0])
    ).all()


def play(policy, steps, seen):
    """Chunks that count their inferences: action = 0.01 * number of the inference + 0.001 * place in the chunk."""
    count = [0]

    def infer(obs, previous, *, explore):
        count[0] += 1
        seen.append((count[0], None if previous is None else previous[0, :, 1].clone()))
        values = 0.1 * count[0] + 0.001 * torch.arange(policy.chunk_size, dtype=torch.float32)
        return values[None, :, None].expand(len(obs["state"]), -1, 2), {}

    policy.infer = infer
    state, actions = policy.initial_state(1), []
    for _ in range(steps):
        action, extras, state = policy.act(observation(1), state, explore=False)
        actions.append((round(action[0, 1].item(), 3), bool(extras["decision"][0])))
    return actions


def test_a_delay_is_counted_in_actions_that_the_old_chunk_still_gives():
    policy, seen = vla(chunk_size=6, execute_steps=4, delay=2), []
    actions = play(policy, 11, seen)
    # the first chunk is waited for; from its 4th action on the next is computed, and begins with its own 2nd
    assert [a for a, _ in actions] == pytest.approx(
        [0.1, 0.101, 0.102, 0.103, 0.104, 0.105, 0.202, 0.203, 0.204, 0.205, 0.302]
    )
    assert [i for i, (_, decided) in enumerate(actions) if decided] == [0, 4, 8]
    assert seen[0][1] is None
    # what is left of the old chunk when the second is begun: two actions, the last repeated
    torch.testing.assert_close(seen[1][1], torch.tensor([0.104, 0.105, 0.105, 0.105, 0.105, 0.105]))


def test_an_episodes_end_drops_the_chunk_and_an_inference_that_is_running():
    policy = vla(chunk_size=6, execute_steps=4, delay=2)
    play(policy, 0, [])
    state = policy.initial_state(1)
    for _ in range(5):
        _, _, state = policy.act(observation(1), state, explore=False)
    assert state["wait"].item() == 1
    state = policy.reset_state(state, torch.tensor([True]))
    _, extras, state = policy.act(observation(1), state, explore=False)
    assert extras["decision"][0] and state["wait"].item() == -1 and state["cursor"].item() == 1


@pytest.mark.parametrize("real_time", ["guided", "vjp"])
def test_real_time_chunks_begin_where_the_old_chunk_goes_on(real_time):
    policy = vla(chunk_size=8, execute_steps=4, delay=3, real_time=real_time, flow_samples=8)
    rows = data(3, policy)
    rows["action"] = rows["action"][:1].expand(8, -1, -1)  # steady motions
    obs = fitted_to(policy, rows, steps=150)
    old = torch.stack([torch.full((3, 8), 1.0), torch.full((3, 8), 0.5)], -1)
    free, _ = policy.infer(obs, None, explore=True)
    pulled, _ = policy.infer(obs, old, explore=True)
    # a network that knows three chunks by heart has next to no derivative to pull at
    share = {"guided": 0.4, "vjp": 0.7}[real_time]
    assert (pulled - old)[:, :3].abs().mean() < share * (free - old)[:, :3].abs().mean()


def test_the_bins_distribution_is_exact_and_its_extras_are_those_of_what_was_executed():
    policy = vla(head="discrete", bins=8, temperature=1.5)
    obs = observation(5)
    logits = policy.logits(obs)
    assert logits.shape == (5, 5, 2, 8)
    every = torch.arange(8).expand(5, 5, 2, 8)
    total = sum(policy.log_prob(logits, every[..., i]).exp() for i in range(8))
    torch.testing.assert_close(total, torch.ones(5, 5, 2))
    _, extras, _ = policy.act(obs, policy.initial_state(5), explore=True)
    torch.testing.assert_close(extras["token_log_prob"], policy.log_prob(logits, extras["tokens"]).detach())
    torch.testing.assert_close(policy.action_of(extras["tokens"]).clamp(policy.actions.low, policy.actions.high),
                               extras["chunk"])  # fmt: skip
    assert torch.equal(policy.tokens_of(policy.action_of(every[..., 3])), every[..., 3])
    with pytest.raises(RobotRLError, match="has the head 'flow', which has no distribution over bins"):
        vla().logits(obs)


def test_without_spread_the_one_right_bin_is_learned_and_with_it_its_neighbours_too():
    rows = data(3, vla())
    obs = {k.removeprefix("obs/"): v[0] for k, v in rows.items() if k.startswith("obs/")}
    sharp, soft = (vla(head="discrete", bins=16, spread=spread) for spread in (0.0, 1.0))
    tokens = sharp.tokens_of(rows["action"].transpose(0, 1))
    torch.manual_seed(0)
    error = sharp.errors(obs, rows)["discrete"].value
    torch.manual_seed(0)  # which words are left out
    logits = sharp.logits_from(sharp.prefix(obs, forgetful=True))
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 2), tokens.flatten(), reduction="none")
    torch.testing.assert_close(error, wanted.view(3, 5, 2).mean(-1).T)
    weights = soft.weights_of_scaled(soft.scaling(rows["action"].transpose(0, 1)))
    away = (torch.arange(16) - tokens.unsqueeze(-1)).abs()
    right, near = ((weights * (away <= bins)).sum(-1) for bins in (0, 1))
    assert bool((right > 0.3).all()) and bool((right < 0.9).all()) and bool((near > 0.8).all())


def test_the_mean_of_what_is_learned_for_the_ends_of_the_data_is_not_drawn_inwards():
    policy, ends = vla(head="discrete", bins=64), torch.tensor([-1.0, 1.0])
    assert torch.equal(mean_bin(policy.weights_of_scaled(ends).log()), policy.tokens_of_scaled(ends))


def test_units_come_from_the_data_and_go_with_the_policy(tmp_path):
    policy = vla()
    action = data(64, policy)["action"][0]
    low, high = (action.sort(0).values[round(q * 63)] for q in (0.01, 0.99))
    torch.testing.assert_close(policy.scaling(torch.stack([low, high])), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    torch.testing.assert_close(policy.scaling.inverse(policy.scaling(action.clamp(low, high))), action.clamp(low, high))
    loaded = load_policy(save_policy(policy, tmp_path))
    obs = observation(3)
    assert torch.equal(loaded.infer(obs, None, explore=False)[0], policy.infer(obs, None, explore=False)[0])


def test_data_that_are_scaled_differently_are_refused_when_training_goes_on():
    policy = vla()
    policy.fit(data(64, policy, seed=5))  # alike: fine
    for factor, told in ((100.0, "beyond the range"), (0.01, "within a twentieth of the range")):
        rows = data(64, policy)
        rows["action"] = rows["action"] * factor
        with pytest.raises(RobotRLError, match=f"action is scaled differently from the policy's: number 0 .* {told}"):
            policy.fit(rows)
    std = Scaling(1, "std", 5.0)
    std.fit(torch.randn(1000, 1))
    std.check(torch.randn(1000, 1), "action")


def test_words_that_training_did_not_teach_are_told_once_and_left_out():
    policy, obs = vla(), observation(2)
    names = ["<pad>", "<unknown>", *policy.vocabulary.words]
    new = names.index("drawer")
    obs["instruction"][0, 2] = new
    with pytest.warns(
        UserWarning, match=r"has words that this policy was not taught \(drawer\); it goes by the others"
    ):
        policy.infer(obs, None, explore=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spoiled, _ = policy.infer(obs, None, explore=False)
        obs["instruction"][0, 2] = 1
        torch.testing.assert_close(policy.infer(obs, None, explore=False)[0], spoiled)
        obs["instruction"][0, 2] = 10**6  # no token at all
        torch.testing.assert_close(policy.infer(obs, None, explore=False)[0], spoiled)


def test_instructions_in_words_are_mended_or_refused():
    words = vla().vocabulary  # taught: tokens 2 to 8
    assert words.decode(words.encode("Red GREEN, blue!")) == "red green blue"
    assert words.decode(words.encode("gren yelow")) == "green yellow"
    with pytest.raises(
        RobotRLError, match=r"has words that this policy was not taught: explode, cupboard. It knows: blue"
    ):
        words.encode("explode red cupboard")
    with pytest.raises(RobotRLError, match="has 7 words, but at most 6 fit"):
        words.encode("red " * 7)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"head": "flo"}, r"policy.vla.head is 'flo'; it must be one of: flow, discrete"),
        ({"size": "huge"}, "must be one of: micro, tiny, small, base"),
        ({"execute_steps": 9}, "execute_steps is 9, but a chunk has 5 actions"),
        ({"delay": 3}, "delay is 3, but only 2 actions of a chunk are left after execute_steps=3"),
        ({"bins": 1}, r"bins is 1; it must lie in \[2, 4096\]"),
        ({"spread": -1.0}, r"spread is -1.0; it must lie in \[0, policy.vla.bins=64\]"),
        ({"chunk_size": 0}, r"chunk_size is 0; it must lie in \[1, 1000\]"),
        ({"forget_body": 1.0}, r"forget_body is 1.0; it must lie in \[0, 1\)"),
        ({"dropout": -0.1}, r"dropout is -0.1; it must lie in \[0, 1\)"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be greater than 0"),
    ],
)
def test_wrong_settings_are_told(settings, told):
    with pytest.raises(RobotRLError, match=told):
        VLAConfig(**{**TINY, **settings})


def test_discrete_actions_missing_groups_and_other_envs_are_refused():
    with pytest.raises(RobotRLError, match="chunks of continuous actions, but Pick has discrete ones"):
        build_policy(PolicyConfig(kind="vla", vla=VLAConfig(**TINY)), envs.Pick(num_envs=1).env_spec)
    with pytest.raises(RobotRLError, match=r"asks for \['image/wrist'\], but made/up has .* env.pixels.cameras"):
        build_policy(PolicyConfig(kind="vla", groups=["image/wrist"], vla=VLAConfig(**TINY)), SPEC)
    other = EnvSpec("other", {**SPEC.obs, "image/front": ArraySpec((3, 32, 32), "uint8")}, SPEC.action)
    with pytest.raises(RobotRLError, match=r"reads the group 'image/front' as uint8\[3, 16, 16\], the env gives"):
        vla().check_env(other)


def test_a_non_finite_chunk_is_an_error():
    policy, obs = vla(), observation(2)
    obs["state"][1] = torch.nan
    with pytest.raises(RobotRLError, match="non-finite action"):
        policy.act(obs, policy.initial_state(2), explore=False)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vit")
    settings = transformers.ViTConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                                      image_size=32, patch_size=8)  # fmt: skip
    torch.manual_seed(3)
    transformers.ViTModel(settings, add_pooling_layer=True).save_pretrained(folder)
    return folder


def test_a_backbone_sees_with_its_own_weights_and_ships_with_the_policy(backbone, tmp_path):
    from safetensors.torch import load_file

    policy = vla(backbone=str(backbone))
    weights = load_file(backbone / "model.safetensors")
    mine = dict(policy.sights["image_front"].model.named_parameters())
    name = "embeddings.cls_token"
    assert torch.equal(mine[name], weights[name])
    assert not any(p.requires_grad for p in mine.values())
    obs = observation(2)
    before, _ = policy.infer(obs, None, explore=False)
    saved = save_policy(policy, tmp_path / "p")
    assert str(backbone) not in (saved / "policy.json").read_text()
    assert torch.equal(load_policy(saved).infer(obs, None, explore=False)[0], before)


def test_a_backbone_that_names_code_or_has_no_safetensors_is_refused(backbone, tmp_path):
    def folder(**change):
        made = tmp_path / "-".join(change)
        made.mkdir()
        (made / "config.json").write_text(json.dumps(json.loads((backbone / "config.json").read_text()) | change))
        return str(made)

    with pytest.raises(RobotRLError, match="names code of its own"):
        vla(backbone=folder(auto_map={"AutoModel": "evil.Model"}))
    with pytest.raises(RobotRLError, match="is of the kind 'gpt2', but a backbone must be one of"):
        vla(backbone=folder(model_type="gpt2"))
    with pytest.raises(RobotRLError, match=r"holds no safetensors. Weights in other formats can run code"):
        vla(backbone=folder(image_size=32))
    with pytest.raises(RobotRLError, match=r"there is no model: no config.json"):
        vla(backbone=str(tmp_path / "nowhere"))


def test_a_saved_policy_that_names_a_folder_is_refused(tmp_path):
    from tests.policies.test_io import resave

    save_policy(vla(), tmp_path)
    resave(tmp_path, lambda d: d["config"]["vla"].update(backbone="/somewhere"))
    with pytest.raises(RobotRLError, match="names a folder to read weights from"):
        load_policy(tmp_path)
