"""Loaded once by the process that those of the trials are forked from."""

import warnings

# torch warns of its own deprecations while other packages import it; nobody can act on them here.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch")

import fastseg.experiments.searching.child  # noqa: E402, F401
