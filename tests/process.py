"""What the kernel says of a process."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Health:
    """Resident memory, threads and open sockets."""

    kibibytes: int
    threads: int
    sockets: int

    @classmethod
    def of(cls, pid: int) -> "Health":
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        descriptors = [path for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
        links = [str(path.readlink()) for path in descriptors]
        return cls(
            kibibytes=int(status["VmRSS"].split()[0]),
            threads=int(status["Threads"]),
            sockets=sum(link.startswith("socket:") for link in links),
        )
