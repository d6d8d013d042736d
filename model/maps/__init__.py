"""Maps of a method: where they are stored, how they are read, written and shown."""
