"""Planning over landmarks: shortest paths on a graph whose edges are hops that a trained level can make."""
