"""Planning over landmarks: shortest paths on a graph. Its edges are hops that a trained level can make."""
