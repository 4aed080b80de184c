"""A Slurm cluster of one node, this machine, with a configuration, a key and ports of its own."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
SEARCH = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
# cred_expire is how long a requeued job waits before it starts again, 5 s at the least; config_overrides lets a machine
# with fewer cores than the node has pass for one.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCH) is None]


def wait_until(what: str, is_so: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start the daemons in ``folder``; yields the environment in which Slurm's commands find them."""
    environment = {**os.environ, "PATH": SEARCH, "SLURM_CONF": str(folder / "slurm.conf")}
    host = socket.gethostname().split(".")[0]
    user = pwd.getpwuid(os.getuid()).pw_name
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(host=host, user=user, folder=folder, ports=free_ports(2))
    )
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    munge = [f"--socket={folder}/munge.socket", *(f"--{w}-file={folder}/munge.{w}" for w in ("key", "pid", "seed"))]
    with contextlib.ExitStack() as stack:
        stack.enter_context(daemon("munged", "--foreground", "--force", *munge, log=folder, environment=environment))
        wait_until("munged", (folder / "munge.socket").exists)
        stack.enter_context(daemon("slurmctld", "-D", log=folder, environment=environment))
        stack.enter_context(daemon("slurmd", "-D", log=folder, environment=environment))
        stack.callback(empty_queue, environment)
        wait_until("an idle node", lambda: "idle" in ask(environment, "sinfo", "--noheader", "--format=%t"))
        yield environment


@contextlib.contextmanager
def daemon(name: str, *flags: str, log: Path, environment: dict[str, str]) -> Iterator[None]:
    with (log / f"{name}.log").open("w") as file:
        process = subprocess.Popen([shutil.which(name, path=SEARCH), *flags], stdout=file, stderr=file, env=environment)
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def ask(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60).stdout


def empty_queue(environment: dict[str, str]) -> None:
    """Cancel what a test has left, so that no task outlives its cluster."""
    ask(environment, "scancel", "--me")
    wait_until("an empty queue", lambda: not ask(environment, "squeue", "--noheader"), seconds=60)
