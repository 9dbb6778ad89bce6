"""How busy an accelerator would be: batches with a fixed compute time, loaded ahead by workers, in shuffled order.

    .venv/bin/python benchmarks/accelerator.py [--rounds 3] [--workers 4] [--mbps 400] [--latency-ms 20] [--share 1]

Prints a Markdown table of AU (accelerator utilisation: compute time of all batches / time of the epoch), of a first
epoch with an empty cache and of the second, with other shuffling, in the same mount. No GPU is needed: the loop
sleeps. What the link allows is reckoned from the time that the bare link (curl) takes for all samples in the same run.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from charts import Chart, bars
from contenders import HOOKED, KERNEL, LIBFUSE, LINK, LOCAL, RCLONE, Contender, Ground, present
from measuring import Place, drop_caches, may_drop_caches, medians, run_program, say, shuffled, workplace
from report import Table, show
from repositories import images, plain_copy
from support.hubs import hub

AHEAD = 2  # batches that each worker loads before they are asked for, as torch's prefetch_factor has it
LOADER = Path(__file__).parent / "loader.py"


@dataclass(frozen=True)
class Samples:
    """`compute`: seconds of a batch, such that an accelerator wants two thirds of what 400 Mbit/s carry."""

    name: str
    files: int
    size: int
    batch: int
    compute: float

    def link_au(self, transfer: float) -> float:
        """Give the AU when `transfer` seconds bring all samples: only the first batch is waited for, or all are."""
        batches = self.files / self.batch
        compute = batches * self.compute
        return compute / max(compute + transfer / batches, transfer + self.compute)


KINDS = (
    Samples("images of 100 KB, batches of 32, 100 ms each", 1600, 100_000, 32, 0.1),
    Samples("samples of 8 MB, batches of 4, 1 s each", 48, 8_000_000, 4, 1.0),
)


@dataclass(frozen=True)
class Loop:
    """A training loop over samples of these names."""

    samples: Samples
    names: list[str]
    workers: int

    def run(self, place: Place, seed: int) -> list[dict[str, float]]:
        """Run two epochs; give the figures of each."""
        orders = [shuffled(self.names, 2 * seed + number) for number in range(2)]
        step = self.samples.batch
        batches = [[order[i : i + step] for i in range(0, len(order), step)] for order in orders]
        plan = {"directory": str(place.path), "prelude": place.prelude, "workers": self.workers, "ahead": AHEAD}
        plan |= {"size": self.samples.size, "compute": self.samples.compute, "epochs": batches}
        printed = run_program(LOADER.read_text(), [], json.dumps(plan), place.full_environment())
        figures: list[dict[str, float]] = json.loads(printed)
        return figures


def one_round(contender: Contender, ground: Ground, loop: Loop, seed: int) -> list[float]:
    """Give AU of the first and second epoch, and the seconds until the first batch of the first."""
    say(f"{contender.name}: {loop.samples.name}")
    with workplace(ground.scratch) as keep, contender.enter(ground, Path(keep)) as place:
        if contender is LOCAL and may_drop_caches():
            drop_caches()
        first, second = loop.run(place, seed)
    return [first["au"], second["au"], first["first batch"]]


def link_seconds(ground: Ground, loop: Loop) -> float:
    """Give how long the bare link takes for all samples."""
    with LINK.enter(ground, ground.scratch) as place:
        return place.epoch(loop.names, size=loop.samples.size)


def measure(
    rounds: int = 3, workers: int = 4, mbps: float = 400, latency_ms: float = 20, share: int = 1
) -> dict[str, Any]:
    """`share`: one of how many of the files is there, for a quick look."""
    contenders, left_out = present((LOCAL, KERNEL, LIBFUSE, RCLONE, HOOKED))
    rate = mbps * 1e6 / 8
    found: dict[str, Any] = {}
    for kind in KINDS:
        samples = Samples(**(asdict(kind) | {"files": kind.files // share}))
        with workplace() as name:
            names = images(Path(name) / "samples", samples.files, samples.size)
            plain = plain_copy(Path(name) / "samples", Path(name) / "plain", names, samples.size)
            loop = Loop(samples, names, workers)
            with hub(Path(name) / "samples", latency=latency_ms / 1000, bandwidth=rate) as url:
                ground = Ground(url, plain, Path(name))
                link = None if LINK.missing else samples.link_au(link_seconds(ground, loop))
                rows = {
                    one.name: medians(one_round(one, ground, loop, seed) for seed in range(rounds))
                    for one in contenders
                }
        found[f"{samples.files:,} {samples.name}"] = {"rows": rows, "link": link}
    what = f"{workers} workers, {AHEAD} batches ahead each, {mbps:g} Mbit/s, {latency_ms:g} ms, median of {rounds}"
    return {"kinds": found, "contenders": [one.name for one in contenders], "left out": left_out, "what": what}


def tables(figures: dict[str, Any]) -> list[Table]:
    who, rows = figures["contenders"], []
    for kind, found in figures["kinds"].items():
        for number, epoch in enumerate(("first epoch", "second epoch")):
            link = f"{found['link']:.0%}" if number == 0 and found["link"] else "-"
            rows.append([f"{kind}: {epoch}", link, *(f"{found['rows'][one][number]:.0%}" for one in who)])
        rows.append(["seconds until its first batch", "-", *(f"{found['rows'][one][2]:.2f}" for one in who)])
    head = [f"AU; {figures['what']}", "the link allows", *who]
    return [Table("training", "make bench PARTS=accelerator", head, rows, figures["left out"])]


def draw(figures: dict[str, Any], directory: Path) -> None:
    groups, limits, series = [], [], {one: [] for one in figures["contenders"]}
    for kind, found in figures["kinds"].items():
        for number, epoch in enumerate(("first epoch", "second epoch")):
            groups.append(f"{kind.split(', batch')[0]}, {epoch}")
            limits.append(100 * found["link"] if number == 0 and found["link"] else None)
            for one, values in series.items():
                values.append(100 * found["rows"][one][number])
    title = f"Share of the time that an accelerator works: {figures['what']}"
    bars(Chart(directory / "training.png", title, "AU, %", log=False), groups, series, limits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--mbps", type=float, default=400)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--share", type=int, default=1, help="one of how many files is there")
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
