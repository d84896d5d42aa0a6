"""How fast the review pages answer with a long worklist, and whether many readers at once get what they ask for.

    OMP_NUM_THREADS=1 python benchmarks/review_speed.py [--cases 10000] [--readers 30]

Drawn studies, a server in a process of its own on loopback, readers in threads. Aims: the worklist within 100 ms
(95th percentile), a case's first picture within 300 ms, a picture from the cache within 30 ms, no error.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from meta_dx.cohort.catalog import Catalog  # noqa: E402 # after the path
from meta_dx.cohort.ingest import ingest_folder  # noqa: E402
from meta_dx.dicom.phantom.volumes import write_volume_phantom  # noqa: E402
from meta_dx.home import Home  # noqa: E402
from meta_dx.records.cases import NewCase  # noqa: E402
from meta_dx.review.desk import Desk  # noqa: E402
from meta_dx.steps.review import case_of  # noqa: E402
from tests.review.serving import PASSWORD, serve, sign_in  # noqa: E402


def prepare(folder: Path, cases: int, readers: int) -> tuple[Path, list[str]]:
    """Make a home with a few real studies among many cases; return it and the cases that have pictures."""
    write_volume_phantom(folder / "studies", patients=3)
    home = Home.open(folder / "home")
    ingest_folder(home, folder / "studies")
    desk = Desk(home)
    studies = Catalog(home).studies()
    real = [case_of(row) for row in studies.to_dict("records")]
    drawn = [
        NewCase(f"2.25.{n}", f"P{n}", "b0001", "CR", "CHEST", "F", 50.0, None, 1, 1)
        for n in range(cases - len(real))
    ]
    desk.cases.add([*real, *drawn])
    for number in range(readers):
        desk.accounts.add(f"reader{number}", "reader", password=PASSWORD, must_change=False)
    return home.root, [case.study for case in real]


def signed_in(address: str, number: int) -> httpx2.Client:
    """Return a browser of one reader."""
    client = httpx2.Client(base_url=address, timeout=60, headers={"accept": "text/html"})
    if sign_in(client, f"reader{number}").status_code != 303:
        raise RuntimeError("a reader could not sign in")
    return client


def timed(work: Callable[[], httpx2.Response]) -> float:
    """Return the milliseconds of a request that must succeed."""
    begun = time.perf_counter()
    answer = work()
    answer.raise_for_status()
    return 1000 * (time.perf_counter() - begun)


def told(name: str, times: list[float]) -> None:
    """Print median and 95th percentile."""
    middle, most = np.percentile(times, [50, 95])
    sys.stdout.write(f"{name:44} {middle:7.0f} ms median {most:7.0f} ms p95   ({len(times)} requests)\n")


def one_reader(client: httpx2.Client, studies: list[str]) -> None:
    """Time what one reader waits for."""
    views = [
        "/worklist",
        "/worklist?page=150",
        "/worklist?search=chest",
        "/worklist?view=done",
        "/worklist?modality=CR",
    ]
    told("worklist, 10,000 cases", [timed(lambda v=view: client.get(v)) for view in views * 12])
    first, again = [], []
    for study in studies[:12]:
        client.get(f"/cases/{study}")
        begun = time.perf_counter()
        series = client.get(f"/cases/{study}/images").json()["studies"][0]["series"]
        frames = [frame["url"] for frame in series[0]["frames"]]
        client.get(frames[len(frames) // 2]).raise_for_status()
        first.append(1000 * (time.perf_counter() - begun))
        for url in frames:
            client.get(url)
        again += [timed(lambda u=url: client.get(u)) for url in frames]
    told("description and first picture of a case", first)
    told("a picture from the server's cache", again)


def many_readers(address: str, readers: int, rounds: int) -> None:
    """Let readers ask at once; every answer must be right."""
    clients = [signed_in(address, number) for number in range(readers)]
    times: list[float] = []
    faults: list[str] = []

    def read(client: httpx2.Client) -> None:
        for _ in range(rounds):
            try:
                times.append(timed(lambda: client.get("/worklist")))
                times.append(timed(lambda: client.get("/next", follow_redirects=True)))
            except Exception as fault:
                faults.append(repr(fault))

    threads = [threading.Thread(target=read, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told(f"{readers} readers at once, worklist and next case", times)
    sys.stdout.write(f"faults: {len(faults)} {faults[:3]}\n")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--readers", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        home, studies = prepare(Path(folder), asked.cases, asked.readers)
        queue = context.Queue()
        server = context.Process(target=serve, args=(home, queue), daemon=True)
        server.start()
        address = queue.get(timeout=120)
        one_reader(signed_in(address, 0), studies)
        many_readers(address, asked.readers, asked.rounds)
        server.terminate()


if __name__ == "__main__":
    main()
