"""Comparing a retriever with numbers that an original program recorded."""
