"""Makes runs on a Ray cluster: a running one by its address, or one of its own on this machine."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from capacity.errors import CapacityError, SpecError
from capacity.plan.memory import gigabytes, run_memory
from capacity.runs.fingerprint import Fingerprint
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.preflight import Room
from capacity.studies.workers import Event

SUPPORTED = "2.60"
_ANSWER = 10.0  # seconds that a cluster has to answer
INSTALL = "run pip install '.[ray]' in the sources of capacity"


@dataclass(frozen=True)
class RayCluster:
    """Workers on the nodes of a cluster. They need no file system in common with this machine.

    Attributes:
        workers: the number of workers that are wanted. Ray starts as many of them as the nodes have room for.
        nodes: the resources of each node, by Ray's names.
    """

    workers: int
    nodes: tuple[dict[str, float], ...]

    @property
    def device(self) -> str:
        """The kind of device of every worker: "cuda" if a node has a GPU, else "cpu"."""
        return "cuda" if _total(self.nodes, "GPU") else "cpu"

    @property
    def share(self) -> float:
        """The part of a GPU that each worker has; 1 on CPUs."""
        gpus = int(_total(self.nodes, "GPU"))
        return 1 / max(1, -(-self.workers // gpus)) if gpus else 1.0

    @property
    def gpu_bytes(self) -> int | None:
        """The memory that one worker may take of the first free GPU, in bytes; None on CPUs."""
        if self.device == "cpu":
            return None
        import ray

        return int(self.share * ray.get(ray.remote(_gpu_memory).options(num_gpus=self.share).remote()))

    def room(self) -> Room:
        """Returns the memory that one run may take. Ray sees to it that the workers of a node fit together."""
        if (gpu := self.gpu_bytes) is not None:
            return Room(gpu, 1, "a GPU of the cluster")
        return Room(int(max(node.get("memory", 0) for node in self.nodes)), 1, "a node of the cluster")

    def run(
        self,
        study: Study,
        jobs: Sequence[Sequence[RunSpec]],
        fingerprint: Fingerprint,
        on_event: Callable[[Event], None],
        checkpoint_minutes: float,
    ) -> None:
        """Makes the runs of all jobs and adds them to the study, as `Executor` says.

        Raises:
            CapacityError: as `capacity.studies.executors.crew.Crew.make`, or no node has room for one of the runs.
        """
        from capacity.studies.executors.crew import Crew

        resources = self._resources([spec for job in jobs for spec in job])
        if not any(_has_room(node, resources) for node in self.nodes):
            raise CapacityError(
                f"no node of the Ray cluster has room for a run: it takes 1 CPU, {resources['num_gpus']:g} GPUs and "
                f"{gigabytes(int(resources['memory']))} of memory"
            )
        Crew(study, fingerprint, resources, self.share, on_event, checkpoint_minutes).make(jobs, self.workers)

    def _resources(self, specs: Sequence[RunSpec]) -> dict[str, float]:
        """Returns what Ray reserves for a worker: a core, a part of a GPU, and the memory of the largest run.

        On a GPU the memory of the node holds no more than the weights, while they are loaded.
        """
        plans = [run_memory(spec) for spec in specs]
        on_gpu = self.device == "cuda"
        memory = max(plan.weights if on_gpu else plan.peak for plan in plans)
        return {"num_cpus": 1, "num_gpus": self.share if on_gpu else 0, "memory": memory}


@contextmanager
def ray_executor(address: str | None, workers: int | None) -> Iterator[RayCluster]:
    """Gives the workers of a cluster, and leaves the cluster after the block.

    Args:
        address: of a running cluster, "auto" for the one of this machine. If None: RAY_ADDRESS, or a cluster of its
            own, which ends with the block.
        workers: the number of workers. If None: one a GPU, and on a cluster without GPUs one a core.

    Raises:
        SpecError: if the address is that of Ray's client.
        CapacityError: if Ray is not installed or is of another version, or there is no such cluster.
    """
    check_installed()
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    if where.startswith("ray://"):
        raise SpecError(f"--ray {where}: Ray's client cannot make runs; run this command on a node, with --ray auto")
    import ray

    if ray.is_initialized():  # by the program that calls this one; the cluster stays its own
        yield _cluster(ray, workers)
        return
    with _quiet():
        _connect(ray, where)
        try:
            yield _cluster(ray, workers)
        finally:
            ray.shutdown()


def check_installed() -> None:
    """Checks that there is a Ray of the version that the tests run.

    Raises:
        CapacityError: if there is none, or another one. The message says what to do.
    """
    try:
        found = version("ray")
    except PackageNotFoundError:
        raise CapacityError(f"--executor ray needs Ray {SUPPORTED}, which is not installed: {INSTALL}") from None
    if not found.startswith(f"{SUPPORTED}."):
        raise CapacityError(f"--executor ray needs Ray {SUPPORTED}, and {found} is installed: {INSTALL}")


def _connect(ray: Any, where: str) -> None:
    """Joins a cluster, or starts one.

    Raises:
        CapacityError: if there is no such cluster, or it runs another version of Ray.
    """
    _check_answers(where)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    main = threading.current_thread() is threading.main_thread()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    own = {"include_dashboard": False} if where == "local" else {}
    try:
        ray.init(address=where, log_to_driver=False, logging_level="ERROR", **own)
    except Exception as error:  # Ray has no narrower class for a node that does not start in time
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CapacityError(f"--ray {where}: no Ray cluster can be joined there: {line}") from None
    finally:
        if main:  # Ray puts its own way of ending in their place
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _check_answers(where: str) -> None:
    """Checks that something answers at an address, because Ray ends the whole process where nothing does.

    Raises:
        CapacityError: if nothing answers there.
    """
    host, colon, port = where.rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise CapacityError(f"--ray {where}: no Ray cluster can be joined there: {error}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps pages of a lost node's log from stderr. Ray has no option for that; a line of ours tells of the loss."""
    from ray._private import worker

    printing = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = printing


def _cluster(ray: Any, workers: int | None) -> RayCluster:
    nodes = tuple(node["Resources"] for node in ray.nodes() if node["Alive"])
    count = workers or int(_total(nodes, "GPU")) or int(_total(nodes, "CPU"))
    return RayCluster(max(1, count), nodes)


def _total(nodes: Sequence[dict[str, float]], name: str) -> float:
    return sum(node.get(name, 0) for node in nodes)


def _has_room(node: dict[str, float], resources: dict[str, float]) -> bool:
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    return all(node.get(names[name], 0) >= amount for name, amount in resources.items())


def _gpu_memory() -> int:
    """Returns the memory of the GPU of this process, in bytes."""
    from capacity.models.device_memory import total_memory

    return total_memory("cuda")
