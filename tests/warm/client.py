"""Stands for Python where a test starts one: a process of tests/warm/server.py runs the program.

It passes on its words, variables, folder and open files, then every signal, and ends as the program does. With it the
program ends, and it ends with the process that started it. What the server does not run is left to Python.
"""

import _thread
import json
import os
import signal
import socket
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = os.readlink(os.path.join(HERE, "real"))
#: Python's own options that may stand before the program, and those with which it is `-c CODE` or `-m MODULE`.
OPTIONS, PROGRAM = ("-P", "-u"), ("-c", "-m")
PASSED_ON = {number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)} & {
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
}


def is_warm(words: list[str]) -> bool:
    """Whether the server can run these: one of our modules, or code. Ray starts programs of its own by Python."""
    rest = [word for word in words if word not in OPTIONS]
    options = words[: len(words) - len(rest)]
    if set(options) - set(OPTIONS) or len(rest) < 2 or rest[0] not in PROGRAM:
        return False
    if rest[0] == "-m":
        return rest[1].startswith("glus.") and "prepare" not in rest[2:3]
    return "resource_tracker" not in rest[1]


def main() -> None:
    words, starter = sys.argv[1:], os.getppid()
    if not is_warm(words):
        os.execv(PYTHON, [PYTHON, *words])
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    files = sorted(number for number in map(int, os.listdir("/proc/self/fd")) if _is_open(number))
    asked = {
        "words": words,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "files": files,
        "mask": sorted(map(int, mask)),
        "executable": os.path.join(HERE, "python"),
    }
    server = socket.socket(socket.AF_UNIX)
    server.connect(os.path.join(HERE, "socket"))
    text = json.dumps(asked).encode()
    socket.send_fds(server, [len(text).to_bytes(8, "big")], files)
    server.sendall(text)
    answers = server.makefile("r")
    process = int(answers.readline())

    def pass_on() -> None:
        while os.getppid() == starter:
            if found := signal.sigtimedwait(PASSED_ON, 0.2):
                if found.si_pid == starter:  # to the program it comes from its parent, too
                    server.sendall(found.si_signo.to_bytes(1, "big"))
                else:
                    os.kill(process, found.si_signo)
        os._exit(1)

    _thread.start_new_thread(pass_on, ())
    code = int(answers.readline() or -signal.SIGKILL)
    if code < 0:  # the signal that ended it
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [-code])
        os.kill(os.getpid(), -code)
    os._exit(code)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


main()
