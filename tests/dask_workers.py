"""Workers of Dask that are threads of this process, so that stand-ins of a test hold in them too."""

from collections.abc import Iterator
from contextlib import contextmanager

from distributed import LocalCluster


@contextmanager
def threads(resources: dict[str, float] | None = None) -> Iterator[LocalCluster]:
    """One worker, with what it states to have."""
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        resources=resources,
    ) as workers:
        yield workers
