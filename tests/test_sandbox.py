"""Attacks on the sandbox, each really run, and what it does when it is not there."""

from __future__ import annotations

import functools
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sandbox_user import AsNobody, open_as_nobody

from selfinstruct.verify.bare import open_bare
from selfinstruct.verify.container import container_words
from selfinstruct.verify.sandbox import (
    FOLDER,
    LIMITS,
    Call,
    Limits,
    Result,
    Sandbox,
    SandboxUnavailable,
    open_sandbox,
)
from selfinstruct.verify.syscalls import MACHINES, make_filter

MIB = 1 << 20
SHORT = replace(LIMITS, seconds=0.6)
ROOT = Path(__file__).parents[1]


@functools.cache
def opened(who: str) -> Sandbox | str:
    """The sandbox by our own user, or by another one; a reason where there is none."""
    try:
        own = open_sandbox("bwrap")
    except SandboxUnavailable as error:
        return str(error)
    return own if who == "own" else open_as_nobody()


@pytest.fixture(params=["own", "nobody"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    found = opened(request.param)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def own() -> Sandbox:
    found = opened("own")
    if isinstance(found, str):
        pytest.skip(found)
    return found


@functools.cache
def python() -> tuple[str, tuple[str, ...]]:
    """A Python that every user can read: the system's if there is one, else our own."""
    if Path("/usr/bin/python3").exists():
        return "/usr/bin/python3", ()
    return str(Path(sys.executable).resolve()), (sys.base_prefix,)


def run_python(sandbox: Sandbox, code: str, limits: Limits = LIMITS, stdin: bytes = b"") -> Result:
    path, folders = python()
    if folders and isinstance(sandbox, AsNobody):
        pytest.skip("no Python that another user can read")
    return sandbox.run(Call([path, "-s", "p.py"], {"p.py": code.encode()}, stdin, limits, folders=folders))


def run_shell(sandbox: Sandbox, code: str, limits: Limits = LIMITS) -> Result:
    return sandbox.run(Call(["/bin/sh", "p.sh"], {"p.sh": code.encode()}, limits=limits))


def alive(mark: str) -> list[int]:
    """Processes whose command line has the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def gone(mark: str) -> bool:
    """Whether they are gone; the kernel may take a moment."""
    for _ in range(100):
        if not alive(mark):
            return True
        time.sleep(0.05)
    return False


def new_mark() -> str:
    return f"86400.{secrets.randbelow(10**12):012}"  # a number of seconds that `sleep` takes


# --- resources ---------------------------------------------------------------------------------------


def test_fork_bomb(sandbox: Sandbox) -> None:
    mark = new_mark()
    code = f"""
import os, time
count = 0
try:
    while count < 1000:
        if not os.fork():
            os.execvp("sleep", ["sleep", "{mark}"])
        count += 1
except OSError:
    pass
print(count)
"""
    result = run_python(sandbox, code, replace(LIMITS, processes=20))
    assert result.status == "ok"
    assert 10 <= int(result.stdout) <= 24
    assert gone(mark)


def test_fork_bomb_of_the_shell(sandbox: Sandbox) -> None:
    mark = new_mark()
    result = run_shell(sandbox, f"b() {{ sleep {mark} & b | b & }}; b; sleep {mark}", SHORT)
    assert result.status in {"timeout", "output", "exit"}
    assert gone(mark)


def test_memory_bomb_by_one_process(sandbox: Sandbox) -> None:
    code = "held = []\nwhile True:\n    held.append(bytearray(1 << 20))"
    result = run_python(sandbox, code, replace(LIMITS, memory_bytes=128 * MIB, address_bytes=None))
    assert (result.status, result.code) == ("memory", None)
    result = run_python(sandbox, code, replace(LIMITS, address_bytes=256 * MIB))
    assert result.status == "exit"
    assert b"MemoryError" in result.stderr


def test_memory_bomb_by_many_processes(sandbox: Sandbox) -> None:
    code = """
import os, time
for _ in range(7):
    if not os.fork():
        break
held = b"x" * (30 << 20)
time.sleep(60)
"""
    result = run_python(sandbox, code, replace(LIMITS, memory_bytes=128 * MIB))
    assert result.status == "memory"


# Name, number by machine, and words that would do something.
SYSTEM_CALLS = """
import ctypes, errno, os, platform
libc = ctypes.CDLL(None, use_errno=True)
column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
parent = os.getppid()
for name, numbers, words in [
    ("memfd_create", (319, 279), (b"x", 0)),
    ("shmget", (29, 194), (0, 1 << 30, 0o1600)),
    ("msgget", (68, 186), (0, 0o1600)),
    ("keyctl", (250, 219), (0, -3, 1)),
    ("add_key", (248, 217), (b"user", b"a", b"b", 1, -2)),
    ("unshare", (272, 97), (0x10000000,)),
    ("clone user", (56, 220), (0x10000011, 0, 0, 0, 0)),
    ("clone3", (435, 435), (0, 0)),
    ("setns", (308, 268), (0, 0)),
    ("mount", (165, 40), (b"a", b"/tmp", b"tmpfs", 0, 0)),
    ("fsopen", (430, 430), (b"tmpfs", 0)),
    ("chroot", (161, 51), (b"/tmp",)),
    ("ptrace", (101, 117), (16, parent, 0, 0)),
    ("process_vm_readv", (310, 270), (parent, 0, 0, 0, 0, 0)),
    ("bpf", (321, 280), (0, 0, 0)),
    ("perf_event_open", (298, 241), (0, 0, 0, 0, 0)),
    ("io_uring_setup", (425, 425), (1, 0)),
    ("syslog", (103, 116), (10, 0, 0)),
    ("socket vsock", (41, 198), (40, 1, 0)),
    ("socket packet", (41, 198), (17, 3, 0)),
    ("socket alg", (41, 198), (38, 5, 0)),
]:
    value = libc.syscall(numbers[column], *words)
    print(name, errno.errorcode.get(ctypes.get_errno()) if value == -1 else "DONE")
"""


def test_system_calls_that_reach_out_are_denied(sandbox: Sandbox) -> None:
    result = run_python(sandbox, SYSTEM_CALLS)
    said = dict(line.rsplit(" ", 1) for line in result.stdout.decode().splitlines())
    assert len(said) == 21
    assert {said.pop(f"socket {name}") for name in ("vsock", "packet", "alg")} == {"EAFNOSUPPORT"}
    assert said.pop("clone3") == "ENOSYS"
    assert set(said.values()) == {"EPERM"}, said


def test_filter_fits_both_machines() -> None:
    lengths = {len(make_filter(machine)) for machine in MACHINES}
    assert len(lengths) == 1
    assert lengths.pop() % 8 == 0


@pytest.mark.parametrize("words", [">&1", ">&2"])
def test_endless_output(sandbox: Sandbox, words: str) -> None:
    result = run_shell(sandbox, f"yes {words}", replace(LIMITS, output_bytes=100_000))
    assert (result.status, result.code) == ("output", None)
    assert len(result.stdout + result.stderr) == 100_000


def test_output_that_just_fits_is_kept(sandbox: Sandbox) -> None:
    result = run_python(sandbox, "print('x' * 99_999)", replace(LIMITS, output_bytes=100_000))
    assert (result.status, len(result.stdout)) == ("ok", 100_000)


DISK = f"""
import os
for top in "/tmp /dev/shm {FOLDER} / /dev /etc /usr /proc /run /var /dev/pts /dev/mqueue".split():
    written = 0
    try:
        for number in range(1000):
            with open(f"{{top}}/f{{number}}", "wb", buffering=0) as out:
                for _ in range(4):
                    written += out.write(bytes(1 << 20))
    except OSError as error:
        print(top, written >> 20)
"""


def test_disk_filler(sandbox: Sandbox) -> None:
    result = run_python(sandbox, DISK, replace(LIMITS, disk_bytes=16 * MIB))
    assert result.status == "ok", result.stderr
    sizes = {line.split()[0]: int(line.split()[1]) for line in result.stdout.decode().splitlines()}
    assert len(sizes) == 12
    assert 14 <= sizes.pop("/tmp") <= 16  # noqa: S108 - the sandbox's own
    assert 14 <= sizes.pop("/dev/shm") <= 16  # noqa: S108 - the sandbox's own
    assert set(sizes.values()) == {0}


def test_one_large_file(sandbox: Sandbox) -> None:
    result = run_shell(sandbox, "head -c 9000000 /dev/zero >big", replace(LIMITS, file_bytes=MIB))
    assert result.status in {"signal", "exit"}
    assert result.code in {signal.SIGXFSZ, 1, 128 + signal.SIGXFSZ}


def test_busy_loop(sandbox: Sandbox) -> None:
    result = run_python(sandbox, "while True: pass", replace(LIMITS, cpu_seconds=0.2))
    assert (result.status, result.code) == ("cpu", None)
    assert result.cpu >= 0.2


def test_busy_children_count_together(sandbox: Sandbox) -> None:
    code = "import os\nfor _ in range(3):\n    os.fork()\nwhile True: pass"
    assert run_python(sandbox, code, replace(LIMITS, cpu_seconds=0.4)).status == "cpu"


# --- time, and who outlives it -----------------------------------------------------------------------

ESCAPED = """
import os, sys, time
if not os.fork():
    os.setsid()
    if not os.fork():
        os.closerange(0, 256)
        os.execvp("sleep", ["sleep", "{mark}"])
    os._exit(0)
time.sleep({seconds})
"""


def test_grandchild_does_not_outlive_the_timeout(sandbox: Sandbox) -> None:
    mark = new_mark()
    result = run_python(sandbox, ESCAPED.format(mark=mark, seconds=60), SHORT)
    assert (result.status, result.code) == ("timeout", None)
    assert gone(mark)


def test_grandchild_does_not_outlive_the_program(sandbox: Sandbox) -> None:
    mark = new_mark()
    assert run_python(sandbox, ESCAPED.format(mark=mark, seconds=0.2)).status == "ok"
    assert gone(mark)


def test_program_without_output_channels_is_watched(sandbox: Sandbox) -> None:
    assert run_shell(sandbox, "exec >&- 2>&- <&-; sleep 60", SHORT).status == "timeout"


KILLED = """
import sys
from selfinstruct.verify.sandbox import Call, open_sandbox
box = open_sandbox("bwrap")
print("ready", flush=True)
while True:
    box.run(Call(["/bin/sh", "p.sh", "{mark}"], {{"p.sh": b"setsid sleep {mark} & sleep {mark}"}}))
"""


@pytest.mark.parametrize("wait", [0.0, 0.004, 0.012, 0.03, 0.3])
def test_nothing_outlives_us(own: Sandbox, wait: float) -> None:
    mark = new_mark()
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(mark=mark)], stdout=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(wait)
        child.kill()
    assert own.name == "bwrap"
    time.sleep(0.3)  # whoever was being started is there by now
    assert gone(mark)


def test_kill_of_everything_in_sight(sandbox: Sandbox) -> None:
    code = f"""
import os, signal
for number in (1, os.getppid(), -1, {os.getpid()}, {os.getppid()}, *range(2, 4000)):
    if number != os.getpid():
        try:
            os.kill(number, signal.SIGKILL)
        except OSError:
            pass
"""
    keeper = subprocess.Popen(["sleep", "60"])
    result = run_python(sandbox, code)
    assert result.status in {"ok", "signal"}
    assert keeper.poll() is None
    keeper.kill()
    keeper.wait()


def test_only_own_processes_are_seen(sandbox: Sandbox) -> None:
    result = run_shell(sandbox, "ls -d /proc/[0-9]*")
    assert len(result.stdout.split()) <= 4


# --- network -----------------------------------------------------------------------------------------


def test_network_to_this_machine(sandbox: Sandbox) -> None:
    abstract = f"\0selfinstruct-{secrets.token_hex(4)}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(abstract)
        local.listen()
        server.setblocking(False)
        port = server.getsockname()[1]
        code = f"""
import socket
for family, address in (
    (socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_INET, ("0.0.0.0", {port})), (socket.AF_UNIX, {abstract!r}),
):
    try:
        socket.socket(family).connect(address)
        print("REACHED")
    except OSError as error:
        print(type(error).__name__)
"""
        result = run_python(sandbox, code)
        assert result.stdout == b"ConnectionRefusedError\n" * 3
        with pytest.raises(BlockingIOError):
            server.accept()


def test_network_to_the_outside(sandbox: Sandbox) -> None:
    code = """
import socket
for address in ("192.0.2.1", "8.8.8.8", "169.254.169.254", "10.0.0.1"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            with socket.socket(socket.AF_INET, kind) as out:
                out.settimeout(3)
                out.connect((address, 53))
                print("REACHED", address)
        except OSError as error:
            print(error.strerror)
try:
    print("RESOLVED", socket.getaddrinfo("example.org", 80))
except OSError:
    print("no name")
"""
    result = run_python(sandbox, code)
    assert result.stdout == b"Network is unreachable\n" * 8 + b"no name\n"


def test_own_loopback_works(sandbox: Sandbox) -> None:
    code = """
import socket
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
print("own")
"""
    assert run_python(sandbox, code).stdout == b"own\n"


# --- files, environment, devices ---------------------------------------------------------------------

SEARCH = """
import os
names = []
for top in ({home!r}, {project!r}, {folder!r}, *"/ /root /home /run /var /mnt /proc/1/root /proc/1/cwd".split()):
    for where, folders, files in os.walk(top):
        if where == top:  # the system's own, and endless
            folders[:] = [name for name in folders if name not in ("usr", "proc", "sys", "dev")]
        names += [f"{{where}}/{{name}}" for name in files]
for name in names:
    try:
        with open(name, "rb") as file:
            text = file.read(100_000)
    except OSError:
        continue
    if b"{secret}" in text or "{secret}" in name:
        print("FOUND", name)
for number in os.listdir("/proc"):
    for name in ("environ", "cmdline"):
        try:
            with open(f"/proc/{{number}}/{{name}}", "rb") as file:
                if b"{secret}" in file.read():
                    print("FOUND", number, name)
        except OSError:
            pass
print("HOME" if os.listdir("/").count("home") or os.path.exists({project!r}) else "nothing")
print(sorted(os.environ))
"""


def test_home_environment_and_keys(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = f"sk-{secrets.token_hex(8)}"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    (tmp_path / secret).write_text(secret)
    (tmp_path / secret).chmod(0o644)
    tmp_path.chmod(0o755)
    with tempfile.NamedTemporaryFile("w", dir=Path.home(), prefix=".selfinstruct-test-") as planted:
        planted.write(secret)
        planted.flush()
        # The secret itself must not stand in the program, which the search would find.
        code = SEARCH.format(home=str(Path.home()), project=str(ROOT), folder=str(tmp_path), secret="@@")
        shifted = "".join(chr(ord(letter) + 1) for letter in secret)
        hidden = f"secret = ''.join(chr(ord(c) - 1) for c in {shifted!r})\n"
        code = code.replace('b"@@" in text or "@@" in name', "secret.encode() in text or secret in name")
        code = hidden + code.replace('b"@@"', "secret.encode()")
        result = run_python(sandbox, code)
        if not isinstance(sandbox, AsNobody):  # what is shown is found
            path, folders = python()
            shown = sandbox.run(
                Call([path, "p.py"], {"p.py": code.encode()}, folders=[*folders, str(tmp_path)])
            )
            assert f"FOUND {tmp_path}/{secret}" in shown.stdout.decode()
    assert result.stdout.decode().splitlines() == ["nothing", str(["HOME", "LANG", "PATH", "PWD", "TMPDIR"])]


def test_writing_outside(sandbox: Sandbox, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    targets = ["/x", "/usr/x", "/usr/local/x", "/etc/x", "/etc/passwd", "/bin/x", "/dev/x", "/proc/x", "/sys/x",
               "/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger",
               str(Path.home() / "x"), str(ROOT / "x"), str(tmp_path / "x"), "/proc/1/root/x", "../../x"]  # fmt: skip
    script = "\n".join(f"(echo x >{target}) 2>/dev/null && echo WROTE {target}" for target in targets)
    result = run_shell(sandbox, script + "\nrm -rf /usr/bin/env /etc/passwd 2>/dev/null\nls -d /usr/bin/env")
    assert result.stdout == b"/usr/bin/env\n"
    assert not (tmp_path / "x").exists()
    assert Path("/etc/passwd").exists()


def test_devices(sandbox: Sandbox) -> None:
    code = """
import os
for name in "mem kmem port kmsg kvm fuse vsock vda sda nvme0n1 loop0 net/tun console".split():
    try:
        os.open(f"/dev/{name}", os.O_RDONLY)
        print("OPENED", name)
    except OSError:
        pass
for mode, device in ((0o20666, os.makedev(1, 1)), (0o60666, os.makedev(8, 0))):
    try:
        os.mknod("/tmp/device", mode, device)
        print("MADE", device)
    except PermissionError:
        pass
try:
    os.open("/dev/tty", os.O_RDWR)
    print("TERMINAL")
except OSError:
    print("no terminal")
for name in ("/proc/kcore", "/proc/kmsg", "/proc/1/mem", "/proc/1/maps", "/proc/1/fd/0"):
    try:
        os.read(os.open(name, os.O_RDONLY), 10)
        print("READ", name)
    except OSError:
        pass
"""
    said = run_python(sandbox, code).stdout.decode().splitlines()
    own_init = {
        "READ /proc/1/maps",
        "READ /proc/1/fd/0",
        "READ /proc/1/mem",
    }  # a shell of ours with no more rights
    assert set(said) - own_init == {"no terminal"}


def test_no_privileges(sandbox: Sandbox) -> None:
    result = run_shell(
        sandbox, "cat /proc/self/status; su -c id; mount -t tmpfs x /tmp; id -u; ls /proc/self/fd | wc -l"
    )
    said = dict(line.split(":\t") for line in result.stdout.decode().splitlines() if ":\t" in line)
    assert {said[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")
    uid, descriptors = result.stdout.decode().split()[-2:]
    assert int(uid) >= 1000
    assert descriptors == "4"  # the three, and the one that reads the folder


def test_links_in_the_folder_lead_nowhere(tmp_path: Path) -> None:
    """Only the bare mode has a folder on this machine; removing it must not follow what was left there."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("here")
    script = f"ln -s {kept} link; ln -s {kept}/file main.txt; rmdir x; mkdir -m 0 locked; echo done"
    result = run_shell(open_bare(), script)
    assert result.stdout == b"done\n"
    assert (kept / "file").read_text() == "here"


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", ".bashrc", "", "a b", "x\0"])
def test_names_that_are_not_plain(name: str) -> None:
    with pytest.raises(ValueError, match="plain"):
        Call(["/bin/true"], {name: b""})


# --- ordinary use ------------------------------------------------------------------------------------


def test_a_program_reads_writes_and_ends(sandbox: Sandbox) -> None:
    code = "import sys\nopen('out', 'w').write('x')\nprint(input()[::-1])\nprint('bad', file=sys.stderr)\nsys.exit(3)"
    result = run_python(sandbox, code, stdin=b"abc\n")
    assert (result.status, result.code, result.stdout, result.stderr) == ("exit", 3, b"cba\n", b"bad\n")
    assert 0 < result.cpu < 5


def test_programs_are_found_by_name(sandbox: Sandbox) -> None:
    assert any(path.endswith("/sh") for path in sandbox.find("sh"))
    assert sandbox.find("no-program-of-this-name") == ()


def test_a_signal_is_told(sandbox: Sandbox) -> None:
    result = run_shell(sandbox, "kill -SEGV $$")
    assert (result.status, result.code) == ("signal", signal.SIGSEGV)


def test_input_that_nobody_reads(sandbox: Sandbox) -> None:
    assert run_shell(sandbox, "exec <&-; echo", replace(SHORT, seconds=20)).status == "ok"
    result = sandbox.run(Call(["/bin/sh", "p.sh"], {"p.sh": b"wc -c"}, b"x" * (3 * MIB)))
    assert result.stdout.strip() == str(3 * MIB).encode()
    result = sandbox.run(Call(["/bin/true"], stdin=b"x" * (3 * MIB)))
    assert result.status == "ok"


def test_many_at_once(own: Sandbox) -> None:
    with ThreadPoolExecutor(8) as workers:
        results = list(workers.map(lambda n: run_shell(own, f"sleep 0.2; echo {n}"), range(16)))
    assert [int(result.stdout) for result in results] == list(range(16))


# --- the plain process -------------------------------------------------------------------------------


def test_bare_holds_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    box = open_bare()
    assert box.name == "none"
    assert b"planted" not in run_shell(box, "env").stdout
    assert run_shell(box, "exit 3").code == 3
    assert run_shell(box, "kill -SEGV $$").status == "signal"
    assert run_shell(box, "yes", replace(LIMITS, output_bytes=1000)).status == "output"
    assert run_shell(box, "while :; do :; done", replace(LIMITS, cpu_seconds=0.3)).status == "cpu"
    mark = new_mark()
    assert run_shell(box, f"sleep {mark} & sleep {mark}", SHORT).status == "timeout"
    assert gone(mark)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what processes use")
def test_bare_counts_memory_and_processes() -> None:
    box = open_bare()
    code = "held = []\nwhile True:\n    held.append(bytearray(1 << 20))"
    assert run_python(box, code, replace(LIMITS, memory_bytes=128 * MIB)).status == "memory"
    mark = new_mark()
    script = f"for n in $(seq 30); do sleep {mark} & done; sleep {mark}"
    assert run_shell(box, script, replace(LIMITS, processes=10)).status == "processes"
    assert gone(mark)


# --- what is not there -------------------------------------------------------------------------------


def fake(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes PATH a folder with nothing in it but what is put there."""
    from selfinstruct.verify.bwrap import _path

    monkeypatch.setenv("PATH", str(tmp_path))
    _path.cache_clear()
    return functools.partial(fake, tmp_path)


def refusal(name: str) -> str:
    with pytest.raises(SandboxUnavailable) as caught:
        open_sandbox(name)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert caught.value.status == 2
    return str(caught.value)


def test_what_is_missing_is_named(only: Callable[[str, str], None]) -> None:
    assert "bwrap is not installed; install bubblewrap 0.8" in refusal("bwrap")
    assert "neither podman nor docker" in refusal("container")
    both = refusal("auto")
    assert "bwrap is not installed" in both
    assert "neither podman nor docker" in both
    for name in ("prlimit", "setpriv"):
        only(name, "exit 1")
    only("bwrap", "echo bubblewrap 0.6.1")
    assert "bubblewrap 0.6.1 is too old" in refusal("bwrap")


def test_bubblewrap_that_may_not_work(only: Callable[[str, str], None]) -> None:
    for name in ("prlimit", "setpriv"):
        only(name, "exit 1")
    only(
        "bwrap", '[ "$1" = --version ] && echo bubblewrap 0.9.0 || echo "bwrap: No permissions to create" >&2'
    )
    assert "bwrap: No permissions to create; " in refusal("bwrap")


def test_containers_are_started_with_every_limit() -> None:
    words = container_words("n", "/from", "an-image", replace(LIMITS, seconds=7), {"A": "b"})
    told = " ".join(words)
    for part in (
        "--network none", "--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", "--pull never",
        f"--memory {LIMITS.memory_bytes} --memory-swap {LIMITS.memory_bytes}", f"--pids-limit {LIMITS.processes + 4}",
        f"--ulimit fsize={LIMITS.file_bytes}", f"--ulimit cpu={LIMITS.cpu_seconds + 1:g}", "--user 65534:65534",
        f"--tmpfs /tmp:rw,exec,nosuid,nodev,size={LIMITS.disk_bytes},", "--volume /from:/in:ro", "--env A=b",
    ):  # fmt: skip
        assert part in told, part
    assert words[-1] == "an-image"
    assert "--privileged" not in words


ENGINE = """
case "$1 $2" in
"image inspect") exit 0 ;;
"rm -f") echo "$3" >{log}/removed; exit 0 ;;
esac
while [ "$1" != an-image ]; do
    case "$1" in *:/in:ro,Z) from=${{1%%:/in*}} ;; esac
    shift
done
shift
cd "$from" && shift 3 && PATH=/usr/bin:/bin && set -m && timeout -s KILL "$@" <&0 &
wait $!
"""


def test_container_engine(
    only: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the engine, which runs the program without a container: what we ask and understand."""
    only("docker", ENGINE.format(log=tmp_path))
    monkeypatch.setenv("SELFINSTRUCT_IMAGE", "an-image")
    box = open_sandbox("auto")
    assert box.name == "container"
    assert run_shell(box, "echo hi; exit 3").code == 3
    assert run_shell(box, "cat p.sh").stdout == b"cat p.sh"
    assert run_shell(box, "sleep 9", replace(LIMITS, seconds=0.5)).status == "timeout"
    assert run_shell(box, "yes", replace(LIMITS, output_bytes=1000)).status == "output"
    assert (tmp_path / "removed").read_text().startswith(f"selfinstruct-{os.getpid()}-")
    only("docker", "echo 'Cannot connect to the daemon' >&2; exit 1")
    assert refusal("container").endswith("docker does not answer: Cannot connect to the daemon")
    only("docker", "echo 'Error: No such image: an-image' >&2; exit 1")
    assert "docker has no image an-image: pull it" in refusal("container")


def test_real_container_engine() -> None:
    try:
        box = open_sandbox("container")
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    assert run_shell(box, "echo hi; exit 3").code == 3
    assert run_shell(box, "sleep 60", SHORT).status == "timeout"
    assert run_shell(box, "yes", replace(LIMITS, output_bytes=1000)).status == "output"
    reached = run_shell(box, "cat /proc/net/route | wc -l; touch /usr/x")
    assert (reached.stdout.strip(), reached.status) == (b"1", "exit")
