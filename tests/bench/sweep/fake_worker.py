"""The process of a run whose steps are quick: what ``acts.json`` beside its folder says happens.

That is an object: per scene a list, and each start of the scene's run takes the next one:
"ok"; "die" kills the worker while a step of it runs; "fail" ends a step with status 1, "refuse"
with status 2; "hang" takes for ever. Each start is noted in a line of ``starts``.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from shacira_nerfstudio.bench.sweep import job_steps, worker

FIGURES = {
    **{"psnr": 20.0, "ssim": 0.5, "bytes": 100, "bytes_by_part": {"latents": 100}},
    **{"paper_accounting_bytes": 90, "encode_seconds": 0.1, "decode_seconds": 0.1},
    **{"render_seconds": 0.1, "resolution": [8, 8], "num_views": 1, "backend": "none"},
}


def next_act(folder: Path) -> str:
    """What this start of a run is for; the last one stands for all after it."""
    scene = json.loads((folder / worker.TASK).read_text("utf-8"))["job"]["scene"]
    path = folder.parent / "acts.json"
    acts = json.loads(path.read_text("utf-8")).get(scene, ["ok"]) if path.exists() else ["ok"]
    starts = folder / "starts"
    with starts.open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    count = len(starts.read_text("utf-8").splitlines())
    return acts[min(count, len(acts)) - 1]


def run(command, log, handles=()):
    """In place of ``job_steps.run_logged``."""
    folder, name = log.parent, log.stem
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{name} begins\n")
    act = next_act(folder) if name == "train" else "ok"
    if act in ("die", "hang"):
        sleeper = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
        step = subprocess.Popen(sleeper, pass_fds=handles)
        (folder / "pid").write_text(str(step.pid), "utf-8")
        (folder / "pid").rename(folder / "step_pid")
        if act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        step.wait()
    if act in ("fail", "refuse"):
        return {"fail": 1, "refuse": 2}[act], None
    (folder / "export").mkdir(exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(FIGURES), "utf-8")
    run_folder = folder / "train" / folder_scene(folder) / "shacira" / "run"
    run_folder.mkdir(parents=True, exist_ok=True)
    for path in (run_folder / "config.yml", *(folder / "export" / n for n in EXPORTED)):
        path.write_text("max_num_iterations: 2\n", "utf-8")
    return 0, 1.0


EXPORTED = ("scene.shacira", "config.yml")


def folder_scene(folder: Path) -> str:
    """Name of the scene of a run."""
    return json.loads((folder / worker.TASK).read_text("utf-8"))["job"]["scene"]


if __name__ == "__main__":
    job_steps.run_logged = run
    sys.exit(worker.main())
