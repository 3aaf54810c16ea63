"""Towers, frame aggregation, interactions, and the retriever that joins them."""
