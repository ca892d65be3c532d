"""progtrain grows neural networks while they train and reports whether growing paid."""

__version__ = "0.1.0"
