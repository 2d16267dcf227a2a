"""A study file on the workers of a cluster. Run again, it resumes: python cluster_study.py STUDY.toml --on slurm --workers 40"""

import argparse
from pathlib import Path

from distributed import Client, LocalCluster

from attnflow.studies.files import read_study


def cluster(kind: str, workers: int):
    """Where workers run; edit cores, memory and time to what your cluster has."""
    if kind == "slurm":
        from dask_jobqueue import SLURMCluster

        jobs = SLURMCluster(cores=1, processes=1, job_cpu=8, memory="8GB", walltime="04:00:00")
        jobs.scale(jobs=workers)
        return jobs
    if kind == "kubernetes":
        from dask_kubernetes.operator import KubeCluster

        return KubeCluster(name="attnflow", image="attnflow:latest", n_workers=workers)
    return LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--on", choices=["local", "slurm", "kubernetes"], default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--store", type=Path, default=Path("study.sqlite"))
    options = parser.parse_args()
    with cluster(options.on, options.workers) as workers, Client(workers) as client:
        result = read_study(options.study).run(options.store, client=client)
    print(result.summary())
    result.to_csv(options.store.with_suffix(".csv"))


if __name__ == "__main__":
    main()
