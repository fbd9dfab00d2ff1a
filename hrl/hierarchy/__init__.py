"""The hierarchy of levels on different clocks, and the parts of a level: commands, goal spaces, timescales."""
