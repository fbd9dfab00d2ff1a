"""Functions that change a level's batches before it learns from them: (transitions, generator) -> transitions."""
