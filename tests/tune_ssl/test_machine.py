"""What is said of a host, on hosts that are made up."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

from tune_ssl import machine
from tune_ssl.workflows import doctor

MEMINFO = """\
MemTotal:       16303428 kB
MemFree:          812340 kB
MemAvailable:    9000000 kB
HugePages_Total:       0
"""


@pytest.fixture
def host(monkeypatch):
    """Make up a host: files by path (None: not there) and cores."""

    def make(*, files=None, cores=8):
        files = files or {}
        really = Path.read_text

        def read_text(path, *arguments, **options):
            if str(path) not in files:
                return really(path, *arguments, **options)
            if files[str(path)] is None:
                raise FileNotFoundError(path)
            return files[str(path)]

        monkeypatch.setattr(Path, "read_text", read_text)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)), raising=False)

    return make


CPU_MAX = "/sys/fs/cgroup/cpu.max"


class TestCores:
    @pytest.mark.parametrize(
        ("cpu_max", "cores", "expected"),
        [
            ("max 100000\n", 8, 8),
            ("400000 100000\n", 8, 4),
            ("250000 100000\n", 8, 2),
            ("50000 100000\n", 8, 1),
            ("1600000 100000\n", 8, 8),
            ("nonsense\n", 8, 8),
            ("", 8, 8),
            (None, 8, 8),
            (None, 1, 1),
        ],
    )
    def test_they_are_those_of_the_affinity_and_of_the_cgroup(self, host, cpu_max, cores, expected):
        host(files={CPU_MAX: cpu_max}, cores=cores)
        assert machine.usable_cpus() == expected

    def test_without_an_affinity_they_are_those_of_the_host(self, host, monkeypatch):
        host(files={CPU_MAX: None})
        monkeypatch.delattr(os, "sched_getaffinity")
        monkeypatch.setattr(os, "cpu_count", lambda: 6)
        assert machine.usable_cpus() == 6
        monkeypatch.setattr(os, "cpu_count", lambda: None)
        assert machine.usable_cpus() == 1


class TestMemory:
    def test_it_is_read_in_bytes(self, host):
        host(files={"/proc/meminfo": MEMINFO})
        assert machine.memory_bytes() == (16303428 * 1024, 9000000 * 1024)

    @pytest.mark.parametrize("content", [None, "", "MemTotal: 16303428 kB\nMemFree: 812340 kB\n"])
    def test_a_host_that_does_not_say_has_an_unknown_amount(self, host, content):
        host(files={"/proc/meminfo": content})
        assert machine.memory_bytes() is None
        assert machine.describe()["memory_bytes"] is None

    def test_a_path_that_is_not_there_has_no_disk(self, tmp_path):
        assert machine.disk_free_bytes(tmp_path / "nothing") is None
        assert machine.disk_free_bytes(tmp_path) > 0


class TestGpus:
    def fake_tool(self, folder: Path, script: str, monkeypatch) -> None:
        tool = folder / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def test_they_are_named_one_by_one(self, tmp_path, monkeypatch):
        self.fake_tool(tmp_path, "echo 'NVIDIA H200'; echo 'NVIDIA H200'", monkeypatch)
        assert machine.gpu_names() == ["NVIDIA H200", "NVIDIA H200"]

    @pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found' >&2; exit 6", ""])
    def test_a_tool_that_fails_or_says_nothing_means_none(self, tmp_path, monkeypatch, script):
        self.fake_tool(tmp_path, script, monkeypatch)
        assert machine.gpu_names() == []

    def test_no_tool_means_none(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert machine.gpu_names() == []

    @pytest.mark.parametrize(
        ("capabilities", "able"),
        [
            (["9.0"], True),
            (["8.0", "12.0"], True),
            (["7.5"], False),
            (["9.0", "7.5"], False),
            ([], False),
        ],
    )
    def test_all_of_them_must_compute_in_bfloat16(self, tmp_path, monkeypatch, capabilities, able):
        lines = "; ".join(f"echo {capability}" for capability in capabilities)
        self.fake_tool(
            tmp_path, f'[ "$1" = --query-gpu=compute_cap ] || exit 9; {lines}', monkeypatch
        )
        assert machine.gpus_compute_in_bfloat16() is able


@pytest.mark.parametrize(
    ("cpuinfo", "able"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 sse\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx2 avx512f\nbugs\t\t: avx512_bf16\n", False),
        ("Features\t: fp asimd bf16\n", False),
        (None, False),
    ],
)
def test_a_processor_computes_in_bfloat16_where_its_flags_say_so(host, cpuinfo, able):
    host(files={"/proc/cpuinfo": cpuinfo})
    assert machine.computes_in_bfloat16() is able


class TestDescription:
    def test_versions_are_those_installed_and_missing_ones_say_so(self, monkeypatch):
        found = machine.versions()
        assert found["optuna"] == metadata.version("optuna")
        assert set(machine.PACKAGES) | {"python", "tune-ssl"} == set(found)

        def none_installed(_name):
            raise metadata.PackageNotFoundError

        monkeypatch.setattr(metadata, "version", none_installed)
        kept = {name: value for name, value in machine.versions().items() if value != "missing"}
        assert kept == {"python": found["python"], "tune-ssl": found["tune-ssl"]}

    def test_ours_is_that_of_the_code_that_runs(self, monkeypatch):
        assert machine.versions()["tune-ssl"] == metadata.version("tune-ssl")
        monkeypatch.setattr(machine, "__version__", "9.9.9")
        assert machine.versions()["tune-ssl"] == "9.9.9"

    def test_it_is_plain_and_holds_nothing_of_the_environment(self, monkeypatch):
        monkeypatch.setenv("TUNE_SSL_TEST_SECRET", "hunter2-hunter2")
        written = json.dumps(machine.describe())
        assert "hunter2" not in written
        assert "SECRET" not in written
        assert json.loads(written)["host"] == socket.gethostname()
        assert json.loads(written)["cores"] >= 1

    def test_a_host_without_cpuinfo_has_a_processor_all_the_same(self, host):
        host(files={"/proc/cpuinfo": None})
        assert machine.processor_name()


class TestPorts:
    def test_a_taken_port_is_passed_over(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            assert port < machine.free_port_from(port) < port + 100

    def test_a_free_one_is_kept(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        assert machine.free_port_from(port) == port


class TestCommands:
    def program(self, folder: Path, name: str) -> Path:
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return path

    @pytest.fixture
    def environment(self, tmp_path, monkeypatch) -> Path:
        """Return the folder of an environment's programs, which is not on the path."""
        folder = tmp_path / "environment"
        python = self.program(folder, "python")
        monkeypatch.setattr(sys, "executable", str(python))
        monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
        return folder

    def test_one_the_shell_finds_is_typed_by_its_name(self, environment, monkeypatch):
        self.program(environment, "tool")
        monkeypatch.setenv("PATH", str(environment))
        assert machine.command_path("tool") == "tool"

    def test_one_it_does_not_find_by_its_path(self, environment):
        own = self.program(environment, "tool")
        assert machine.command_path("tool") == str(own)

    def test_so_is_one_of_which_it_would_find_another(self, environment, tmp_path):
        own = self.program(environment, "tool")
        self.program(tmp_path / "elsewhere", "tool")
        assert machine.command_path("tool") == str(own)

    def test_one_of_the_shell_s_alone_by_its_name(self, environment, tmp_path):
        self.program(tmp_path / "elsewhere", "tool")
        assert machine.command_path("tool") == "tool"

    def test_one_that_is_nowhere_too(self, environment):
        assert machine.command_path("tool") == "tool"


