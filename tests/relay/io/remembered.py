"""What a process still remembers of somebody."""

import gc


def tables_with(text):
    """Return all dictionaries in use in this process that have a key with this in it."""
    gc.collect()
    return [
        table
        for table in gc.get_objects()
        if issubclass(
            type(table), dict
        )  # not of what a weak reference stands for, that may be gone
        and any(isinstance(key, str) and text in key for key in tuple(table))
    ]
