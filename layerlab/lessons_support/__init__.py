"""What lessons are made of beside PyTorch itself: scores for predictions, checks for exercises."""
