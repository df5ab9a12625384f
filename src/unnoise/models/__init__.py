"""What is trained and drawn from."""
