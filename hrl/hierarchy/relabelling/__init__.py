"""What rewrites a level's batches before it learns from them: pure functions (transitions, generator) ->
transitions."""
