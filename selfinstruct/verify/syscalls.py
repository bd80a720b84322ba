"""The system call filter of the sandbox: a seccomp program, as bytes. Nothing is loaded here.

The sandbox's namespaces and limits hold most things. The filter takes away what they do not hold:

- memory that belongs to no process, which nothing here could count: memfd, System V memory and messages;
- new namespaces, in which a program could mount and fill file systems of its own;
- sockets of families that know no network namespace (a virtual machine's line to its host), or that
  are only good for attacks;
- interfaces of the kernel that answer for the whole machine (keys, performance counters, BPF), or with a
  long history of holes (io_uring, userfaultfd), and looking into other processes.
"""

from __future__ import annotations

import struct

# AUDIT_ARCH_* of linux/audit.h, then the numbers of the calls (asm/unistd_64.h, asm-generic/unistd.h).
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_NUMBERS = {
    "ptrace": (101, 117), "syslog": (103, 116), "shmget": (29, 194), "msgget": (68, 186),
    "pivot_root": (155, 41), "chroot": (161, 51), "mount": (165, 40), "umount2": (166, 39), "kexec_load": (246, 104),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "unshare": (272, 97),
    "perf_event_open": (298, 241), "open_by_handle_at": (304, 265), "setns": (308, 268),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "memfd_create": (319, 279),
    "bpf": (321, 280), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "pidfd_getfd": (438, 438), "mount_setattr": (442, 442), "memfd_secret": (447, 447),
}  # fmt: skip
_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)
_NEW_NAMESPACE = 0x7E020000  # CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_X32 = 0x40000000  # calls of the x32 interface carry this bit

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97
_NUMBER, _MACHINE, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; the first argument's low half

MACHINES = frozenset(_MACHINES)


def make_filter(machine: str) -> bytes:
    """The filter as an array of `struct sock_filter`, which is what `bwrap --seccomp` reads.

    Args:
        machine: one of `MACHINES`, as `platform.machine()` names it.

    Returns:
        A classic BPF program. A denied call returns an error to the program; a call by another
        architecture's numbers ends it.
    """
    audit, column = _MACHINES[machine]
    steps: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    for numbers in _NUMBERS.values():
        steps += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    # clone3 keeps its flags in memory, where a filter cannot look: "not there" makes libraries use clone.
    steps += [(_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    steps += [
        (_EQUAL, 0, 4, _CLONE[column]),
        (_LOAD, 0, 0, _ARGUMENT),
        (_ANY_BIT, 0, 1, _NEW_NAMESPACE),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    steps += [(_EQUAL, 1, 0, _SOCKET[column]), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, _ARGUMENT)]
    for family in _FAMILIES:
        steps += [(_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW)]
    steps += [(_RETURN, 0, 0, _ERRNO | _EAFNOSUPPORT)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
