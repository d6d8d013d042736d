"""`doctor`: what stands in the way of a run, found before it starts, each with its way out.

Every check is on its own: one that breaks is a finding, and the others go on. Nothing heavy is imported
before the check that needs it, so that a broken installation can be examined too.
"""
