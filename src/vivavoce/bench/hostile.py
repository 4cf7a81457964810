"""Programs that try to get out of the sandbox, to outlive it, or to use up the machine: its benchmark.

In each, ``OUTSIDE`` is a folder that any process of the user may write to and that holds the file ``secret``, a server
listens at ``PORT`` and ``SOCKET``, and ``PID`` is the process that started the sandbox.
"""

from __future__ import annotations

import textwrap

_SYSCALL = "import ctypes, os; call = ctypes.CDLL(None, use_errno=True).syscall\n"
_DETACHED = (
    "for child in range(3):\n"
    " try:\n"
    "  if os.fork() == 0:\n"
    "   os.setsid()\n"
    "   if os.fork() == 0:\n"
    "    while True: time.sleep(1); open(OUTSIDE + '/alive', 'a').write('x')\n"
    "   os._exit(0)\n"
    " except OSError: pass\n"
)

PROGRAMS: dict[str, str] = {
    # processes and threads
    "fork bomb": "import os\nwhile True: os.fork()",
    "fork bomb that ignores refusals": "import os\nwhile True:\n try: os.fork()\n except OSError: pass",
    "thread bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
    "daemon, forked twice": "import os, time\n" + _DETACHED,
    "subprocess": "import subprocess\nsubprocess.Popen(['/bin/sleep', '1000'], start_new_session=True)",
    "shell": "import os\nassert os.system('sleep 1000 &') == 0, 'no shell'",
    "program in place of this one": "import os\nos.execv('/bin/sleep', ['sleep', '1000'])",
    "vfork by number": _SYSCALL + "assert call(58) >= 0, 'refused'\nimport time; time.sleep(99)",
    "clone by number": _SYSCALL + "assert call(56, 17, 0, 0, 0, 0) >= 0, 'refused'\nimport time; time.sleep(99)",
    "clone3 by number": _SYSCALL + "assert call(435, ctypes.create_string_buffer(88), 88) >= 0, 'refused'",
    "multiprocessing": "import multiprocessing\nmultiprocessing.Process(target=print).start()",
    # time
    "sleep": "import time\ntime.sleep(10_000)",
    "busy loop": "while True: pass",
    "busy loop that ignores signals": (
        "import signal\nfor s in range(1, 65):\n try: signal.signal(s, signal.SIG_IGN)\n"
        " except (OSError, ValueError): pass\nwhile True: pass"
    ),
    "loop that catches everything": "while True:\n try:\n  while True: pass\n except BaseException: pass",
    "stopped process": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "raise to oneself": "import signal\nsignal.raise_signal(signal.SIGSTOP)\nimport time; time.sleep(99)",
    "regular expression that backtracks": "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')",
    "power tower": "x = 9 ** 9 ** 9",
    "reading what never comes": "import sys, os\nr, w = os.pipe()\nos.read(r, 1)",
    "finaliser without end": "class A:\n def __del__(self):\n  while True: pass\na = A()\ndel a",
    "exception whose text takes for ever": ("class E(Exception):\n def __str__(self):\n  while True: pass\nraise E"),
    # memory
    "list without end": "x = []\nwhile True: x.append('x' * 100_000)",
    "one large block": "x = bytearray(1 << 40)",
    "large number": "x = 1 << (1 << 36)",
    "decompression bomb": (
        "import zlib\nc = zlib.compress(bytes(1 << 26))\nx = []\nwhile True: x.append(zlib.decompress(c))"
    ),
    "decompression bomb in layers": (
        "import zlib\nd = bytes(1 << 24)\nfor _ in range(3): d = zlib.compress(d)\n"
        "x = [zlib.decompress(zlib.decompress(zlib.decompress(d))) for _ in range(10**6)]"
    ),
    "memory mapped by number": (
        _SYSCALL + "n = 0\nwhile call(9, 0, ctypes.c_long(1 << 28), 3, 0x22, -1, 0) > 0:\n n += 1\n assert n < 64, n"
    ),
    "memory file": _SYSCALL + "assert call(319, b'x', 0) >= 0, 'refused'",
    "deep recursion": "def f(): return f()\nf()",
    "recursion without a limit": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
    "nested source": "eval('(' * 100_000 + ')' * 100_000)",
    "crash": "import ctypes\nctypes.string_at(0)",
    # output
    "output without end": "while True: print('x' * 1000)",
    "errors without end": "import os\nwhile True: os.write(2, b'x' * 65536)",
    "one long line": "import sys\nsys.stdout.write('x' * (1 << 28))",
    "report without end": "import os\nwhile True: os.write(3, b'x' * 65536)",
    # files
    "file outside": "open(OUTSIDE + '/written', 'w').write('x')",
    "file outside by number": (
        _SYSCALL + "f = call(257, -100, (OUTSIDE + '/written').encode(), 0o1102, 0o600)\nassert f >= 0, 'refused'"
    ),
    "files in the system": (
        "import os\nfor d in ('/tmp', '/var/tmp', '/dev/shm', '/etc', '/root', '/home', '/usr/lib', '/lib'):\n"
        " try: open(d + '/viva-written', 'w').write('x'); open(OUTSIDE + '/written', 'w')\n"
        " except OSError: pass\nassert not any(os.path.exists(d + '/viva-written') for d in ('/tmp', '/usr/lib'))"
    ),
    "library poisoned for the next": (
        "import os\nlib = os.path.dirname(os.__file__)\nopen(lib + '/viva_poison.py', 'w').write('x = 1')"
    ),
    "removal outside": "import os\nos.remove(OUTSIDE + '/secret')",
    "link to outside": "import os\nos.symlink(OUTSIDE + '/secret', 'link'); print(open('link').read())",
    "secret file": "print(open(OUTSIDE + '/secret').read())",
    "secret by another way up": "print(open('/..' * 30 + OUTSIDE + '/secret').read())",
    "environment of the starter": "print(open(f'/proc/{PID}/environ').read())",
    "environment of one's own": "import os\nprint(os.environ['VIVA_SECRET'])",
    "memory of the parent": "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb+').write(b'x')",
    "disk filled": "n = 0\nwhile True:\n open(f'f{n}', 'wb').write(bytes(1 << 20)); n += 1",
    "one file without end": "f = open('f', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "empty files without end": "n = 0\nwhile True: open(f'f{n}', 'w').close(); n += 1",
    "folders without end": "import os\nwhile True: os.mkdir('d'); os.chdir('d')",
    "open files without end": "import os\nx = []\nwhile True: x.append(os.dup(0))",
    "mount": _SYSCALL + "assert call(165, b'none', b'/', b'tmpfs', 0, 0) == 0, 'refused'",
    "another root": _SYSCALL + "assert call(161, b'..') == 0, 'refused'",
    "namespaces of one's own": _SYSCALL + "assert call(272, 0x10000000) == 0, 'refused'",
    # network
    "connection": "import socket\nsocket.create_connection(('127.0.0.1', PORT), 1).send(b'x')",
    "connection by number": (
        _SYSCALL + "import struct\ns = call(41, 2, 1, 0)\nassert s >= 0, 'refused'\n"
        "call(42, s, struct.pack('=HH4s8x', 2, ((PORT & 255) << 8) | PORT >> 8, bytes([127, 0, 0, 1])), 16)"
    ),
    "local socket": "import socket\ns = socket.socket(socket.AF_UNIX); s.connect(SOCKET); s.send(b'x')",
    "server": "import socket\ns = socket.socket(); s.bind(('', 0)); s.listen(); s.accept()",
    "io_uring": _SYSCALL + "assert call(425, 8, ctypes.create_string_buffer(120)) >= 0, 'refused'",
    # other processes
    "kill everything": "import os\nos.kill(-1, 9)",
    "kill everything by number": _SYSCALL + "assert call(62, -1, 9) == 0, 'refused'",
    "kill the parent": "import os\nos.kill(os.getppid(), 9)",
    "kill the starter": "import os\nos.kill(PID, 9)",
    "kill the group": "import os\nos.killpg(0, 9)",
    "signal by another call": _SYSCALL + "assert call(234, os.getppid(), os.getppid(), 9) == 0, 'refused'",
    "trace the parent": _SYSCALL + "assert call(101, 16, os.getppid(), 0, 0) == 0, 'refused'",
    "be traced": _SYSCALL + "assert call(101, 0, 0, 0, 0) == 0, 'refused'",
    "read another's memory": (
        _SYSCALL + "b = ctypes.create_string_buffer(64)\n"
        "v = (ctypes.c_size_t * 2)(ctypes.addressof(b), 64)\n"
        "assert call(310, os.getppid(), v, 1, v, 1, 0) >= 0, 'refused'"
    ),
    # limits and the filter
    "limits lifted": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "no longer killed with the parent": _SYSCALL + "assert call(157, 1, 0, 0, 0, 0) == 0, 'refused'",
    "call by another machine's number": (
        "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\n"
        "m.write(bytes.fromhex('b802000000cd80c3'))\n"  # i386's fork through int 0x80
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()"
    ),
    "keys of the kernel": _SYSCALL + "assert call(250, 0, -3, 1) >= 0, 'refused'",
    "program for the kernel": _SYSCALL + "assert call(321, 0, 0, 0) >= 0, 'refused'",
    # the grade
    "end with success": "import os\nos._exit(0)",
    "exit": "import sys\nsys.exit(0)",
    "report closed": "import os\nos.close(3)",
    "report forged": (
        "import json, os\nos.write(3, json.dumps({'token': '', 'ended': 'passed', 'detail': ''}).encode())\nos._exit(0)"
    ),
    "nothing": "",
}
"""Programs by what each tries. The calls by number are x86_64's; on other machines they are other calls, which must
be refused too.
"""


def hostile(name: str, outside: str, port: int, socket: str, pid: int) -> str:
    """The program of that name, told what lies outside."""
    constants = f"OUTSIDE, PORT, SOCKET, PID = {outside!r}, {port}, {socket!r}, {pid}\n"
    return constants + textwrap.dedent(PROGRAMS[name])


__all__ = ["PROGRAMS", "hostile"]
