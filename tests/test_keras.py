"""The tests of keras_cases.py, in a process of their own."""

import subprocess
import sys

from helpers.files import REPOSITORY


def test_keras_cases():
    """TensorFlow in one process with PyTorch's compiler (Triton, which counts operations) is a crash."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/keras_cases.py"]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200)  # against a hang
    assert ran.returncode == 0, ran.stdout + ran.stderr
