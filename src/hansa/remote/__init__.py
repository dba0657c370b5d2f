"""A person's side of a federation: hand a project over, follow its run, bring the results back."""
