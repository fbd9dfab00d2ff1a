"""What stands around an environment: checks of what it returns, delays, memories, worker processes."""
