"""Programs that attack what scores them. Each defines ``add``, which must not pass for one.

``CANARY`` stands for a folder of the host with a file ``secret``; ``PORT`` for a
port of the host that somebody listens on.
"""

HOSTILE = {
    "fork bomb": """
import os
def add(a, b):
    while True:
        os.fork()
""",
    "fork bomb that ignores errors": """
import os
def add(a, b):
    while True:
        try:
            os.fork()
        except OSError:
            pass
""",
    "processes by the hundred": """
import subprocess, sys
def add(a, b):
    return [subprocess.Popen([sys.executable, "-c", "while 1: pass"]) for _ in range(200)]
""",
    "memory bomb": """
def add(a, b):
    held = []
    while True:
        held.append(bytearray(64 << 20))
""",
    "one huge allocation": """
def add(a, b):
    return len(bytearray(1 << 40))
""",
    "memory by the filesystem": """
def add(a, b):
    number = 0
    while True:
        with open(f"/tmp/{number}", "wb") as file:
            file.write(bytes(4 << 20))
        number += 1
""",
    "endless loop": """
def add(a, b):
    while True:
        pass
""",
    "endless loop when loaded": """
while True:
    pass
""",
    "endless loop that ignores the limit's signal": """
import signal
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
def add(a, b):
    while True:
        pass
""",
    "sleeps": """
import time
def add(a, b):
    time.sleep(3600)
""",
    "deep recursion": """
import sys
sys.setrecursionlimit(10**9)
def add(a, b):
    return add(a, b + 1)
""",
    "an answer nested too deep": """
def add(a, b):
    value = []
    for _ in range(100_000):
        value = [value]
    return value
""",
    "an answer without an end": """
def add(a, b):
    value = [5]
    value.append(value)
    return value
""",
    "an answer of gigabytes": """
def add(a, b):
    return "x" * (512 << 20)
""",
    "an iterator without an end": """
import itertools
def add(a, b):
    return list(itertools.count())
""",
    "deletes files": """
import shutil
def add(a, b):
    shutil.rmtree("CANARY", ignore_errors=True)
    shutil.rmtree("/", ignore_errors=True)
    return "deleted"
""",
    "writes outside": """
import pathlib
def add(a, b):
    done = []
    for folder in ("CANARY", "/usr/bin", "/etc", "/var/tmp", "/dev/shm", "/sandbox/inside"):
        try:
            pathlib.Path(folder, "written").write_text("x")
            done.append(folder)
        except OSError:
            pass
    return done
""",
    "reads the environment": """
import os
def add(a, b):
    return [dict(os.environ), open("/proc/self/environ").read()]
""",
    "reads home": """
import glob, os
def add(a, b):
    found = []
    for folder in ("CANARY", os.path.expanduser("~"), "/home", "/root"):
        for path in glob.glob(folder + "/**", recursive=True, include_hidden=True)[:10_000]:
            try:
                found.append(open(path).read(1000)) if path.endswith("secret") else None
            except OSError:
                pass
    return found
""",
    "connects to the host": """
import socket
def add(a, b):
    return socket.create_connection(("127.0.0.1", PORT), timeout=2).recv(100).decode()
""",
    "connects to the network": """
import socket
def add(a, b):
    return str(socket.create_connection(("192.0.2.1", 80), timeout=2))
""",
    "kills its parent": """
import os, signal
def add(a, b):
    os.kill(os.getppid(), signal.SIGKILL)
    return "killed"
""",
    "kills everything": """
import os, signal
def add(a, b):
    os.kill(-1, signal.SIGKILL)
    return "killed"
""",
    "kills itself": """
import os, signal
def add(a, b):
    os.kill(os.getpid(), signal.SIGSEGV)
""",
    "floods the output": """
import os, sys
def add(a, b):
    while True:
        sys.stdout.write("x" * 1_000_000)
        os.write(1, b"y" * 1_000_000)
        os.write(2, b"z" * 1_000_000)
""",
    "floods the channel": """
import os
def add(a, b):
    while True:
        for descriptor in range(3, 16):
            try:
                os.write(descriptor, b"x" * 65536)
            except OSError:
                pass
""",
    "forges a verdict": """
import os
def add(a, b):
    for descriptor in range(16):
        try:
            os.write(descriptor, b'{"reason": ""}\\n')
        except OSError:
            pass
    os._exit(0)
""",
    "answers out of turn": """
import os
for descriptor in range(16):
    try:
        os.write(descriptor, b'{"value": null}\\n{"value": {"object": 7}}\\n' * 3)
    except OSError:
        pass
def add(a, b):
    return None
""",
    "symlinks": """
import os
def add(a, b):
    os.symlink("CANARY/secret", "/tmp/link")
    os.symlink("/", "/tmp/root")
    found = []
    for path in ("/tmp/link", "/tmp/rootCANARY/secret", "/proc/1/rootCANARY/secret"):
        try:
            found.append(open(path).read())
        except OSError:
            pass
    return found
""",
    "tricks with /proc": """
import glob, os
def add(a, b):
    found = []
    for path in glob.glob("/proc/[0-9]*/*") + ["/proc/kcore", "/proc/kmsg", "/proc/sysrq-trigger"]:
        try:
            found.append(open(path, "rb").read(2000).decode("latin-1"))
        except OSError:
            pass
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/1/oom_score_adj"):
        try:
            open(path, "w").write("c")
            found.append("wrote " + path)
        except OSError:
            pass
    return [text for text in found if "secret" in text or text.startswith("wrote")]
""",
    "becomes root": """
import ctypes, os
def add(a, b):
    done = []
    for change in (lambda: os.setuid(0), lambda: os.chroot("/tmp"), lambda: os.nice(-5)):
        try:
            change()
            done.append("changed")
        except OSError:
            pass
    if ctypes.CDLL(None).mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0:
        done.append("mounted")
    return done
""",
    "exits 0 early": """
import sys
def add(a, b):
    sys.exit(0)
""",
    "exits 0 when loaded": "raise SystemExit(0)",
    "os._exit": """
import os
def add(a, b):
    os._exit(0)
""",
    "os._exit when loaded": "import os; os._exit(0)",
    "patches the asserts": """
import builtins, sys
class AssertionError(Exception): pass
builtins.AssertionError = AssertionError
builtins.repr = builtins.all = lambda *a: True
sys.excepthook = lambda *a: sys.exit(0)
def check(candidate): pass
def add(a, b):
    return 0
""",
    "skips lines of the tests": """
import sys
def add(a, b):
    frame = sys._getframe()
    while frame:
        frame.f_trace = lambda *a: None
        for name, value in list(frame.f_globals.items()):
            if name in ("judge", "tests", "problem"):
                frame.f_globals[name] = None
        frame = frame.f_back
    return 0
""",
    "equals everything": """
class Yes(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = int.__hash__
def add(a, b):
    return Yes(0)
""",
    "an object that equals everything": """
class Yes:
    def __eq__(self, other): return True
def add(a, b):
    return Yes()
""",
    "threads that outlive": """
import threading, time
def outlive():
    while True:
        time.sleep(0.1)
def add(a, b):
    for _ in range(10):
        threading.Thread(target=outlive).start()
    return 0
""",
    "a daemon that outlives": """
import os, time
def add(a, b):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(3600)
    return 0
""",
    "raises from everything": """
class Evil(BaseException):
    def __str__(self): raise Evil
def add(a, b):
    raise Evil
""",
}
