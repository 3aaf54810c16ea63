"""From scores to numbers a reader can trust: ranks and recalls, protocol card, reports."""
