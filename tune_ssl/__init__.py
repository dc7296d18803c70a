"""The search: a command line, a study that is the truth, and Ray as its muscle."""

__version__ = "0.1.0"
