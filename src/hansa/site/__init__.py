"""A site: one data owner's part of a federation; its settings, its word, its ledger, its agent."""
