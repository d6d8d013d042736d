"""The paper's tables with this run's rows beside them."""
