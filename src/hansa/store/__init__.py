"""Files that survive a crash."""

from hansa.store.files import load_params, save_params, write_durably

__all__ = ["load_params", "save_params", "write_durably"]
