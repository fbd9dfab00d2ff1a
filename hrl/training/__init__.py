"""Loop, evaluation, checkpoint, logging."""
