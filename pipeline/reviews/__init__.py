"""What people think of pseudo-masks: their verdicts, and what follows from them."""
