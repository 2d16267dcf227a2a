"""One layer from file to file on the workers of a Dask scheduler."""

import argparse
from pathlib import Path

from distributed import Client

import attnflow as af


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("values", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scheduler", required=True, help="the file that `dask scheduler --scheduler-file` writes")
    parser.add_argument("--workers", type=int, default=2, help="to wait for")
    parser.add_argument("--epsilon", type=float, default=1e-3)
    parser.add_argument("--block", type=int, default=2**20)
    options = parser.parse_args()
    layer = af.Attention(af.SquaredDistance(af.Torus([1.0, 1.0])), options.epsilon)
    with Client(scheduler_file=options.scheduler) as client:
        client.wait_for_workers(options.workers, timeout=120)
        shards = af.Sharded(layer, options.block, client, scratch=options.out.resolve().parent)
        shards(options.tokens.resolve(), options.values.resolve(), out=options.out)
    print(shards.stats)


if __name__ == "__main__":
    main()
