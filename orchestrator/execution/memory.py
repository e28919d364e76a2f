"""Read from the words of Ray whether memory ran out, and how full the node was then."""

import re

_NO_MEMORY = re.compile(r"low on memory|out.?of.?memory|\bOOM\b|memory usage threshold", re.I)
# what Ray says of each death, whatever its cause: "(1) the process was killed by the OOM killer"
_GUESSES = re.compile(r"Some common causes include:[^\n]*")
# of Ray 2.60's message
_MEMORY_USED = re.compile(r"was ([\d.]+) ?GB used / ([\d.]+) ?GB limit")


def tells_of_memory(message: str) -> bool:
    """Return whether a message of Ray says that its memory monitor has killed a process. What Ray
    lists as common causes of a death says nothing of this one."""
    return _NO_MEMORY.search(_GUESSES.sub("", message)) is not None


def memory_in_words(message: str, length: int = 500) -> str:
    """Return how full a node was when Ray's memory monitor killed a process, from its message; or
    the message itself, cut, where it does not tell."""
    found = _MEMORY_USED.search(message)
    if found is None:
        return " ".join(message.split())[:length]
    return f"{found[1]} of {found[2]} GB of its node were used"
