"""Command `export-masks`: pseudo-masks in the formats of the tools that people use."""
