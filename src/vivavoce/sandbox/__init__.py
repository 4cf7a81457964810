"""A sandbox that runs unread programs, one process each, and lets nothing of them out or live on.

::

    caller ── Sandbox ── jail (one for each core) ──fork── program      new process, limits, filter of system calls
                              └ process 1 of a space of its own: no other file, process or network is there

There are two levels, found out once; without the second no program is run.

    ``namespaces``  A root of its own (Python's library, read-only, and an empty folder in memory), a process space
                    of its own, no network, no privilege on the machine, whatever the filter would miss.
    ``filter``      If the kernel gives a user no namespaces: the filter alone. No file can be opened at all, so
                    programs import only what is loaded already.

At both, a program starts no process and no thread, opens no socket, and signals and traces no process. It is killed
when its CPU or wall time, its output or its memory is used up, or when the caller dies. The jail imports this file too,
so it imports nothing heavy.
"""
