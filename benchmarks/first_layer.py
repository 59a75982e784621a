"""The first layer on Craftax's tiles: dense multiplication against table lookup, forward and with its gradient.

python benchmarks/first_layer.py classic 1024"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
from measure import report, time_calls

HIDDEN = 256


def main() -> None:
    from mxnb.kernels.tiles import CRAFTAX, CRAFTAX_CLASSIC, lookup_dense, tile_ids

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("game", choices=("classic", "full"))
    parser.add_argument("batch", type=int)
    parser.add_argument("way", choices=("dense", "lookup"))
    parser.add_argument("what", choices=("forward", "gradient"))
    args = parser.parse_args()
    layout, rest = (CRAFTAX_CLASSIC, 22) if args.game == "classic" else (CRAFTAX, 51)
    key, id_key, flag_key = jax.random.split(jax.random.key(0), 3)
    blocks = jax.nn.one_hot(jax.random.randint(id_key, (args.batch, layout.tiles), 0, layout.blocks), layout.blocks)
    flags = jax.random.bernoulli(flag_key, 0.05, (args.batch, layout.tiles, layout.flags))
    tiles = jnp.concatenate([blocks, flags], -1).reshape(args.batch, -1)
    obs = jnp.concatenate([tiles, jax.random.uniform(key, (args.batch, rest))], -1)
    kernel = jax.random.normal(key, (obs.shape[-1], HIDDEN)) / 40
    data = tile_ids(obs, layout) if args.way == "lookup" else (obs,)

    def layer(kernel, *data):
        return lookup_dense(*data, kernel, layout) if args.way == "lookup" else data[0] @ kernel

    def loss(kernel):
        return jnp.tanh(layer(kernel, *data)).sum()

    one = jax.grad(loss) if args.what == "gradient" else lambda kernel: jnp.tanh(layer(kernel, *data)).sum(0)

    @jax.jit
    def several(kernel):
        def again(kernel, _):
            return kernel + 1e-6 * jnp.broadcast_to(one(kernel), kernel.shape), None

        return jax.lax.scan(again, kernel, None, 10)[0], jnp.zeros(())

    count, seconds, cores, _ = time_calls(several, kernel, warm_up=1, calls=2, seconds=3.0)
    report(
        game=args.game,
        way=args.way,
        what=args.what,
        batch=args.batch,
        samples_per_s=count * 10 * args.batch / seconds,
        window_s=seconds,
        cores_used=cores,
    )


if __name__ == "__main__":
    main()
