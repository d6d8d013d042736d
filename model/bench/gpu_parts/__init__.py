"""The parts of `bench gpu`: each runs in a process of its own and keeps every number as soon as it has it."""
