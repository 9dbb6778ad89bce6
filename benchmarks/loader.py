"""What a training loop asks of its files, without a framework: workers that load batches ahead, a loop that computes.

Run by training.py as a program of its own: JSON on standard input, JSON on standard output. Like torch's DataLoader,
each worker has its own queue of tasks, batch n belongs to worker n modulo their number, results are taken in order,
each epoch has new workers, and every worker is given `ahead` batches before the first is taken.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from multiprocessing.connection import Connection


def work(pipe: Connection, directory: str, size: int) -> None:
    """Load batches until told to end. The batch stays here: shared memory would carry it at no cost to the loop."""
    while names := pipe.recv():
        for name in names:
            with open(os.path.join(directory, name), "rb", buffering=0) as file:
                left = size
                while left:
                    left -= len(file.read(left)) or sys.exit(f"{name} is short")
        pipe.send(len(names))


def epoch(batches: list[list[str]], plan: dict) -> dict:
    """Give the epoch's seconds, those of the first batch, and AU: the share of the time in which the loop computed."""
    context = multiprocessing.get_context("fork")
    pipes, children = [], []
    started = time.perf_counter()
    for _ in range(plan["workers"]):
        ours, theirs = context.Pipe()
        child = context.Process(target=work, args=(theirs, plan["directory"], plan["size"]), daemon=True)
        child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    tasks = [(pipes[number % len(pipes)], batch) for number, batch in enumerate(batches)]
    given = len(pipes) * plan["ahead"]
    for pipe, batch in tasks[:given]:
        pipe.send(batch)
    first = 0.0
    for number, (pipe, batch) in enumerate(tasks):
        assert pipe.recv() == len(batch)
        first = first or time.perf_counter() - started
        if number + given < len(tasks):
            tasks[number + given][0].send(tasks[number + given][1])
        time.sleep(plan["compute"])
    seconds = time.perf_counter() - started
    for pipe, child in zip(pipes, children, strict=True):
        pipe.send([])
        child.join()
    return {"seconds": seconds, "first batch": first, "au": len(batches) * plan["compute"] / seconds}


def main() -> None:
    plan = json.load(sys.stdin)
    exec(plan["prelude"], {})  # noqa: S102 -- the lines by which the DagsHub client's hooks are installed
    print(json.dumps([epoch(batches, plan) for batches in plan["epochs"]]))


if __name__ == "__main__":
    main()
