"""Learners that meet their tasks in whole episodes, and how episodes are collected for them."""
