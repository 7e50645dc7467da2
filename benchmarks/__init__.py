"""What the README says about speed and memory, measured: see benchmarks/README.md."""
