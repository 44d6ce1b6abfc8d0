"""What a process still remembers of somebody."""

import gc


def tables_with(text):
    """Return all dictionaries in use in this process that have a key with this in it."""
    gc.collect()
    # By its type: `isinstance` asks what a weak proxy stands for, which may be gone.
    tables = [table for table in gc.get_objects() if issubclass(type(table), dict)]
    return [
        table
        for table in tables
        if any(isinstance(key, str) and text in key for key in tuple(table))
    ]
