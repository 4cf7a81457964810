"""Files in memory: one working directory, and names without paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, Literal

from vivavoce.environments.bfcl.service import Refused, Service

Directory = dict[str, Any]
"""Name to text of a file, or to a directory."""


class FileSystem(Service):
    """A tree of files. It begins in its root, which is the first one of the configuration."""

    NAME = "GorillaFileSystem"
    DOCUMENT = "gorilla_file_system.json"

    def __init__(self, config: Mapping[str, Any]) -> None:
        name, root = next(iter((config.get("root") or {"workspace": {"contents": {}}}).items()))
        self.root = _tree(root["contents"])
        self._path = [name]

    def pwd(self) -> dict[str, str]:
        """Say where one is."""
        return {"current_working_directory": "/" + "/".join(self._path)}

    def cd(self, folder: str) -> dict[str, str]:
        """Go into a directory, or one up by ``..``."""
        if folder == "..":
            if len(self._path) == 1:
                raise Refused("there is nothing above the root")
            self._path.pop()
        elif folder != ".":
            self._directory(folder)
            self._path.append(folder)
        return self.pwd()

    def ls(self, a: bool = False) -> dict[str, list[str]]:
        """List the current directory, in the order in which its entries were made."""
        return {"current_directory_content": [name for name in self._here if a or not name.startswith(".")]}

    def find(self, path: str = ".", name: str | None = None) -> dict[str, list[str]]:
        """Name everything below whose name holds ``name``."""
        start = self._here
        for step in path.split("/"):
            if step not in ("", "."):
                start = self._directory(step, start)
        return {"matches": [p for p in _below(start) if name is None or name in p.rpartition("/")[2]]}

    def cat(self, file_name: str) -> dict[str, str]:
        """Show a file."""
        return {"file_content": self._file(file_name)}

    def tail(self, file_name: str, lines: int = 10) -> dict[str, str]:
        """Show the last lines of a file; all, if none are asked for (upstream)."""
        return {"last_lines": "\n".join(self._file(file_name).splitlines()[-lines:])}

    def grep(self, file_name: str, pattern: str) -> dict[str, list[str]]:
        """The lines that hold a text."""
        return {"matching_lines": [line for line in self._file(file_name).splitlines() if pattern in line]}

    def wc(self, file_name: str, mode: Literal["l", "w", "c"] = "l") -> dict[str, Any]:
        """Count lines, words or characters."""
        text = self._file(file_name)
        kind, counted = {"l": ("lines", text.splitlines()), "w": ("words", text.split()), "c": ("characters", text)}[
            mode
        ]
        return {"count": len(counted), "type": kind}

    def diff(self, file_name1: str, file_name2: str) -> dict[str, str]:
        """Compare line with line: ``-`` is the first file's, ``+`` the second's."""
        pairs = zip_longest(self._file(file_name1).splitlines(), self._file(file_name2).splitlines())
        unlike = [((f"- {a}", a), (f"+ {b}", b)) for a, b in pairs if a != b]
        return {"diff_lines": "\n".join(shown for pair in unlike for shown, line in pair if line is not None)}

    def sort(self, file_name: str) -> dict[str, str]:
        """Sort the lines of a file, and keep them so."""
        text = "\n".join(sorted(self._file(file_name).splitlines()))
        self._here[file_name] = text
        return {"sorted_content": text}

    def du(self, human_readable: bool = False) -> dict[str, str]:
        """Bytes of all files from here on down."""
        size = sum(map(len, _contents(self._here)))
        return {"disk_usage": f"{size} bytes" if human_readable else str(size)}

    def touch(self, file_name: str) -> dict[str, Any]:
        """Make an empty file."""
        self._new(file_name)
        self._here[file_name] = ""
        return {}

    def mkdir(self, dir_name: str) -> dict[str, Any]:
        """Make a directory."""
        self._new(dir_name)
        self._here[dir_name] = {}
        return {}

    def echo(self, content: str, file_name: str | None = None) -> dict[str, str | None]:
        """Print a text, or write it into a file that is there, in place of its content."""
        if file_name is None:
            return {"terminal_output": content}
        if not isinstance(self._here.get(_name(file_name), ""), str):
            raise Refused(f"{file_name!r} is a directory")
        if file_name not in self._here:
            raise Refused(f"there is no file {file_name!r}")
        self._here[file_name] = content
        return {"terminal_output": None}

    def rm(self, file_name: str) -> dict[str, str]:
        """Remove a file, or a directory with all that is in it."""
        self._there(file_name)
        del self._here[file_name]
        return {"result": f"{file_name!r} is removed"}

    def rmdir(self, dir_name: str) -> dict[str, str]:
        """Remove an empty directory."""
        if self._directory(dir_name):
            raise Refused(f"{dir_name!r} is not empty")
        return self.rm(dir_name)

    def mv(self, source: str, destination: str) -> dict[str, str]:
        """Move into a directory, or give another name."""
        moved = self._there(source)
        where, name = self._goal(source, destination)
        del self._here[source]
        where[name] = moved
        return {"result": f"{source!r} is moved to {self._path_text(destination, name)}"}

    def cp(self, source: str, destination: str) -> dict[str, str]:
        """Copy into a directory, or under another name."""
        copied = self._there(source)
        where, name = self._goal(source, destination)
        where[name] = copied if isinstance(copied, str) else _copy(copied)
        return {"result": f"{source!r} is copied to {self._path_text(destination, name)}"}

    @property
    def _here(self) -> Directory:
        folder = self.root
        for name in self._path[1:]:
            folder = folder[name]
        return folder

    def _there(self, name: str) -> Any:
        if name not in self._here:
            raise Refused(f"there is no {_name(name)!r} here")
        return self._here[name]

    def _file(self, name: str) -> str:
        if not isinstance(content := self._there(name), str):
            raise Refused(f"{name!r} is a directory")
        return content

    def _directory(self, name: str, start: Directory | None = None) -> Directory:
        folder = (self._here if start is None else start).get(name)
        if not isinstance(folder, dict):
            raise Refused(f"there is no directory {name!r} here")
        return folder

    def _new(self, name: str) -> None:
        if _name(name) in self._here:
            raise Refused(f"there is a {name!r} already")

    def _goal(self, source: str, destination: str) -> tuple[Directory, str]:
        """Directory and name that something is moved or copied to."""
        target = self._here.get(_name(destination))
        where, name = (target, source) if isinstance(target, dict) else (self._here, destination)
        if where is self._there(source):
            raise Refused(f"{source!r} cannot be put into itself")
        if name in where:
            raise Refused(f"there is a {name!r} already")
        return where, name

    def _path_text(self, destination: str, name: str) -> str:
        return f"'{destination}/{name}'" if name != destination else f"{name!r}"


def _name(name: str) -> str:
    """The name, if it is one and no path."""
    if "/" in name or name in ("", ".", ".."):
        raise Refused(f"{name!r} is no name of something here; paths are not allowed")
    return name


def _tree(contents: Mapping[str, Any]) -> Directory:
    return {
        name: _tree(node["contents"]) if node["type"] == "directory" else node["content"]
        for name, node in contents.items()
    }


def _below(directory: Directory) -> Iterator[str]:
    for name, node in directory.items():
        yield name
        if isinstance(node, dict):
            yield from (f"{name}/{path}" for path in _below(node))


def _contents(directory: Directory) -> Iterator[bytes]:
    for node in directory.values():
        if isinstance(node, dict):
            yield from _contents(node)
        else:
            yield node.encode()


def _copy(directory: Directory) -> Directory:
    return {name: _copy(node) if isinstance(node, dict) else node for name, node in directory.items()}


__all__ = ["FileSystem"]
