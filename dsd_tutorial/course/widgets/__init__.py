"""What a learner turns by hand: attention, variations and edits to explore, beside a still."""
