"""What a learner touches: a file for each widget."""
