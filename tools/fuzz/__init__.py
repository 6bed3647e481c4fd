"""Inputs that nobody wrote on purpose, by the thousand: each must give a result or a one-line ``UserError``.

    python -m tools.fuzz                                    # 50 cases of every target
    python -m tools.fuzz language-models --count 10000      # one target; --seed makes other cases
    python -m tools.fuzz model-folders --seed 1 --first 817 --count 1      # one case again

``targets`` lists what is fuzzed; each target has a module or shares one. ``runner`` watches the process in
which the cases run: a signal, a traceback, more than ``SECONDS`` of processor time or ``MEGABYTES`` of memory
is a fault, and the exit status is 1. A case follows from target, seed and number alone.
"""
