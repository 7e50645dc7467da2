"""What people said of CIFAR-10's test images: CIFAR-10H, about 51 answers for each.

J. Peterson et al., "Human uncertainty makes classification more robust", ICCV 2019 (arXiv 1908.07086). The labels are
CC BY-NC-SA 4.0: read from $CIFAR10H_ROOT, or fetched from the authors' repository, and no part of this one.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pooch

NAME = "cifar10h-probs.npy"
COMMIT = "48da312b193b82e6939ec20f23d1f09cbdd849c8"
ADDRESS = f"https://raw.githubusercontent.com/jcpeterson/cifar-10h/{COMMIT}/data/{NAME}"
SHA256 = "436ae98620e00073f9d08585ac870573b588853e7af9f54eb1647408114af77d"


def answers(*, download: bool = True) -> np.ndarray | None:
    """(10000, 10) float64: the share of people who said each class, in the order of the test images.

    None, with a line that says why, where it is neither in $CIFAR10H_ROOT nor to be had.
    """
    root = os.environ.get("CIFAR10H_ROOT")
    pooch.get_logger().setLevel("WARNING")
    try:
        if root:
            path = Path(root) / NAME
            found = pooch.file_hash(str(path))
            if found != SHA256:
                raise ValueError(f"{NAME} in CIFAR10H_ROOT has the SHA-256 {found[:12]}…, expected {SHA256[:12]}…")
        elif download:
            path = pooch.retrieve(ADDRESS, f"sha256:{SHA256}", fname=NAME, downloader=pooch.HTTPDownloader(timeout=30))
        else:
            raise ValueError("CIFAR10H_ROOT is not set")
        return np.load(path)
    except Exception as error:  # of the network, of a disk: the notebook goes on without
        reason = str(error).split("(Caused by")[0].splitlines()[0][:150]
        print(f"CIFAR-10H is not here ({reason}):\nthe comparison with people is left out.")
        return None
