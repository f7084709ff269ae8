"""How many CPUs' time the process may use: what a container's quota leaves of the machine's cores (Linux)."""

import math
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
SELF = Path("/proc/self/cgroup")


def cpu_quota(membership: Path = SELF, root: Path = ROOT) -> float:
    """The CPUs' time that the process's control groups allow it, in CPUs; infinite where nothing bounds it."""
    if not membership.exists():
        return math.inf
    lines = [line.split(":", 2) for line in membership.read_text().splitlines() if line.count(":") >= 2]
    return min(
        (_of_group(group) for _, controllers, path in lines for group in _groups(root, controllers, path)),
        default=math.inf,
    )


def _groups(root: Path, controllers: str, path: str) -> Iterator[Path]:
    """The directories of a group and of those that it is in; a container may see its own as the root."""
    if controllers and "cpu" not in controllers.split(","):
        return
    for start in (root / controllers, root / "cpu") if controllers else (root,):
        group = start / path.lstrip("/")
        yield from (each for each in (group, *group.parents) if each == start or start in each.parents)


def _of_group(group: Path) -> float:
    """What one group allows: by version 2 of Linux's control groups, or by version 1."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return math.inf if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):  # there is none, or it is another's to read
        return math.inf
