"""A vision-language-action policy: pictures, proprioception and words through one transformer to a chunk of actions.

The prefix is computed once a chunk: proprioception, the words, each of which looks at every picture, and a few more
tokens that look. The suffix (a token for each action of the chunk) sees it and itself. Two heads on the same trunk:

- `flow`: flow matching (Lipman et al. 2023; Black et al. 2024, pi0, arXiv:2410.24164). The suffix holds noisy actions;
  what comes out is the velocity `noise - action`, see `robotrl.functional.flow` for the signs. Ten Euler steps make a
  chunk, for which the prefix's keys and values are computed once.
- `discrete`: every number of every action is one of some bins, all decoded at once (as in OpenVLA-OFT, Kim et al. 2025,
  arXiv:2502.19645) and independent of each other given the observation. So the distribution over chunks is known
  exactly: for reinforcement learning and distillation `logits`, `log_prob` and `tokens_of` give it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robotrl.functional.flow import flow_times, guidance, integrate, noised, prefix_weights, step_times, velocity
from robotrl.functional.twohot import gaussian_histogram, mean_bin
from robotrl.nets.flow import action_tokens, euler, euler_scripted
from robotrl.nets.network import is_image
from robotrl.nets.tokens import Glance, Named, Search, Words
from robotrl.nets.transformer import Seen, Transformer, sinusoid
from robotrl.policies.backbone import make_sight, with_backbone
from robotrl.policies.chunks import ChunkPolicy, Error
from robotrl.policies.config import PolicyConfig
from robotrl.policies.foresight import Foresight
from robotrl.policies.language import UNKNOWN, Vocabulary, tabletop_words
from robotrl.policies.scaling import Scaling
from robotrl.policies.vla_config import SIZES
from robotrl.types import Batch, EnvSpec, Extras, Obs, RobotRLError

FORGET = 0.03
"""Share of words that training replaces by the unknown one, so that its vector means something."""
NAMED = 2
"""Tokens a camera for what the sentence names."""
EDGE = 1.25
"""Bins cover [-1.25, 1.25] of the scaled actions, so that a mean can be 1 too; with `scaling=std` three times that."""


class VLA(ChunkPolicy):
    """See the module's docstring. `discrete` adds the extras `tokens [N, h, A]` and `token_log_prob [N, h, A]`."""

    def __init__(self, config: PolicyConfig, spec: EnvSpec) -> None:
        vla = config.vla
        super().__init__(
            with_backbone(config),
            spec,
            chunk_size=vla.chunk_size,
            execute_steps=vla.execute_steps,
            delay=vla.delay,
        )
        self.vla, size = self.config.vla, SIZES[vla.size]
        self.obs_groups = _groups(config, spec)
        self.numbers, self.cameras, told = split_groups(self.obs_groups, spec, vla.instruction)
        dim, self.dim = size.dim, self.actions.dim
        self.ahead = tuple(vla.ahead) if self.numbers else ()
        self.scaling = Scaling(self.dim, vla.scaling, 1.5 if vla.scaling == "quantile" else 6.0)
        width = sum(int(torch.Size(spec.obs[g].shape).numel()) for g in self.numbers)
        self.proprio = Scaling(width, "std", 5.0)
        self.vocabulary = Vocabulary(vla.words or tabletop_words(), spec.obs[told].shape[0]) if told else None
        self.words = Words(len(self.vocabulary), self.vocabulary.length, dim) if self.vocabulary else None
        self.body = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))
        self.sights = nn.ModuleDict(
            {_key(c): make_sight(spec.obs[c].shape, size, self.vla, vla.backbone) for c in self.cameras}
        )
        spoken = {c: spec.obs[c].shape for c in self.cameras if self.vocabulary is not None}
        self.searches = nn.ModuleDict({str(c): Search(c, dim) for c in sorted({shape[0] for shape in spoken.values()})})
        """By the pictures' channels."""
        self.glances = nn.ModuleDict({_key(c): Glance(shape, dim) for c, shape in spoken.items()})
        self.named = nn.ModuleDict({_key(c): Named(dim, NAMED) for c in spoken})
        self.looks = nn.Parameter(torch.randn(len(self.cameras), size.looks, dim) * 0.5)
        """Tokens that look at each camera beside the words."""
        self.kinds = nn.Parameter(torch.randn(3, dim) * 0.2)
        """Added to the tokens of words, body and actions, to tell them apart."""
        self.trunk = Transformer(dim, size.layers, size.heads)
        self.steps = nn.Parameter(torch.randn(self.chunk_size, dim) * 0.2)
        if vla.head == "flow":
            self.action_in, self.time_in = nn.Linear(self.dim, dim), nn.Linear(dim, dim)
            self.mix = nn.Sequential(nn.GELU(), nn.Linear(dim, dim))
        named = 1 + NAMED * len(spoken) if spoken else 0
        self.foresight = Foresight(dim, width, len(self.ahead), named) if self.ahead else None
        self.losses = (vla.head, *(self.foresight.losses if self.foresight else ()))
        self.head = nn.Linear(dim, self.dim * (1 if vla.head == "flow" else vla.bins))
        with torch.no_grad():
            self.head.weight.mul_(0.1)

    # ---- learning from data ----

    @property
    def windows(self) -> Mapping[str, Sequence[int]]:
        """The present observation, the actions of a chunk, and the proprioception to come."""
        return {**super().windows, **{f"obs/{group}": (0, *self.ahead) for group in self.numbers}}

    @property
    def fit_windows(self) -> Mapping[str, Sequence[int]]:
        """Actions, numbers and words of the present step; no pictures."""
        named = [*self.numbers, *([self.vla.instruction] if self.vocabulary else [])]
        return {**{f"obs/{group}": (0,) for group in named}, "action": (0,)}

    def fit(self, rows: Batch) -> None:
        """Units of actions and proprioception, and the words that occur; see `ChunkPolicy.fit`."""
        action = self._flat(rows["action"])[0]
        vector = self.vector({group: rows[f"obs/{group}"][0] for group in self.numbers}, len(action))
        if bool(self.fitted):
            self.scaling.check(action, "action")
        else:
            span = self.actions.high - self.actions.low
            self.scaling.fit(action, torch.where(span.isfinite(), 5e-3 * span, 1e-3))
            self.proprio.fit(vector)
        if self.vocabulary is not None:
            self.vocabulary.fit(rows[f"obs/{self.vla.instruction}"])
        self.fitted.fill_(True)

    def errors(self, obs: Obs, rows: Batch) -> dict[str, Error]:
        """Squared error of the velocity, or cross-entropy of the bins: `[h, B]`, a mean over the action's numbers.

        Beside it what `Foresight` foretells; all of it with the dropout that is for learning from data only.
        """
        with self.trunk.dropping(self.vla.dropout):
            return self._errors(obs, rows)

    def _errors(self, obs: Obs, rows: Batch) -> dict[str, Error]:
        target = self.scaling(self._flat(rows["action"])).transpose(0, 1)
        named: list[Tensor] = []
        seen = self.prefix(obs, forgetful=True, named=named)
        if self.vla.head == "discrete":
            log_prob = self.logits_from(seen).log_softmax(-1)
            error = -(self.weights_of_scaled(target) * log_prob).sum(-1).mean(-1)
        else:
            error = self.flow_error(seen, target)
        return {
            self.vla.head: Error(error.transpose(0, 1), rows["valid/action"]),
            **self.ahead_errors(seen, named, rows),
        }

    def ahead_errors(self, seen: Seen, named: Sequence[Tensor], rows: Batch) -> dict[str, Error]:
        """Squared errors of the proprioception to come, `[K, B]`, in scaled units: see `Foresight`.

        Nothing where none is predicted, or where the rows hold only the present, as LeRobot's training gives them.
        """
        if self.foresight is None or any(len(rows[f"obs/{group}"]) == 1 for group in self.numbers):
            return {}
        count, steps = len(seen.keys[0]), range(1, 1 + len(self.ahead))
        vectors = [self.vector({g: rows[f"obs/{g}"][k] for g in self.numbers}, count) for k in steps]
        return self.foresight(self.trunk, seen, named, self.proprio(torch.stack(vectors)))

    def flow_error(self, seen: Seen, target: Tensor) -> Tensor:
        """`[B, h]` for scaled actions `[B, h, A]`, a mean over the noise levels at which each is looked at."""
        many = self.vla.flow_samples
        data = target.repeat_interleave(many, 0)
        noise, time = torch.randn_like(data), flow_times((len(data),), device=data.device)
        found = self.velocity(seen.repeat(many), noised(data, noise, time), time)
        error = (found.float() - velocity(data, noise)).square().mean(-1)
        return error.view(len(target), many, -1).mean(1)

    # ---- the network ----

    def vector(self, obs: Obs, rows: int) -> Tensor:
        """The number groups side by side `[rows, D]`, in the env's units."""
        parts = [obs[group].reshape(rows, -1).float() for group in self.numbers]
        return torch.cat(parts, -1) if parts else self.kinds.new_zeros(rows, 0)

    def prefix(
        self,
        obs: Obs,
        *,
        forgetful: bool = False,
        watch: list[Tensor] | None = None,
        named: list[Tensor] | None = None,
    ) -> Seen:
        """What the actions will see of observations `[B, ...]`.

        Args:
            obs: the groups the policy reads.
            forgetful: withhold some words and the proprioception of some rows, as training does.
            watch: gets the words' attention to each camera's places `[B, heads, words, places]`.
            named: gets the tokens of the body and of what is named in each camera, `[B, 1 or 2, dim]`.
        """
        rows = len(obs[self.obs_groups[0]])
        known = self.proprio(self.vector(obs, rows))
        if forgetful:  # zero is the mean
            known = known * (torch.rand(rows, 1, device=known.device) >= self.vla.forget_body)
        body = self.body(known).unsqueeze(1)
        parts, tokens, own, there = [body + self.kinds[1]], body[:, :0], body[:, :0], None
        if named is not None:
            named.append(body)
        if self.vocabulary is not None and self.words is not None:
            words = self.known_words(obs[self.vla.instruction])
            if forgetful:
                left_out = (torch.rand(words.shape, device=words.device) < FORGET) & (words != 0)
                words = words.masked_fill(left_out, UNKNOWN)
            tokens, own, there = self.words(words)
            tokens = tokens + self.kinds[0]
        for camera, looks in zip(self.cameras, self.looks, strict=True):
            name, pictures = _key(camera), obs[camera].float() / 127.5 - 1.0
            if own.shape[1]:
                found = self.glances[name](pictures, own, self.searches[str(pictures.shape[1])], watch)
                parts.append(self.named[name](own, there, found))
                tokens = tokens + found
                if named is not None:
                    named.append(parts[-1])
            parts.append(self.sights[name](pictures, looks + body) + looks)
        if there is None or bool(there.all()):  # as always for a single row: attention without a mask takes less time
            valid = None
        else:
            valid = torch.cat([there.new_ones(rows, sum(part.shape[1] for part in parts)), there], 1)
        return self.trunk(torch.cat([*parts, tokens], 1), (), valid)[1]

    def known_words(self, tokens: Tensor) -> Tensor:
        """Instructions `[B, length]` in words that training taught; of others one warning is given."""
        assert self.vocabulary is not None
        if not bool(self.fitted):
            return tokens.clamp(0, len(self.vocabulary) - 1)
        return self.vocabulary.understood(tokens)

    def velocity(self, seen: Seen, x: Tensor, time: Tensor, watch: list[Tensor] | None = None) -> Tensor:
        """The flow `[B, h, A]` at scaled noisy actions `x [B, h, A]` and `time [B]`."""
        return self.head(self.trunk(self.action_tokens(x, self.when(time)), [seen], watch=watch)[0])

    def when(self, time: Tensor) -> Tensor:
        """What action tokens are told of `time [B]`: `[B, 1, dim]`."""
        return self.time_in(sinusoid(time, self.trunk.dim)).unsqueeze(1)

    def action_tokens(self, x: Tensor, when: Tensor) -> Tensor:
        """Tokens `[B, h, dim]` of scaled noisy actions."""
        return action_tokens(x, when, self._ends())

    def _ends(self) -> list[Tensor]:
        """What `robotrl.nets.flow` takes."""
        place = self.steps + self.kinds[2]
        return [*self.action_in.parameters(), *self.mix.parameters(), place, *self.head.parameters()]

    def logits_from(self, seen: Seen) -> Tensor:
        """Logits `[B, h, A, bins]` of every number of the chunk."""
        rows = len(seen.keys[0])
        tokens = (self.steps + self.kinds[2]).expand(rows, -1, -1)
        out = self.head(self.trunk(tokens, [seen])[0])
        return out.float().unflatten(-1, (self.dim, self.vla.bins))

    # ---- the discrete head's distribution ----

    def logits(self, obs: Obs) -> Tensor:
        """Logits `[B, h, A, bins]` for observations `[B, ...]`, with a gradient; each number is drawn on its own."""
        self._need("discrete")
        return self.logits_from(self.prefix(obs))

    def log_prob(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Log-probability `[B, h, A]` of each of `tokens [B, h, A]`, at the policy's temperature."""
        scaled = torch.log_softmax(logits / self.vla.temperature, -1)
        return scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)

    def tokens_of(self, action: Tensor) -> Tensor:
        """The bins `[..., h, A]` of actions `[..., h, *action]` in env units."""
        self._need("discrete")
        return self.tokens_of_scaled(self.scaling(self._flat(action)))

    def tokens_of_scaled(self, scaled: Tensor) -> Tensor:
        """The bins of scaled actions."""
        share = (scaled / self._edge + 1.0) / 2.0
        return (share * self.vla.bins).long().clamp(0, self.vla.bins - 1)

    def weights_of_scaled(self, scaled: Tensor) -> Tensor:
        """What each bin `[..., bins]` is to weigh in the cross-entropy of scaled actions `[...]`."""
        if self.vla.spread == 0:
            return nn.functional.one_hot(self.tokens_of_scaled(scaled), self.vla.bins).float()
        edges = torch.linspace(-self._edge, self._edge, self.vla.bins + 1, device=scaled.device)
        return gaussian_histogram(scaled, edges, self.vla.spread * 2.0 * self._edge / self.vla.bins)

    def action_of(self, tokens: Tensor) -> Tensor:
        """Flat actions `[..., h, A]` in env units: the middles of bins."""
        return self.scaling.inverse(((tokens.float() + 0.5) / self.vla.bins * 2.0 - 1.0) * self._edge)

    # ---- acting ----

    @torch.no_grad()
    def infer(self, obs: Obs, previous: Tensor | None, *, explore: bool) -> tuple[Tensor, Extras]:
        """See `ChunkPolicy.infer`."""
        seen = self.prefix(obs)
        if self.vla.head == "discrete":
            logits = self.logits_from(seen)
            tokens = mean_bin(logits)
            if explore:
                chance = torch.softmax(logits / self.vla.temperature, -1).flatten(0, 2)
                tokens = chance.multinomial(1).view(tokens.shape)
            return self.action_of(tokens), {"tokens": tokens, "token_log_prob": self.log_prob(logits, tokens)}
        return self.scaling.inverse(self.sample(seen, previous, explore=explore)), {}

    def sample(self, seen: Seen, previous: Tensor | None, *, explore: bool) -> Tensor:
        """A scaled chunk `[B, h, A]` by the flow, pulled towards what is left of an old one (env units) if there is."""
        rows = len(seen.keys[0])
        noise = self.steps.new_zeros(rows, self.chunk_size, self.dim)
        if explore:
            noise = torch.randn_like(noise) * self.vla.temperature
        steps = self.vla.flow_steps
        if previous is None or self.vla.real_time == "naive":
            loop, whens = euler if noise.is_cuda else euler_scripted, self.when(step_times(steps, noise.device))
            return loop(noise, whens, self._ends(), *self.trunk.inputs([seen], None, self.chunk_size))
        old = self.scaling(previous)
        weight = prefix_weights(self.chunk_size, self.delay, self.chunk_size - self.execute_steps).to(old.device)

        def pulled(x: Tensor, t: Tensor) -> Tensor:
            pull, at = guidance(t)[:, None, None], t[:, None, None]
            if self.vla.real_time == "guided":
                flow = self.velocity(seen, x, t).float()
                return flow - pull * weight[:, None] * (old - (x - at * flow))
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                flow = self.velocity(seen, x, t).float()
                end = x - at * flow
                (change,) = torch.autograd.grad(end, x, (weight[:, None] * (old - end)).detach())
            return flow.detach() - pull * change

        return integrate(pulled, noise, steps)

    def no_extras(self, count: int) -> Extras:
        """See `ChunkPolicy.no_extras`."""
        if self.vla.head != "discrete":
            return {}
        zeros = self.steps.new_zeros(count, self.chunk_size, self.dim)
        return {"tokens": zeros.long(), "token_log_prob": zeros}

    def _flat(self, action: Tensor) -> Tensor:
        return action.flatten(action.dim() - len(self.actions.shape)).float()

    @property
    def _edge(self) -> float:
        return EDGE if self.vla.scaling == "quantile" else 3.0 * EDGE

    def _need(self, head: str) -> None:
        if self.vla.head != head:
            raise RobotRLError(
                f"This policy has the head '{self.vla.head}', which has no distribution over bins. Train one with "
                f"policy.vla.head={head}."
            )


def split_groups(groups: Sequence[str], spec: EnvSpec, instruction: str) -> tuple[list[str], list[str], str | None]:
    """Groups of numbers, of pictures, and the one of words, if there is one."""
    cameras = [g for g in groups if is_image(spec.obs[g])]
    numbers = [g for g in groups if g not in cameras and g != instruction]
    return numbers, cameras, instruction if instruction in groups else None


def _groups(config: PolicyConfig, spec: EnvSpec) -> tuple[str, ...]:
    if config.groups is None:
        return tuple(group for group in spec.obs if group != "privileged")
    missing = [group for group in config.groups if group not in spec.obs]
    if missing or not config.groups:
        raise RobotRLError(
            f"policy.groups asks for {missing or 'no groups'}, but {spec.id} has {sorted(spec.obs)}. Pictures come "
            "with env.pixels.cameras=[front,wrist] env.pixels.replace_state=false."
        )
    return tuple(config.groups)


def _key(camera: str) -> str:
    """A module's name may hold no dots, and slashes make files hard to read."""
    return camera.replace("/", "_").replace(".", "_")


__all__ = ["VLA", "split_groups"]
