"""A SLURM of two pretended nodes on this machine: munged, slurmctld and two slurmd on loopback, each stopped by its process id."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SETTINGS = Path("/etc/slurm")  # the only place that commands inside of jobs read
NAME = "distillery-test"
DAEMONS = ("slurmd.n1", "slurmd.n2", "slurmctld", "munge/munged")  # in this order they end
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")

SLURM_CONF = """ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthInfo=socket={state}/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={state}/ctld
SlurmdSpoolDir={state}/spool.%n
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.%n.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=bf_interval=2,sched_interval=2
ReturnToService=2
SlurmdTimeout=30
KillWait=5
MinJobAge=3600
MessageTimeout=10
GresTypes=gpu
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=4 RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=1440 DefaultTime=10
PartitionName=gpu Nodes=ALL MaxTime=2880 DefaultTime=5
PartitionName=short Nodes=ALL MaxTime=10 DefaultTime=5
"""
GRES_CONF = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"


def unavailable() -> str | None:
    """Return why no cluster can be started here, or None."""
    if os.geteuid() != 0:
        return "a SLURM of one's own needs root"
    absent = [program for program in PROGRAMS if which(program) is None]
    if absent:
        return f"{', '.join(absent)} not found (Debian: apt-get install slurmctld slurmd slurm-client munge)"
    ours = SETTINGS / "slurm.conf"
    if ours.exists() and f"ClusterName={NAME}\n" not in ours.read_text():
        return f"{ours} is of another cluster"
    try:
        address = socket.gethostbyname(_host())
    except OSError as error:
        return f"host name {_host()}: {error}"
    return None if address.startswith("127.") else f"host name {_host()} is {address}, not loopback"


def which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin")


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def alive(pid: int) -> bool:
    """Whether a process runs (one that only waits for its parent to look does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _end(state: Path, daemon: str, how: int = signal.SIGTERM) -> None:
    """End the daemon whose process id stands in a state folder, and wait for its end."""
    try:
        pid = int((state / f"{daemon}.pid").read_text())
        command = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        return
    if command != Path(daemon).name.partition(".")[0] or not alive(pid):  # the number is somebody else's by now
        return
    os.kill(pid, how)
    for _ in range(100):
        if not alive(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


def _sweep() -> None:
    """End what a test left behind that was killed itself; it is known to be dead, since its lock is free."""
    file = SETTINGS / "slurm.conf"
    if file.exists():
        (state,) = (Path(line.partition("=")[2]).parent for line in file.read_text().splitlines() if line.startswith("StateSaveLocation="))
        for daemon in DAEMONS:
            _end(state, daemon)
        shutil.rmtree(state, ignore_errors=True)


def wait_until(true: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


class Cluster:
    """Starts in `up`, ends in `down`. One on a machine at a time: `up` waits for the other's end."""

    def __init__(self) -> None:
        self.state = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.state.chmod(0o755)  # munged refuses a folder that others may write to, and runs as a user of its own
        self._alone = open(Path(tempfile.gettempdir()) / f"{NAME}.lock", "w")  # noqa: SIM115  # held until down

    def up(self, patience: float = 600) -> None:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                assert time.monotonic() < end, "another test of this machine keeps its cluster"
                time.sleep(1)
        _sweep()
        (self.state / "ctld").mkdir()
        for node in ("n1", "n2"):
            (self.state / f"spool.{node}").mkdir()
        SETTINGS.mkdir(exist_ok=True)
        (SETTINGS / "slurm.conf").write_text(SLURM_CONF.format(name=NAME, host=_host(), state=self.state))
        (SETTINGS / "gres.conf").write_text(GRES_CONF)
        self._munged()
        self.start_controller(clean=True)
        for node in ("n1", "n2"):
            self.start_node(node)
        try:
            wait_until(lambda: self.ask("sinfo", "-h", "-N", "-p", "cpu", "-t", "idle").count("\n") == 2, 20, "both nodes are up")
        except AssertionError as error:
            logs = [f"{path}:\n{path.read_text()[-1000:]}" for path in sorted(self.state.glob("*.log"))]
            raise AssertionError("\n".join([str(error), *logs])) from None

    def _munged(self) -> None:
        """Start a munged of our own, with its own key and socket: a machine may have one already."""
        folder = self.state / "munge"
        folder.mkdir()
        key = folder / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        shutil.chown(folder, "munge", "munge")
        shutil.chown(key, "munge", "munge")
        self._call(
            "runuser", "-u", "munge", "--", which("munged") or "munged", "--num-threads=2", f"--key-file={key}", f"--socket={folder}/socket",
            f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/seed",
        )  # fmt: skip

    def start_controller(self, clean: bool = False) -> None:
        self._call(which("slurmctld") or "slurmctld", *(["-c"] if clean else []))

    def start_node(self, node: str) -> None:
        self._call(which("slurmd") or "slurmd", "-N", node)

    def stop(self, daemon: str, how: int = signal.SIGTERM) -> None:
        """End one of `DAEMONS`."""
        _end(self.state, daemon, how)

    def kill_node(self, node: str) -> None:
        """Let a node die: its slurmd, and every process of its jobs, at one blow."""
        self.stop(f"slurmd.{node}", signal.SIGKILL)
        mark = f"SLURMD_NODENAME={node}\0".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
                ours = command.startswith(b"slurmstepd") and self._keeper(int(folder.name), node)
                if ours or (mark in (folder / "environ").read_bytes() and self._inside(folder)):
                    os.kill(int(folder.name), signal.SIGKILL)
            except OSError:
                continue

    def _keeper(self, pid: int, node: str) -> bool:
        """Whether a slurmstepd is of this node: it holds the node's log open."""
        log = str(self.state / f"slurmd.{node}.log")
        return any(os.readlink(fd) == log for fd in Path(f"/proc/{pid}/fd").iterdir())

    def _inside(self, folder: Path) -> bool:
        return f"SLURM_CLUSTER_NAME={NAME}\0".encode() in (folder / "environ").read_bytes()

    def down(self) -> None:
        try:
            if (self.state / "slurmctld.pid").exists():
                subprocess.run(["scancel", "--user=root"], timeout=30, capture_output=True)
                time.sleep(0.5)
            for daemon in DAEMONS:
                self.stop(daemon)
        finally:
            for name in ("slurm.conf", "gres.conf"):
                (SETTINGS / name).unlink(missing_ok=True)
            shutil.rmtree(self.state, ignore_errors=True)
            self._alone.close()

    def _call(self, *command: str) -> None:
        done = subprocess.run(command, timeout=60, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def ask(self, *command: str) -> str:
        """Return what a command of SLURM prints; empty where it fails, as while the controller is down."""
        return subprocess.run(command, timeout=60, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

    def jobs(self, folder: Path) -> list[dict[str, str]]:
        """Return what `scontrol show job` says of every job of a folder, the oldest first."""
        lines = self.ask("scontrol", "show", "job", "-o", "-d").splitlines()
        found = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines if line.startswith("JobId=")]
        return sorted((job for job in found if job.get("WorkDir") == str(folder)), key=lambda job: int(job["JobId"]))
