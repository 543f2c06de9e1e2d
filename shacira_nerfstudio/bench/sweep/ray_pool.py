"""Runs on the nodes of a Ray cluster.

The package must be installed on the nodes. Scenes and the work folder are on a path that all nodes
share, or scenes are shipped with the jobs, and rows, files and logs come back. Ray retries nothing
itself: whoever is killed, this process hears of it and decides.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shacira_nerfstudio.bench.plan import Limits
from shacira_nerfstudio.bench.sweep.job_steps import ROW
from shacira_nerfstudio.bench.sweep.locks import locked
from shacira_nerfstudio.bench.sweep.tasks import Outcome, Task, run_task
from shacira_nerfstudio.output_files import write_file

_QUEUED = 2
"""Runs that are given to Ray for each that has room: the next one is there when a place is free."""
_UNPACK_WAIT_S = 1800.0
_COMES_BACK = ("*.log", "*.json", "export/scene.shacira", "export/config.yml")


@dataclass(frozen=True)
class Shipped:
    """What a node without the work folder sends back."""

    outcome: Outcome
    files: dict[str, bytes]


class RayPool:
    """An executor, see :class:`tasks.Executor`.

    Args:
        address: Of a cluster, as ``ray.init`` takes it. By default the one that RAY_ADDRESS names
            or that runs on this machine, or else a new one of this machine.
        ships_scenes: Nodes see neither scenes nor the work folder.
        node_dir: Where a node keeps scenes that were shipped, and runs that are not finished; by
            default in its folder for temporary files.
        num_workers: At most so many runs at once; by default what Ray has room for.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        ships_scenes: bool = False,
        node_dir: Path | None = None,
        num_workers: int | None = None,
    ) -> None:
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ValueError(
                "expected the package ray for --executor ray, found none: "
                "pip install 'shacira_nerfstudio[sweep]'"
            ) from None
        self._ray: Any = ray
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        self._ships_scenes, self._num_workers = ships_scenes, num_workers
        self._node_dir = node_dir
        self._run_remotely = ray.remote(_run_task)
        self._run_shipped = ray.remote(_run_shipped)
        self._refs: dict[Any, Task] = {}
        self._archives: dict[Path, Any] = {}
        self._checked: set[Limits] = set()

    def try_submit(self, task: Task) -> bool:
        """Gives a run to Ray, or says that it has enough."""
        limits = task.job.limits
        resources = self._ray.cluster_resources()
        gpus = float(resources.get("GPU", 0) > 0) if limits.gpus is None else limits.gpus
        room = max(1, int(resources.get("CPU", 1) // limits.cpus)) * _QUEUED
        if len(self._refs) >= (room if self._num_workers is None else self._num_workers):
            return False
        if limits not in self._checked:
            self._check(limits, resources, gpus)
            self._checked.add(limits)  # nodes that leave later may come back
        threads = str(limits.cpus)
        environ = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
        task = replace(task, environ=environ)
        needs = {"num_cpus": limits.cpus, "num_gpus": gpus, "memory": int(limits.memory_gb * 1e9)}
        options = {**needs, "max_retries": 0, "name": task.job.title}
        if self._ships_scenes:
            archive = None if task.data is None else self._archive(task.data)
            ref = self._run_shipped.options(**options).remote(task, archive, self._node_dir)
        else:
            ref = self._run_remotely.options(**options).remote(task)
        self._refs[ref] = task
        return True

    def outcomes(self, timeout_s: float) -> list[Outcome]:
        """Of the runs that ended; waits so long for the first."""
        if not self._refs:
            return []
        ready, _ = self._ray.wait(list(self._refs), timeout=timeout_s)
        return [self._outcome(ref, self._refs.pop(ref)) for ref in ready]

    def close(self) -> None:
        """Ends what runs, and a cluster that was started here."""
        for ref in self._refs:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(ref, force=True)
        self._refs.clear()
        self._archives.clear()
        if self._is_ours:
            self._ray.shutdown()

    def _outcome(self, ref: Any, task: Task) -> Outcome:
        try:
            result = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            return Outcome(task.job.key, error=f"lost by Ray: {reason}")
        if not isinstance(result, Shipped):
            return result
        # The row comes last: it says that all is there.
        for name, data in sorted(result.files.items(), key=lambda item: item[0] == ROW):
            path = task.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, data)
        return result.outcome

    def _archive(self, data: Path) -> Any:
        """The scene in Ray's store: once for all its runs, the last few scenes."""
        if data not in self._archives:
            while len(self._archives) >= _QUEUED:
                del self._archives[next(iter(self._archives))]  # Ray keeps it while a run needs it
            self._archives[data] = self._ray.put(_packed(data) if data.is_dir() else b"")
        return self._archives[data]

    def _check(self, limits: Limits, resources: dict[str, float], gpus: float) -> None:
        """Ray would wait for ever for what no node has."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        wanted = {"CPU": limits.cpus, "GPU": gpus, "memory": limits.memory_gb * 1e9}
        if any(all(n.get(k, 0) >= v for k, v in wanted.items()) for n in nodes):
            return
        raise ValueError(
            f"expected a node with {limits.cpus} cores, {gpus:g} GPUs and {limits.memory_gb:g} GB "
            f"for a run, found none in a cluster of {resources}: change `limits` in the plan"
        )


def _packed(folder: Path) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:  # pictures are compressed already
        archive.add(folder, arcname="data")
    return sink.getvalue()


def _run_task(task: Task) -> Outcome:
    return run_task(task)


def _run_shipped(task: Task, archive: bytes | None, node_dir: Path | None) -> Shipped:
    """On a node: with its own copy of the scene, in a folder of its own, which a later try on the
    same node finds again."""
    root = node_dir or Path(tempfile.gettempdir()) / "shacira-sweep"
    folder = root / "runs" / task.job.key
    data = None if archive is None else _unpacked(archive, root / "scenes")
    outcome = run_task(replace(task, data=data, folder=folder, scenes=root / "procedural"))
    paths = [path for pattern in _COMES_BACK for path in folder.glob(pattern)]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    if outcome.row is not None:
        shutil.rmtree(folder)
    return Shipped(outcome, files)


def _unpacked(archive: bytes, scenes: Path) -> Path:
    """Unpacked once for all runs of this node."""
    folder = scenes / hashlib.blake2b(archive, digest_size=12).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", wait_s=_UNPACK_WAIT_S):
        if archive and not (folder / "complete").exists():
            with tarfile.open(fileobj=io.BytesIO(archive)) as content:
                content.extractall(folder, filter="data")
            (folder / "complete").touch()
    return folder / "data"
