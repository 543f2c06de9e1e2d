"""Runs plans: many trainings, here or on a cluster, each row of the results once."""
