"""What trains: hierarchies step by step, and algorithms that learn in rounds of whole episodes; and how they
collect."""
