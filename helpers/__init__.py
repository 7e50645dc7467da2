"""What more than one notebook needs: data, batches, training, metrics, plots, records.

Importing this package imports none of them, so it is cheap; `from helpers import data` imports one.
"""