class TestOutOfMemory:
    def test_what_an_error_was_raised_from_or_beside_counts(self):
        full, other = RuntimeError("CUDA error: out of memory"), RuntimeError("capture ended")
        assert machine.is_out_of_memory(full)
        assert not machine.is_out_of_memory(other)
        other.__context__ = full
        assert machine.is_out_of_memory(other)
        outer = RuntimeError("a step failed")
        outer.__cause__ = other
        assert machine.is_out_of_memory(outer)

    def test_errors_that_name_each_other_end_the_search_for_it(self):
        one, other = RuntimeError("a"), RuntimeError("b")
        one.__context__, other.__context__ = other, one
        assert not machine.is_out_of_memory(one)


class TestSharedGpus:
    @pytest.mark.parametrize(("runs", "words"), [(True, "share one"), (False, "take turns on one")])
    def test_doctor_says_whether_processes_run_on_one_at_once(
        self, tmp_path, monkeypatch, runs, words
    ):
        monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
        if runs:
            (tmp_path / "control").touch()
        monkeypatch.setattr(machine, "gpu_names", lambda: ["NVIDIA H100"])
        [found] = [one for one in doctor.examine(tmp_path) if one.what == "gpus"]
        assert found.found.startswith(f"NVIDIA H100; trials {words}")
        monkeypatch.setattr(machine, "gpu_names", list)
        [found] = [one for one in doctor.examine(tmp_path) if one.what == "gpus"]
        assert found.found == "none; trials run on the CPU"


