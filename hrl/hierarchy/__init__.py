"""The stack of levels on different clocks, and what each is made of: commands, goal spaces, timescales."""
