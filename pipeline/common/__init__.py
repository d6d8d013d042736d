"""What every step stands on: files, params, tables, names of things. Knows no step."""
