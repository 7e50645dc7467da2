"""What docs/ says about speed and about each choice of a recipe, measured: see benchmarks/README.md."""