class TestCompiler:
    @pytest.fixture
    def header(self, tmp_path, monkeypatch):
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
        monkeypatch.setattr(shutil, "which", lambda name: {"g++": "/usr/bin/g++"}.get(name))
        monkeypatch.setattr(sys, "platform", "linux")
        (tmp_path / "Python.h").touch()
        return tmp_path / "Python.h"

    def test_nothing_is_missing_where_both_are_there(self, header):
        assert machine.missing_to_compile() is None

    def test_a_header_of_python_is_needed(self, header):
        header.unlink()
        assert machine.missing_to_compile() == f"no header of Python ({header})"

    def test_the_compiler_is_that_of_the_environment(self, header, monkeypatch):
        monkeypatch.setenv("CXX", "icpx")
        assert machine.missing_to_compile() == "no C++ compiler (icpx)"

    def test_it_may_be_called_by_another_program(self, header, monkeypatch):
        monkeypatch.setenv("CXX", "g++ -march=native")
        assert machine.missing_to_compile() is None

    def test_a_mac_has_another(self, header, monkeypatch):
        monkeypatch.setattr(sys, "platform", "darwin")
        assert machine.missing_to_compile() == "no C++ compiler (clang++)"

    @pytest.mark.parametrize("missing", [None, "no C++ compiler (g++)"])
    def test_doctor_says_it_and_asks_for_nothing(self, tmp_path, monkeypatch, missing):
        monkeypatch.setattr(machine, "missing_to_compile", lambda: missing)
        [found] = [one for one in doctor.examine(tmp_path) if one.what == "compiler"]
        assert found.good
        assert found.found == (missing or "there is one, for --compile")


class TestDoctor:
    def findings(self, output) -> dict[str, doctor.Finding]:
        return {finding.what: finding for finding in doctor.examine(output)}

    def test_a_sound_host_has_nothing_to_look_at(self, tmp_path, monkeypatch):
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(machine, "memory_bytes", lambda: (2**34, 2**33))
        monkeypatch.setattr(machine, "disk_free_bytes", lambda _path: 2**40)
        found = self.findings(tmp_path / "not" / "yet" / "made")
        assert [finding.what for finding in found.values() if not finding.good] == []
        assert str(tmp_path) in found["disk"].found
        assert not (tmp_path / "not").exists()

    def test_what_would_hinder_a_search_is_marked(self, tmp_path, monkeypatch):
        token = tmp_path / "token"
        token.write_text("secret")
        token.chmod(0o644)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        monkeypatch.setattr(machine, "memory_bytes", lambda: (2**34, 2**20))
        monkeypatch.setattr(machine, "disk_free_bytes", lambda _path: 2**20)
        found = self.findings(tmp_path)
        marked = {finding.what for finding in found.values() if not finding.good}
        assert marked == {"memory", "/dev/shm", "disk", "Ray token"}
        assert "chmod 600" in found["Ray token"].found
        assert "secret" not in found["Ray token"].found
        assert "10.0.0.1:6379" in found["RAY_ADDRESS"].found
        assert "--shm-size" in found["/dev/shm"].found
        token.chmod(0o600)
        assert self.findings(tmp_path)["Ray token"].good

    def test_what_cannot_be_found_out_is_said_to_be_unknown(self, tmp_path, monkeypatch):
        monkeypatch.setattr(machine, "memory_bytes", lambda: None)
        monkeypatch.setattr(machine, "disk_free_bytes", lambda _path: None)
        found = self.findings(tmp_path)
        assert found["memory"].found == "unknown"
        assert found["/dev/shm"].found.startswith("none")
