"""What a process does before it computes."""

import platform
import subprocess
import sys

import pytest

from dd import device
from dd.errors import ConfigError

FAULTS = """
import resource, sys
import torch
from dd import networks
from dd.device import prepare_process
if sys.argv[1] == "prepared":
    prepare_process(1)
torch.set_num_threads(1)
net, x = networks.build("convnet3_in", 3, (32, 32), 10, 0), torch.randn(80, 3, 32, 32)  # 42 MB an activation: never kept by default
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(9):
    if step == 6:
        before = faults()
    net(x).square().mean().backward()
print(faults() - before)
"""


def faults(how):
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="another C library than glibc")
def test_freed_memory_is_used_again_without_asking_the_system():
    assert faults("prepared") < faults("not prepared") / 4


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(device, "prepare_process", lambda threads: None)  # of this process, which goes on
    for wanted in ("cuda:99", "tpu"):
        with pytest.raises(ConfigError, match=wanted):
            device.device_of(wanted, 1)
    assert device.device_of("cpu", 1) == "cpu"
