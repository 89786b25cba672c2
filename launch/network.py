"""The network that the workers on this machine have.

TensorFlow's server of a worker listens on all interfaces, whatever address TF_CONFIG has, and asks nobody for a
password: `GrpcServer::Init` in tensorflow/core/distributed_runtime/rpc/grpc_server_lib.cc binds 0.0.0.0. So the workers
get a network namespace of their own, which has the loopback interface and nothing else.
"""

import ctypes
import errno
import fcntl
import os
import pathlib
import socket
import struct

from launch.trainer_flags import TrainerFlags

# From linux/sched.h, linux/if.h and linux/sockios.h.
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1

# Ratings that TensorFlow Datasets downloads, as configs/default.py explains.
_MOVIELENS = "movielens/"


def reason_to_share(flags: TrainerFlags) -> str:
    """Returns the flag or field for which a run needs the network, such as `--workdir=gs://BUCKET/run`; "" if none."""
    data, split = flags.config.data, flags.config.split
    for name, value in {
        "--workdir": flags.workdir or os.environ.get("AIP_MODEL_DIR", ""),
        "config.data.source": data.source,
        "config.data.data_dir": data.data_dir,
        "config.split.validation_source": split.validation_source,
        "config.split.test_source": split.test_source,
    }.items():
        if "://" in value or value.startswith(_MOVIELENS):
            return f"{name}={value}"
    return ""


def leave() -> None:
    """Moves this process to a network of its own, and with it the processes that it starts from now on.

    The user and the files stay the same. A process with other threads cannot do it.

    Raises:
      OSError: this machine does not allow it. Nothing has changed.
    """
    # Some machines allow the first part only, after which there is no way back. So a child tries it first.
    child = os.fork()
    if not child:
        code = errno.EIO
        try:
            _leave()
            code = 0
        except OSError as error:
            code = error.errno or errno.EIO
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise OSError(code, os.strerror(code))
    _leave()


def _leave() -> None:
    user, group = os.geteuid(), os.getegid()
    try:
        _unshare(_CLONE_NEWNET)
    except PermissionError:
        # Whoever is not root may do it in a user namespace, in which users keep their numbers.
        _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        pathlib.Path("/proc/self/setgroups").write_text("deny")
        pathlib.Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        pathlib.Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _unshare(namespaces: int) -> None:
    # os.unshare is new in Python 3.12.
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if unshare(namespaces):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
