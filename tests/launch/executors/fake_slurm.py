"""A stand-in for SLURM: sbatch, srun, scancel and sacct as scripts, whose jobs are processes."""

import os
import stat
import sys
from pathlib import Path

SCRIPTS = {
    # a job is one process group; its number is that of its first process
    "sbatch": """
import os, re, subprocess, sys
text = open(sys.argv[1]).read()
if "refused" in text:
    sys.exit("sbatch: error: invalid partition specified: refused")
waits = "later" in text
job = subprocess.Popen(["sleep", "100"] if waits else ["bash", sys.argv[1]], start_new_session=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env={**os.environ, "SLURM_NTASKS": "1"})
state = "PENDING" if waits else "RUNNING"
open(os.path.join(os.environ["FAKE_SLURM"], str(job.pid)), "w").write(state)
print("Submitted batch job", job.pid)
""",
    # the leader of the group is bash, whose number is the job's
    "srun": """
import os, sys
words = sys.argv[1:]
values = dict(zip(words, words[1:]))
job = str(os.getpgrp())
for word, number in (("--output", 1), ("--error", 2)):
    path = values[word].replace("%j", job).replace("%t", "0")
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
os.environ |= {"SLURM_JOB_ID": job, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
command = words[words.index("--error") + 2:]
os.execvp(command[0], command)
""",
    "scancel": """
import os, subprocess, sys
job = sys.argv[1]
open(os.path.join(os.environ["FAKE_SLURM"], job), "w").write("CANCELLED")
subprocess.Popen(
    ["sh", "-c", f"kill -TERM -{job}; sleep 1; kill -KILL -{job}"],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
)
""",
    "sacct": """
import os, sys
print("JobID|State|NodeList")
for job in sys.argv[sys.argv.index("-j") + 1::2]:
    path = os.path.join(os.environ["FAKE_SLURM"], job)
    # submitit asks for the jobs of all clusters of its process
    state = open(path).read() if os.path.exists(path) else "COMPLETED"
    if state == "RUNNING":
        try:
            os.killpg(int(job), 0)
        except ProcessLookupError:
            state = "NODE_FAIL"
    print(f"{job}|{state}|here")
""",
}


def install(folder: Path) -> dict[str, str]:
    """Writes the scripts; returns the environment variables that let them be found."""
    for name, text in SCRIPTS.items():
        path = folder / name
        path.write_text(f"#!{sys.executable}{text}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    jobs = folder / "jobs"
    jobs.mkdir()
    return {"PATH": f"{folder}:{os.environ['PATH']}", "FAKE_SLURM": str(jobs)}
