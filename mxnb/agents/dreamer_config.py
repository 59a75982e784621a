"""What Dreamer can be told, and what of it does not fit together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DreamerConfig:
    """What Dreamer can be told."""

    env_id: str = "craftax-classic-symbolic-v1"
    """The environment; see `mxnb.make`."""
    total_timesteps: int = 1_000_000
    """Ticks times num_envs, prefill and resets included, rounded down to whole updates."""
    num_envs: int = 16
    """Environments in step."""
    shards: int = 1
    """Parts of the environments, each with its own queue of worlds, for `fit(mesh=...)`; results depend on it."""
    batch_size: int = 16
    """Sequences replayed in one gradient step; the last one is the newest of an environment."""
    num_steps: int = 64
    """Rows of each."""
    train_ratio: int = 64
    """Replayed rows for each environment step: one gradient step every batch_size * num_steps / train_ratio steps."""
    starts: int = 256
    """States that imagination starts from in a gradient step: starts / batch_size neighbours of each sequence."""
    horizon: int = 15
    """Imagined actions from each of them."""
    replay_size: int = 1_000_000
    """Rows kept, over all environments."""
    prefill: int = 1024
    """Random steps taken before anything is learned."""
    deter: int = 1024
    """Width of the deterministic state."""
    hidden_dim: int = 256
    """Width of the layers around it."""
    stoch: int = 32
    """Groups of latents."""
    classes: int = 16
    """Classes in each group."""
    blocks: int = 8
    """Blocks of the recurrence; they divide deter."""
    units: int = 256
    """Width of encoder, decoder and heads."""
    num_layers: int = 3
    """Layers of encoder, decoder, actor and critic; the heads of reward and continue have one."""
    num_bins: int = 255
    """Bins of rewards and values; odd."""
    depth: int = 16
    """Channels of a picture's first convolution."""
    number_scale: float = 10.0
    """What numbers beside bits are multiplied by: Craftax gives counts in tenths, too small to be learned."""
    number_coef: float = 10.0
    """Weight of those numbers' squared errors beside the bits' nats; at 1, Craftax's health is hardly learned."""
    lr: float = 2e-4
    """LaProp's step size."""
    warmup_steps: int = 500
    """Gradient steps over which lr rises from 0."""
    clip: float = 0.3
    """Each tensor's gradient is scaled down to this share of the tensor's norm."""
    discount: float = 1 - 1 / 333
    """Discount of future reward per step."""
    lambda_: float = 0.95
    """Of imagined and replayed returns: 0 trusts the critic, 1 the rewards."""
    ent_coef: float = 3e-4
    """Weight of the policy's entropy."""
    free_nats: float = 1.0
    """A row's divergence below this earns no gradient."""
    dyn_coef: float = 1.0
    """Weight of teaching the prior what the posterior says."""
    rep_coef: float = 0.1
    """Weight of teaching the posterior to be predictable."""
    foresee_coef: float = 1.0
    """Weight of teaching reward, end and mask also on latents drawn from the prior, which dreams are made of."""
    replay_value_coef: float = 0.3
    """Weight of the critic's loss on replayed rows."""
    slow_decay: float = 0.98
    """Share of itself that the slow critic keeps in a gradient step."""
    slow_coef: float = 1.0
    """Weight of staying near the slow critic."""
    remat: bool = False
    """Whether the way back computes each step of the world model again instead of keeping it: less memory, slower."""
    save_replay: bool = True
    """Whether checkpoints hold the replay; without it a resumed run lets its policy fill a new one first, uncounted."""
    use_mask: bool = False
    """Whether the policy sees the environment's action mask while playing, and learns to foresee it in imagination."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each value came from; written by `mxnb.parameters`, part of no comparison."""

    @property
    def cadence(self) -> tuple[int, int]:
        """(ticks of all environments, gradient steps) of one update, in lowest terms."""
        replayed, asked = self.batch_size * self.num_steps, self.num_envs * self.train_ratio
        shared = math.gcd(replayed, asked)
        return replayed // shared, asked // shared

    @property
    def capacity(self) -> int:
        """Rows of each environment's ring."""
        return self.replay_size // self.num_envs

    @property
    def prefill_ticks(self) -> int:
        """Random ticks before the first update: enough for `prefill` steps and for one sequence."""
        return max(-(-self.prefill // self.num_envs), self.num_steps)

    @property
    def num_updates(self) -> int:
        """Whole updates in what total_timesteps leaves after the prefill."""
        left = self.total_timesteps - self.prefill_ticks * self.num_envs
        return max(0, left) // (self.cadence[0] * self.num_envs)

    @property
    def harmless(self) -> tuple[str, ...]:
        """Fields that a resumed run may change."""
        return ("total_timesteps",)

    def resolve(self) -> DreamerConfig:
        """The same; ValueError lists what does not fit."""
        problems = _problems(self)
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _problems(config: DreamerConfig) -> list[str]:
    """What is out of range or does not fit together, in words that name the mend."""
    c, least = config, {"num_steps": 2, "batch_size": 2, "classes": 2, "num_bins": 3}
    positive = (
        "num_envs",
        "shards",
        "train_ratio",
        "horizon",
        "deter",
        "hidden_dim",
        "stoch",
        "blocks",
        "units",
        "num_layers",
    )
    least |= dict.fromkeys((*positive, "depth"), 1)
    problems = [f"{n} is {getattr(c, n)}; use at least {low}" for n, low in least.items() if getattr(c, n) < low]
    if problems:
        return problems
    if c.num_envs % c.shards:
        nearest = math.gcd(c.num_envs, c.shards)
        problems.append(f"shards = {c.shards} does not divide num_envs = {c.num_envs}; use shards = {nearest}")
    if c.deter % c.blocks:
        problems.append(f"blocks = {c.blocks} does not divide deter = {c.deter}; use {math.gcd(c.deter, c.blocks)}")
    if c.num_bins % 2 == 0:
        problems.append(f"num_bins is {c.num_bins}; it must be odd, so that one bin is 0: use {c.num_bins + 1}")
    rows = c.batch_size * c.num_steps
    if c.starts % c.batch_size or not 2 * c.batch_size <= c.starts <= rows:
        nearest = c.batch_size * min(max(2, round(c.starts / c.batch_size)), c.num_steps)
        problems.append(
            f"starts is {c.starts}; it must be a multiple of batch_size = {c.batch_size} from {2 * c.batch_size} to "
            f"batch_size * num_steps = {rows}: use {nearest}"
        )
    if c.capacity < max(c.prefill_ticks, c.cadence[0]) and c.capacity >= c.num_steps:
        need = c.num_envs * max(c.prefill_ticks, c.cadence[0])
        problems.append(f"replay_size = {c.replay_size} does not hold the prefill and one update; use at least {need}")
    if c.capacity < c.num_steps:
        problems.append(
            f"replay_size = {c.replay_size} holds {c.capacity} rows of each of {c.num_envs} environments, and "
            f"a sequence is num_steps = {c.num_steps} long; use replay_size of at least {c.num_envs * c.num_steps}"
        )
    if not c.num_updates:
        least_total = (c.prefill_ticks + c.cadence[0]) * c.num_envs
        problems.append(
            f"total_timesteps = {c.total_timesteps} is less than the prefill and one update; use at least {least_total}"
        )
    unit = ("discount", "lambda_", "slow_decay")
    problems += [f"{n} is {getattr(c, n)}; use 0 to 1" for n in unit if not 0 <= getattr(c, n) <= 1]
    if c.lr <= 0:
        problems.append(f"lr is {c.lr}; use more than 0 (1e-3 for small networks, 4e-5 for the largest)")
    if c.number_scale <= 0:
        problems.append(f"number_scale is {c.number_scale}; use more than 0 (10 for Craftax's tenths)")
    if c.clip <= 0:
        problems.append(f"clip is {c.clip}; use more than 0 (0.3 is usual)")
    if c.discount == 0:
        problems.append("discount is 0, so nothing beyond a step counts; use more than 0 (0.997 is usual)")
    weights = ("ent_coef", "free_nats", "dyn_coef", "rep_coef", "foresee_coef", "replay_value_coef", "slow_coef")
    counts = ("number_coef", "warmup_steps", "prefill")
    return problems + [f"{n} is {getattr(c, n)}; use 0 or more" for n in (*weights, *counts) if getattr(c, n) < 0]
