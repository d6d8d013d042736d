"""How sure the scores are: intervals, paired tests, break-downs."""
